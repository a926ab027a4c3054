"""The process that `eventing up` becomes: it binds the sockets, starts the children, and watches over them.

It does no work of its own and imports next to nothing, so that it stays small and has little to fail on. Each child has two
pipes: **orders** (its settings in one line; the end of the pipe says that the supervisor is gone, even by SIGKILL, and the
child ends) and **reports** (one JSON line each: `ready`, or `refused` with a message for people). Children are in process
groups of their own: Ctrl-C reaches the supervisor alone, which stops them in order.
"""

import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Final

from eventing import __version__
from eventing.errors import StartError
from eventing.observe.lines import emit, render
from eventing.runtime.banner import banner
from eventing.runtime.data_directory import DataDirectory
from eventing.runtime.listeners import advertised_host, bind, port_of
from eventing.runtime.process import STUCK, Child, Role
from eventing.runtime.settings import DATA_PLANE_NAME, ChildSettings, Endpoints, UpSettings, data_plane_names

__all__ = ["Supervisor", "main", "roles_of"]

_STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_STOP_GRACE_S: Final = 5.0  # to stop, apart from draining
_INTERRUPTED: Final = 130  # as a shell has it
_LISTENERS: Final = {"api": "Kubernetes API", "ingress": "ingress", "metrics": "metrics endpoint"}


def roles_of(settings: UpSettings) -> tuple[Role, ...]:
    """The children that these settings ask for."""
    # The data plane stops first: it takes no more events and finishes what is in flight while the subscriber of the
    # quickstart still answers and the API still takes its last report.
    control = Role("control", "eventing.runtime.control:Control", sockets={"api": "api"}, stop_rank=3)
    data_planes = [
        Role(
            name.replace(DATA_PLANE_NAME, "dataplane"),
            "eventing.runtime.data_plane:DataPlaneRole",
            sockets={"ingress": "ingress", "metrics": listener},
            after=("control",),
            stop_rank=1,
            # Several serve no in-memory channels.
            holds="what in-memory channels held" if settings.workers == 1 else "",
            data_plane=name,
        )
        for name, listener in zip(data_plane_names(settings.workers), _admin_listeners(settings), strict=True)
    ]
    if not settings.quickstart:
        return (control, *data_planes)
    quickstart = Role(
        "quickstart",
        "eventing.runtime.quickstart:Quickstart",
        sockets={"subscriber": "subscriber"},
        after=("control", *(role.name for role in data_planes)),
        stop_rank=2,
        essential=False,
    )
    return (control, *data_planes, quickstart)


def _admin_listeners(settings: UpSettings) -> list[str]:
    """By what names the supervisor keeps the listeners of the data-plane processes' admin endpoints."""
    return ["metrics", *(f"metrics-{number}" for number in range(1, settings.workers))]


