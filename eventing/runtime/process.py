"""One child of the supervisor: its process, its two pipes, its turn to start, its back-off."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from eventing.runtime.settings import ChildSettings

__all__ = ["STUCK", "Child", "Role"]

STUCK: Final = 75
"""Exit code of a child whose event loop did not turn any more (EX_TEMPFAIL: another try may do)."""

_BACK_OFF_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_CALM_S: Final = 60.0  # a child that ran so long has its crashes forgiven
_REPORT_MAX: Final = 65536


@dataclass(frozen=True, slots=True)
class Role:
    """What a child plays. `entry` is `module:Class` (see `eventing.runtime.child`)."""

    name: str
    entry: str
    sockets: Mapping[str, str] = field(default_factory=dict)  # what it inherits: its own name for it -> the listener's
    after: tuple[str, ...] = ()  # roles that must be ready before it gets its settings; those needed first come first
    stop_rank: int = 0  # lower stops first
    holds: str = ""  # what is lost, in words, when its process does not come to its own end
    essential: bool = True  # the mesh is ready when all essential ones are; one that fails during the start ends it
    data_plane: str = ""  # the name under which it reports as a data-plane process; "": it is none


# glibc keeps what large answers and thread pools have freed unless it is told otherwise; elsewhere these say nothing.
_MALLOC: Final = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "1048576", "MALLOC_MMAP_THRESHOLD_": "262144"}


class Child:
    """A role and, most of the time, the process that plays it."""

    def __init__(self, role: Role, settings: ChildSettings, *, lock_fd: int, clock: Callable[[], float]) -> None:
        self.role = role
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self.ordered = False
        self.ready = False
        self.crashes = 0
        self.due_at = clock()
        self.reports_fd = -1
        self._orders_fd = -1
        self._lock_fd = lock_fd
        self._clock = clock
        self._began = self._ordered_at = 0.0
        self._partial = b""

    def spawn(self) -> None:
        """Start the process. It imports its modules and then waits for its orders."""
        orders_r, self._orders_fd = os.pipe()
        self.reports_fd, reports_w = os.pipe()
        os.set_blocking(self.reports_fd, False)
        inherited = [orders_r, reports_w, *self.settings.sockets.values()]
        inherited += [
            fd for fd in (self._lock_fd, self.settings.manifests_fd, self.settings.loads_fd) if fd is not None and fd >= 0
        ]
        self._began = self._clock()
        self._partial = b""
        self.ordered = self.ready = False
        try:
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and modules, no shell
                [sys.executable, "-P", "-m", "eventing.runtime.child", self.role.entry, str(orders_r), str(reports_w)],
                stdin=subprocess.DEVNULL,
                pass_fds=inherited,
                process_group=0,
                env={**_MALLOC, **os.environ},
            )
        finally:
            os.close(orders_r)
            os.close(reports_w)

    def order(self) -> None:
        """Tell the child its settings: its turn has come."""
        self.ordered = True
        self._ordered_at = self._clock()
        with suppress(BrokenPipeError):  # it has just died: the supervisor will see it
            os.write(self._orders_fd, self.settings.to_json().encode() + b"\n")

    def read_reports(self) -> tuple[list[dict[str, Any]], bool]:
        """The complete reports that have come in, and whether more may come."""
        more = True
        with suppress(BlockingIOError):
            while chunk := os.read(self.reports_fd, _REPORT_MAX):
                self._partial += chunk
            more = False
        *lines, self._partial = self._partial.split(b"\n")
        return [json.loads(line) for line in lines], more

    def may_spawn(self, ready: AbstractSet[str]) -> bool:
        """Whether all but one of the roles that it needs are ready: it imports its modules while the last one starts."""
        return self.process is None and len(set(self.role.after) - ready) <= 1

    def must_be_ready_at(self, start_s: float) -> float | None:
        """The deadline of its start, which counts from its orders; None: it is ready, or not its turn."""
        return self._ordered_at + start_s if self.ordered and not self.ready else None

    def back_off(self) -> float:
        """Note a crash; return the pause until the next start, in seconds."""
        now = self._clock()
        if now - self._began > _CALM_S:
            self.crashes = 0
        pause_s = _BACK_OFF_S[min(self.crashes, len(_BACK_OFF_S) - 1)]
        self.crashes += 1
        self.due_at = now + pause_s
        return pause_s

    def kill(self) -> None:
        """End the process now, and wait for its end."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def forget(self) -> None:
        """Close what belonged to the process that has ended."""
        for fd in (self._orders_fd, self.reports_fd):
            if fd >= 0:
                os.close(fd)
        self._orders_fd = self.reports_fd = -1
        self.process = None
        self.ready = self.ordered = False
