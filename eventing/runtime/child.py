"""A child of the supervisor: `python -P -m eventing.runtime.child MODULE:CLASS ORDERS_FD REPORTS_FD`.

The module is imported first; the settings come when it is this role's turn. SIGTERM stops the role in its own order. The
end of the orders pipe (the supervisor is gone) does the same, and a role that does not end in time then is ended.
"""

import asyncio
import gc
import importlib
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import uvloop

from eventing.errors import StartError
from eventing.observe.lines import emit, render
from eventing.observe.logs import configure
from eventing.observe.stalls import LoopWatch
from eventing.runtime.data_directory import DataDirectory
from eventing.runtime.process import STUCK
from eventing.runtime.settings import ChildSettings

__all__ = ["RoleClass", "RunningRole", "leaves", "main", "raise_file_limit", "report_fault"]

logger = logging.getLogger(__name__)

_FILES = 65_536
# Young objects that are looked at together for garbage in cycles; Python's 700 is for small programs. Hundreds of events are
# under way here at a time, each a handful of objects that end soon: what is looked at seldom has mostly ended by itself.
_YOUNG_OBJECTS = 10_000
_CLOSED = "the handler is closed"  # uvloop, of a transport
_GRACE_S = 2.0  # on top of the drain time, once the supervisor is gone


class RunningRole(Protocol):
    """A part of the mesh that runs alone in a process, or beside others in one event loop."""

    async def run(self, *, started: Callable[[], None], stop: asyncio.Event) -> None:
        """Work until `stop` is set, then stop in order and return. Calls `started` once, when it is ready.

        Raises StartError where it cannot start for a reason that a person must mend.
        """


class RoleClass(Protocol):
    def __call__(self, settings: ChildSettings) -> RunningRole: ...


def main(arguments: list[str]) -> int:
    entry, orders_fd, reports_fd = arguments[0], int(arguments[1]), int(arguments[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides
    module_name, _, class_name = entry.partition(":")
    role_class: RoleClass = getattr(importlib.import_module(module_name), class_name)
    orders = _read_orders(orders_fd)
    if orders is None:
        return 0  # the supervisor ended before our turn came
    settings = ChildSettings.from_json(orders)
    configure(settings.log_format, settings.role)
    raise_file_limit()

    def report(**members: object) -> None:
        os.write(reports_fd, json.dumps(members).encode() + b"\n")

    def started() -> None:
        # Modules and what was made at the start stay for ever. A full collection that looks at all of it stops the loop for
        # 30 ms and more, whatever it finds; of what comes later it takes a few. The price: a channel that was there at the start
        # and is deleted later leaves its 14 KB behind until the process ends.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS)
        report(ready=True)

    code = 0
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_play(role_class(settings), settings, orders_fd, started))
    except* StartError as refusals:
        report(refused="; ".join(map(str, leaves(refusals))))
        code = 1
    return code


async def _play(role: RunningRole, settings: ChildSettings, orders_fd: int, started: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report_fault)
    stop = asyncio.Event()
    ended = threading.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def stay_with_supervisor() -> None:
        # A thread, not a reader of the loop: it must work even when the loop is stuck.
        while os.read(orders_fd, 4096):
            pass
        if not ended.is_set():
            # This process still holds the lock of the data directory, so the file is not another mesh's.
            DataDirectory(Path(settings.data_dir)).remove_endpoints()
            loop.call_soon_threadsafe(stop.set)
            if not ended.wait(settings.drain_s + _GRACE_S):
                os._exit(1)

    threading.Thread(target=stay_with_supervisor, name="stay-with-supervisor", daemon=True).start()
    watch = LoopWatch(
        stuck=lambda seconds, stack: _say_stuck(settings, seconds, stack),
        end=lambda: os._exit(STUCK),
        every_s=min(1.0, settings.stall_s / 4),
        stuck_s=settings.stall_s / 6,
        end_s=settings.stall_s,
    )
    watch.start()
    try:
        await role.run(started=started, stop=stop)
    finally:
        watch.stop()
        ended.set()


def report_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The loop's exception handler: what nobody has caught is logged, but for what is no fault.

    uvloop's TLS says goodbye also to a peer whose connection was reset within the same turn of the loop, and takes the refusal of
    the transport below, which it does not expect, for an error.
    """
    error = context.get("exception")
    if isinstance(error, RuntimeError) and "transport" in context and str(error).endswith(_CLOSED):
        logger.debug("%s: %s", context.get("message"), error)
        return
    loop.default_exception_handler(context)


def _say_stuck(settings: ChildSettings, seconds: float, stack: str) -> None:
    """Not by `logging`: the loop may hang while it holds one of its locks."""
    line = render(
        settings.log_format,
        moment=time.time(),
        level="error",
        process=settings.role,
        message="event loop is stuck",
        fields={"seconds": round(seconds, 1), "ended_after": settings.stall_s},
        detail=stack,
    )
    emit(line + "\n", sys.stderr.fileno())


def raise_file_limit() -> None:
    """Let this process open as many files as it may: each connection is one, and shells give 256 or 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # a system that has another limit beside
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _read_orders(fd: int) -> str | None:
    """The first line; nothing follows it."""
    text = b""
    while not text.endswith(b"\n"):
        chunk = os.read(fd, 65536)
        if not chunk:
            return None
        text += chunk
    return text.decode()


def leaves(group: BaseExceptionGroup[StartError]) -> Iterator[StartError]:
    """The errors in a group, out of all nested ones."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
