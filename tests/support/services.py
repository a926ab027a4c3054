"""Real services for the tests, as containers or as processes, that can be killed, frozen and started again on their ports."""

import os
import platform
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from tests.support.reaper import Reaper

__all__ = ["ContainerService", "Engine", "ProcessService", "Service"]

_STOP_S = 20
_PAUSE_S = 20


class Service(Protocol):
    """One service. What it keeps on disk outlives `kill` and `stop`, and is gone after `remove`."""

    def start(self) -> None:
        """Start it, the first time or again. Does not wait until it serves."""

    def kill(self) -> None:
        """SIGKILL; its connections are reset. Returns when it is dead."""

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after 20 s. Returns when it is dead."""

    def pause(self) -> None:
        """Freeze it: connections stay open and nobody answers."""

    def resume(self) -> None:
        """The end of `pause`."""

    def running(self) -> bool:
        """Whether it lives, frozen or not."""

    def log(self) -> str:
        """What it has written so far."""

    def run(self, command: Sequence[str]) -> str:
        """What another program says that is run beside it. Raises AssertionError with that where it fails."""

    def remove(self) -> None:
        """Kill it if it lives, with what it kept, but for the directories it was given. Works more than once."""


class Engine:
    """The Docker engine that `docker` talks to. `instance` is None where none answers."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    def find(cls) -> "Engine | None":
        import docker  # only test runs that need a service pay for it

        if not _listens(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"):
            return None
        try:
            return cls(docker.from_env(timeout=60))
        except docker.errors.DockerException:
            return None

    def has(self, image: str) -> bool:
        import docker

        try:
            self._client.images.get(image)
        except docker.errors.ImageNotFound:
            return False
        return True

    @cached_property
    def shares_loopback(self) -> bool:
        """Whether a container with network `host` has the loopback interface of this machine."""
        info = self._client.info()
        rootless = any("rootless" in option for option in info.get("SecurityOptions") or ())
        return platform.system() == "Linux" and "Desktop" not in info.get("OperatingSystem", "") and not rootless


def _listens(address: str) -> bool:
    """Whether anybody is at a local engine's socket; the client library would leave one open that leads nowhere."""
    if not address.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(address.removeprefix("unix://")) == 0


class ContainerService:
    """A container of testcontainers. `ports` are the same inside and outside, and served on 127.0.0.1."""

    def __init__(
        self,
        image: str,
        command: Sequence[str],
        *,
        engine: Engine,
        reaper: Reaper,
        name: str,
        ports: Sequence[int],
        files: Path,
        files_at: str,
        environment: dict[str, str],
    ) -> None:
        from testcontainers.core.config import testcontainers_config
        from testcontainers.core.container import DockerContainer

        testcontainers_config.ryuk_disabled = True  # our reaper needs no image
        self._reaper = reaper
        self.name = f"eventing-mesh-test-{name}-{uuid.uuid4().hex[:12]}"
        options: dict[str, Any] = {"entrypoint": "", "network_mode": "host"} if engine.shares_loopback else {"entrypoint": ""}
        self._made = (
            DockerContainer(image, name=self.name)
            .with_command(list(command))
            .with_envs(**environment)
            .with_volume_mapping(str(files), files_at, "ro")
            .with_kwargs(**options)
        )
        if not engine.shares_loopback:
            self._made.ports.update({f"{port}/tcp": ("127.0.0.1", port) for port in ports})  # type: ignore[misc]
        self._started = False

    @property
    def _container(self) -> Any:
        return self._made.get_wrapped_container()

    def start(self) -> None:
        if self._started:
            self._container.start()
        else:
            self._reaper.container(self.name)
            self._started = True
            self._made.start()

    def kill(self) -> None:
        self._container.kill("SIGKILL")
        self._container.wait(timeout=60)

    def stop(self) -> None:
        self._container.stop(timeout=_STOP_S)

    def pause(self) -> None:
        import docker

        # The engine gives up after a while where processes of the container are just being started: seen on a busy machine.
        deadline = time.monotonic() + _PAUSE_S
        while True:
            try:
                self._container.pause()
            except docker.errors.APIError as error:
                if "unable to freeze" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def resume(self) -> None:
        self._container.unpause()

    def running(self) -> bool:
        self._container.reload()
        return self._container.status in {"running", "paused"}

    def log(self) -> str:
        return str(self._container.logs().decode(errors="replace"))

    def run(self, command: Sequence[str]) -> str:
        code, told = self._container.exec_run(list(command))
        text = str(told.decode(errors="replace"))
        assert code == 0, f"{command}: {text}"
        return text

    def remove(self) -> None:
        if self._started:
            self._started = False
            self._made.stop(force=True)
            self._reaper.forget("container", self.name)


class ProcessService:
    """A process of this machine, in a process group of its own."""

    def __init__(self, command: Sequence[str], *, reaper: Reaper, directory: Path, environment: dict[str, str]) -> None:
        self._command = list(command)
        self._reaper = reaper
        self._directory = directory
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert not self.running()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | self._environment,
                start_new_session=True,
            )
        self._reaper.process(self._process.pid)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._ended(_STOP_S)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)
        try:
            self._ended(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def run(self, command: Sequence[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=os.environ | self._environment,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout

    def remove(self) -> None:
        if self.running():
            self.kill()

    @property
    def _log(self) -> Path:
        return self._directory / "log"

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _ended(self, within_s: float) -> None:
        assert self._process is not None
        self._process.wait(within_s)
        self._reaper.forget("process", self._process.pid)
