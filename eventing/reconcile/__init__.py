"""The reconcile loop: keys in, one worker per key, back-off, resync; and who has to look again when an object changes."""

from eventing.reconcile.loop import Again, Done, Outcome, ReconcileLoop, Reconciler, TerminalError
from eventing.reconcile.queue import Backoff, Key, WorkQueue
from eventing.reconcile.tracker import Tracker

__all__ = [
    "Again",
    "Backoff",
    "Done",
    "Key",
    "Outcome",
    "ReconcileLoop",
    "Reconciler",
    "TerminalError",
    "Tracker",
    "WorkQueue",
]