class Supervisor:
    """Runs `roles` until it is told to stop. `run` returns the exit code."""

    def __init__(
        self,
        settings: UpSettings,
        directory: DataDirectory,
        listeners: Mapping[str, socket.socket],
        roles: tuple[Role, ...],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._listeners = listeners
        self._clock = clock
        self._began = clock()
        self._ready = False
        self._stops = 0
        host = advertised_host(settings.host)
        self._endpoints = Endpoints(
            api=f"https://{host}:{port_of(listeners['api'])}",
            ingress=f"{settings.ingress.scheme}://{host}:{port_of(listeners['ingress'])}",
            metrics=f"http://{host}:{port_of(listeners['metrics'])}",
            data_planes={
                role.data_plane: f"http://{host}:{port_of(listeners[role.sockets['metrics']])}"
                for role in roles
                if role.data_plane
            },
        )
        loads_fd = directory.shared_memory(8 * settings.workers) if settings.workers > 1 else -1
        secrets = _read_secrets(settings.secrets_fd)
        self._selector = selectors.DefaultSelector()
        self._children = {
            role.name: Child(
                role,
                ChildSettings(
                    role=role.name,
                    data_dir=settings.data_dir,
                    host=settings.host,
                    endpoints=self._endpoints,
                    data_plane=role.data_plane,
                    workers=settings.workers,
                    loads_fd=loads_fd if role.data_plane else -1,
                    sockets={name: listeners[listener].fileno() for name, listener in role.sockets.items()},
                    log_format=settings.log_format,
                    drain_s=settings.drain_s,
                    stall_s=settings.stall_s,
                    journal=settings.journal,
                    manifests_fd=settings.manifests_fd if role.name == "control" else None,
                    config_maps=settings.config_maps if role.name == "control" else {},
                    secrets=secrets if role.name == "control" else {},
                    ingress=settings.ingress,
                    delivery=settings.delivery,
                ),
                lock_fd=directory.lock_fd,
                clock=clock,
            )
            for role in roles
        }

    def run(self) -> int:
        """Start everything, stay until told to stop, stop in order. Raises StartError where the start fails."""
        wake_r, wake_w = os.pipe()
        os.set_blocking(wake_r, False)
        os.set_blocking(wake_w, False)
        previous_fd = signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        previous = {number: signal.signal(number, _noted) for number in (*_STOPPING, signal.SIGCHLD)}
        self._selector.register(wake_r, selectors.EVENT_READ, lambda: self._signalled(os.read(wake_r, 512)))
        try:
            while not self._stops:
                self._start_due()
                self._wait(self._next_deadline())
                self._reap()
            return self._stop()
        except StartError:
            self._stop_children(_STOP_GRACE_S)
            raise
        finally:
            self._directory.remove_endpoints()
            for child in self._children.values():
                child.kill()
            for number, handler in previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous_fd)
            self._selector.close()
            os.close(wake_r)
            os.close(wake_w)

    def _signalled(self, numbers: bytes) -> None:
        self._stops += sum(number in _STOPPING for number in numbers)

    def _wait(self, deadline: float | None) -> None:
        timeout = None if deadline is None else max(0.0, deadline - self._clock())
        for key, _ in self._selector.select(timeout):
            key.data()

    # Starting

    def _start_due(self) -> None:
        ready = self._ready_roles()
        for child in self._children.values():
            if child.may_spawn(ready) and child.due_at <= self._clock():
                child.spawn()
                self._selector.register(child.reports_fd, selectors.EVENT_READ, lambda child=child: self._report(child))
            if child.process is not None and not child.ordered and ready.issuperset(child.role.after):
                child.order()
            deadline = child.must_be_ready_at(self._settings.start_s)
            if deadline is not None and deadline <= self._clock():
                child.kill()
                self._drop(child)
                self._lost(child, f"was not ready within {self._settings.start_s:g} s")

    def _next_deadline(self) -> float | None:
        ready = self._ready_roles()
        moments = [child.due_at for child in self._children.values() if child.may_spawn(ready)]
        starts = [child.must_be_ready_at(self._settings.start_s) for child in self._children.values()]
        return min([*moments, *(deadline for deadline in starts if deadline is not None)], default=None)

    def _ready_roles(self) -> set[str]:
        return {name for name, child in self._children.items() if child.ready}

    def _report(self, child: Child) -> None:
        reports, more = child.read_reports()
        if not more:
            self._selector.unregister(child.reports_fd)
        for report in reports:
            if "refused" in report:
                if not self._ready:
                    raise StartError(str(report["refused"]))
                self._say("cannot start", "error", role=child.role.name, reason=report["refused"])
            elif report.get("ready"):
                child.ready = True
                self._say("ready" if not child.crashes else "ready again", role=child.role.name)
                # Applied once: a restarted control process finds the objects in its database.
                child.settings = replace(child.settings, manifests_fd=None, config_maps={}, secrets={})
        if not (self._ready or self._stops) and all(child.ready for child in self._children.values() if child.role.essential):
            self._ready = True
            self._directory.write_endpoints(self._endpoints)
            emit(banner(self._settings, self._endpoints, self._clock() - self._began))

    # What goes wrong

    def _reap(self) -> None:
        for child in self._children.values():
            if child.process is not None and (code := child.process.poll()) is not None:
                self._drop(child)
                self._lost(child, _ending(code), drained=code == 0)

    def _drop(self, child: Child) -> None:
        """Read the last words of a process that has ended, and forget it."""
        if child.reports_fd in self._selector.get_map():
            self._report(child)
        if child.reports_fd in self._selector.get_map():
            self._selector.unregister(child.reports_fd)
        child.forget()

    def _lost(self, child: Child, how: str, *, drained: bool = False) -> None:
        if not self._ready and child.role.essential:
            raise StartError(f"the {child.role.name} process {how} during the start; what it said is above")
        pause_s = child.back_off()
        lost = {"lost": child.role.holds} if child.role.holds and not drained else {}
        self._say("process ended, starting it again", "error", role=child.role.name, how=how, pause=f"{pause_s:g}s", **lost)

    # Stopping

    def _stop(self) -> int:
        """Stop rank by rank; a second signal ends everything at once."""
        self._directory.remove_endpoints()
        for listener in self._listeners.values():
            listener.close()  # what no child serves any more is refused, not left waiting
        self._say("stopping", drain=f"{self._settings.drain_s:g}s")
        late = self._stop_children(self._settings.drain_s + _STOP_GRACE_S)
        if self._stops > 1:
            self._say("stopped at once, without waiting for what was in flight", "warning")
            return _INTERRUPTED
        for child in late:
            lost = {"lost": child.role.holds} if child.role.holds else {}
            self._say("did not stop in time, killed", "error", role=child.role.name, **lost)
        self._say("stopped")
        return 1 if late else 0

    def _stop_children(self, patience_s: float) -> list[Child]:
        """End all children, those of one rank together, each rank within `patience_s`; return those that had to be killed."""
        late: list[Child] = []
        for rank in sorted({child.role.stop_rank for child in self._children.values()}):
            stopping = [(child, child.process) for child in self._children.values() if child.role.stop_rank == rank]
            running = [(child, process) for child, process in stopping if process is not None]
            for _, process in running:
                process.terminate()
            deadline = self._clock() + patience_s
            while self._clock() < deadline and self._stops <= 1 and any(process.poll() is None for _, process in running):
                self._wait(deadline)
            for child, process in running:
                if process.poll() is None:
                    child.kill()
                    late.append(child)
                self._drop(child)
        return late

    def _say(self, message: str, level: str = "info", **fields: object) -> None:
        line = render(
            self._settings.log_format,
            moment=time.time(),
            level=level,
            process="supervisor",
            message=message,
            fields=fields,
        )
        emit(line + "\n", sys.stderr.fileno())


