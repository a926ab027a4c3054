"""What happened to each event at each subscription, and why."""

from eventing.journal.journal import Journal
from eventing.journal.record import Decision, Rule

__all__ = ["Decision", "Journal", "Rule"]
