"""The data directory: what a mesh keeps, where, and who may use it.

Its layout, mode 0700:
    kubeconfig      0600  for kubectl
    pki/            0700  the private CA and the API server's certificate; what clients of an https ingress must trust
    tokens.json     0600  bearer tokens of the administrator and of the mesh's own users
    api.sqlite3           the API objects
    journal/        0700  segments of failed events (docs/journal.md)
    endpoints.json        URLs, only while the mesh is ready
    lock                  held (flock) by the running mesh; holds the supervisor's pid
    version               of this layout; a newer one is refused
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from eventing.errors import StartError
from eventing.runtime.settings import Endpoints

__all__ = ["LAYOUT_VERSION", "DataDirectory", "default_data_dir"]

LAYOUT_VERSION: Final = 1
_FOREIGN: Final = frozenset({"lost+found"})  # a fresh volume of a disk has it


def default_data_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """`$EVENTING_DATA_DIR`, else `$XDG_DATA_HOME/eventing-mesh`, else `~/.local/share/eventing-mesh`."""
    if named := environment.get("EVENTING_DATA_DIR"):
        return Path(named).expanduser().absolute()
    base = environment.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser().absolute() / "eventing-mesh"


class DataDirectory:
    """Paths and the lock. Nothing is touched before `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kubeconfig = path / "kubeconfig"
        self.pki = path / "pki"
        self.ingress_ca = self.pki / "ingress-ca.crt"
        self.tokens = path / "tokens.json"
        self.database = path / "api.sqlite3"
        self.journal = path / "journal"
        self.endpoints = path / "endpoints.json"
        self.lock = path / "lock"
        self.version = path / "version"
        self.lock_fd = -1

    def open(
        self,
        *,
        patience_s: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Make the directory where it is missing, take its lock, and check its version.

        Children inherit the lock, so that a mesh whose supervisor was killed keeps it until the last of them has ended;
        that is waited for, up to `patience_s`. Raises StartError, which says what to do.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.version.exists() and any(entry.name not in _FOREIGN | {self.lock.name} for entry in self.path.iterdir()):
                raise StartError(
                    f"{self.path} holds other files and is no data directory of a mesh: "
                    "choose an empty or a new one with --data-dir"
                )
            self.path.chmod(0o700)
            self.lock_fd = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            reason = error.strerror or error
            raise StartError(
                f"the data directory {self.path} cannot be used: {reason}; choose another with --data-dir"
            ) from error
        self._take_lock(clock() + patience_s, clock, sleep)
        self._check_version()
        os.ftruncate(self.lock_fd, 0)
        os.pwrite(self.lock_fd, f"{os.getpid()}\n".encode(), 0)
        self.endpoints.unlink(missing_ok=True)  # left by a mesh that was killed

    def _take_lock(self, deadline: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        while True:
            try:
                fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                    self.close()
                    raise StartError(f"{self.lock} cannot be locked: {error.strerror}") from error
            else:
                return
            holder = os.pread(self.lock_fd, 32, 0).decode("ascii", "replace").strip()
            if _alive(holder) or clock() >= deadline:
                self.close()
                process = f", process {holder}" if holder else ""
                raise StartError(
                    f"a mesh is already running on {self.path}{process}: "
                    "use it, stop it, or start this one elsewhere with --data-dir"
                )
            sleep(0.1)

    def _check_version(self) -> None:
        try:
            text = self.version.read_text().strip()
        except FileNotFoundError:
            self.write(self.version, f"{LAYOUT_VERSION}\n")
            return
        if not text.isdecimal() or int(text) > LAYOUT_VERSION:
            self.close()
            raise StartError(
                f"{self.path} has layout {text[:20]!r}, written by a newer eventing-mesh; this one reads up to "
                f"{LAYOUT_VERSION}: upgrade it, or choose another directory with --data-dir"
            )

    def shared_memory(self, size: int) -> int:
        """A descriptor of a file without a name, of `size` zero bytes, for children to share."""
        path = self.path / ".shared"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        path.unlink()
        os.ftruncate(fd, size)
        return fd

    def write_endpoints(self, endpoints: Endpoints) -> None:
        self.write(self.endpoints, endpoints.to_json())

    def remove_endpoints(self) -> None:
        self.endpoints.unlink(missing_ok=True)

    def read_endpoints(self) -> Endpoints | None:
        """Where the mesh that runs here listens; None where none does, or is not ready."""
        try:
            return Endpoints.from_json(self.endpoints.read_text())
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StartError(f"{self.endpoints} is damaged ({error}): restart the mesh") from error

    @staticmethod
    def write(path: Path, text: str, mode: int = 0o600) -> None:
        """Replace a file whole: a reader sees the old content or the new, never half."""
        part = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def close(self) -> None:
        """Let the lock go."""
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1


def _alive(pid: str) -> bool:
    if not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