def _read_secrets(fd: int | None) -> dict[str, dict[str, str]]:
    """What the options want to have in Secrets. Its file is gone afterwards."""
    if fd is None:
        return {}
    with os.fdopen(fd, encoding="utf-8") as file:
        file.seek(0)
        found: dict[str, dict[str, str]] = json.load(file)
    return found


def _noted(_number: int, _frame: FrameType | None) -> None:
    """A handler only so that the signal reaches the wake-up pipe."""


def _ending(code: int) -> str:
    if code == STUCK:
        return "was stuck, and ended itself"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _bind_all(settings: UpSettings) -> dict[str, socket.socket]:
    ports = {"api": settings.api_port, "ingress": settings.ingress_port}
    listeners: dict[str, socket.socket] = {}
    try:
        for name, port in ports.items():
            listeners[name] = bind(_LISTENERS[name], settings.host, port, f"--{name}-port")
        for number, name in enumerate(_admin_listeners(settings)):
            what = _LISTENERS["metrics"] + (f" of data-plane process {number}" if number else "")
            port = settings.metrics_port + number if settings.metrics_port else 0
            listeners[name] = bind(what, settings.host, port, "--metrics-port")
        if settings.quickstart:
            listeners["subscriber"] = bind("subscriber of the quickstart", "127.0.0.1", 0, "--host")
    except StartError:
        for listener in listeners.values():
            listener.close()
        raise
    return listeners


def main(arguments: list[str], roles: Callable[[UpSettings], tuple[Role, ...]] = roles_of) -> int:
    """`python -P -m eventing.runtime.supervisor SETTINGS-AS-JSON`: what `eventing up` executes in its own place."""
    settings = UpSettings.from_json(arguments[0])
    directory = DataDirectory(Path(settings.data_dir))
    try:
        directory.open()
        listeners = _bind_all(settings)
        return Supervisor(settings, directory, listeners, roles(settings)).run()
    except StartError as error:
        text = f"eventing {__version__} cannot start: {error}"
        if settings.log_format == "json":
            fields = {"version": __version__, "reason": str(error)}
            text = render("json", moment=time.time(), level="error", process="supervisor", message="cannot start", fields=fields)
        emit(f"{text}\n", 2)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
