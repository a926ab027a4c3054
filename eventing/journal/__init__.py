"""What happened to each event at each subscription, and why."""

from eventing.journal.record import Decision, Rule
from eventing.journal.ring import Journal

__all__ = ["Decision", "Journal", "Rule"]
