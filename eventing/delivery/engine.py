"""What the workers of a process work with: one delivery's settings, and what they share."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from eventing.channels import Order
from eventing.delivery.connections import Connections, Target
from eventing.delivery.failure_lines import FailureLines
from eventing.delivery.policy import Policy
from eventing.delivery.spans import AttemptSpans
from eventing.journal import Journal

__all__ = ["Attempt", "Delivery", "Engine"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a subscription wants its events delivered; an edit replaces it whole and applies from the next attempt."""

    subscription: str  # NS/NAME, for people
    subscriber: Target
    reply: Target | None = None
    dead_letter: Target | None = None
    policy: Policy = field(default_factory=Policy)
    format: str = ""  # "" as received | json | binary
    concurrency: int = 10
    order: Order = Order.NONE


class Engine:
    """What all workers of a process share. `spans` is None where none are configured."""

    def __init__(
        self,
        *,
        journal: Journal,
        connections: Connections,
        tasks: asyncio.TaskGroup,
        rand: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        spans: AttemptSpans | None = None,
    ) -> None:
        self.journal = journal
        self.wall = wall
        self.connections = connections
        self.tasks = tasks
        self.rand = rand
        self.spans = spans
        self.failure_lines = FailureLines(journal.receipt_text, clock=clock)
        # Not loop.time: uvloop's stands still within a turn of the loop and counts milliseconds. Same origin, though.
        self.clock = clock


@dataclass(slots=True)
class Attempt:
    """One attempt that has ended, where more is to be done about it than to settle."""

    lease: Any
    number: int
    started: float
