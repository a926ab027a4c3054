"""What every broker of the tests is, whatever it speaks: a service with files of its own, in a container or a process."""

import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from tests.support.authority import Authority
from tests.support.back_ends import BackEnd
from tests.support.reaper import Reaper
from tests.support.services import ContainerService, ProcessService, Service

__all__ = ["Broker"]

_FILES_AT: Final = "/etc/eventing-mesh-test"
_UP_S: Final = 120.0


class Broker(ABC):
    """Every method that waits blocks: from a coroutine, use `asyncio.to_thread`. Ports, and what the broker keeps for good, stay the
    same through `kill`, `stop` and `start`."""

    product: ClassVar[str]
    """As people call it."""

    def __init__(self, back_end: BackEnd, reaper: Reaper) -> None:
        self.back_end = back_end
        name = self.product.lower()
        self._directory = Path(tempfile.mkdtemp(prefix=f"eventing-mesh-{name}-"))
        self._reaper = reaper
        reaper.directory(str(self._directory))
        self.authority = Authority.create(self._directory)
        self._files = self._directory / "files"
        self._files.mkdir()
        self._directory.chmod(0o755)  # the image may have a user of its own
        engine = back_end.engine
        inside = engine is not None
        # As the broker sees them: where it keeps what it has, where its files are, and what it is to listen at.
        self._data = "/tmp/eventing-mesh-data" if inside else str(self._directory / "data")
        self._at = _FILES_AT if inside else str(self._files)
        self._bind = "127.0.0.1" if engine is None or engine.shares_loopback else "0.0.0.0"
        self._service: Service

    def _launched_by(self, script: str, ports: Sequence[int], environment: Mapping[str, str] | None = None) -> None:
        """`script`, one of its files, runs it. `ports` are those at which clients come."""
        command = ["/bin/sh", f"{self._at}/{script}"]
        told = dict(environment or {})
        engine = self.back_end.engine
        if engine is None:
            self._service = ProcessService(command, reaper=self._reaper, directory=self._directory, environment=told)
        else:
            self._service = ContainerService(
                self.back_end.image,
                command,
                engine=engine,
                reaper=self._reaper,
                name=self.product.lower(),
                ports=list(ports),
                files=self._files,
                files_at=_FILES_AT,
                environment=told,
            )

    @abstractmethod
    def _serves(self) -> bool:
        """Whether it answers the first words of a client: connections are accepted long before that."""

    @property
    @abstractmethod
    def version(self) -> str:
        """As it says itself; "" before it was started."""

    def start(self) -> None:
        """Start it and wait until it serves. Raises AssertionError with the end of its log where it does not."""
        self._service.start()
        deadline = time.monotonic() + _UP_S
        while not self._serves():
            assert self._service.running(), f"{self.product} has ended while it was starting:\n{self._end_of_log()}"
            assert time.monotonic() < deadline, f"{self.product} does not serve after {_UP_S} s:\n{self._end_of_log()}"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL. `start` brings it back with what it had."""
        self._service.kill()

    def stop(self) -> None:
        """An orderly end. `start` brings it back."""
        self._service.stop()

    def restart(self) -> None:
        """`stop`, then `start`."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it, as SIGSTOP does: connections stay, nobody answers, until `resume`."""
        self._service.pause()

    def resume(self) -> None:
        """The end of `pause`. It serves again some moments later."""
        self._service.resume()

    @property
    def running(self) -> bool:
        return self._service.running()

    def log(self) -> str:
        """What the broker has written since it was made."""
        return self._service.log()

    def remove(self) -> None:
        """Kill it and delete all that it kept."""
        self._service.remove()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._reaper.forget("directory", str(self._directory))

    def _end_of_log(self) -> str:
        return "\n".join(self.log().splitlines()[-30:])
