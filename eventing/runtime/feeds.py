"""What happens in every data-plane process of a mesh, told in one stream: what `eventing tail` follows.

A thread per process asks for what came after its position. What they bring goes through a bounded queue: a terminal that is
slow is not read ahead for, and is told how much it has missed.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from eventing.errors import EventingError
from eventing.runtime.mesh_client import MeshClient, NotRunningError

__all__ = ["Batch", "Feeds"]

WAIT_S: Final = 20.0  # of one question
PATIENCE_S: Final = 15.0  # how long a mesh that does not answer at all is waited for: its data plane may be starting again
RETRY_S: Final = 1.0
# Entries of several processes are sorted by time as far as they come within this: each answers within 0.15 s of what happens.
TOGETHER_S: Final = 0.3
_QUEUED: Final = 2  # answers of each process that wait for the terminal


@dataclass(slots=True)
class Batch:
    """What has come: entries (eventing.journal.documents.Entry) in the order of time, and what else people should know."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Told:
    reader: "_Reader"
    feed: Mapping[str, Any] | None  # None: it did not answer, or refused to
    error: EventingError | None = None


class _Reader:
    """Follows one process in a thread of its own until `stopped`."""

    def __init__(
        self, name: str, url: str, mesh: MeshClient, wanted: Mapping[str, str], told: "queue.Queue[_Told]", *, late: bool
    ) -> None:
        self.name = name
        self.url = url
        self.late = late  # it takes the place of another, of which not everything was told
        self.stopped = False
        self.lost_since: float | None = None
        self._mesh = mesh
        self._wanted = wanted
        self._told = told
        threading.Thread(target=self._run, name=f"tail-{name}", daemon=True).start()

    def _run(self) -> None:
        after = ""
        with replace(self._mesh) as mesh:  # with connections of its own
            while not self.stopped:
                try:
                    feed = mesh.tail(self.url, after, wait_s=WAIT_S if after else 0.0, **self._wanted)
                except EventingError as error:
                    self._tell(_Told(self, None, error))
                    time.sleep(RETRY_S)
                else:
                    after = feed["next"]
                    self._tell(_Told(self, feed))

    def _tell(self, told: _Told) -> None:
        """Wait until the terminal has room for it, or is gone."""
        while not self.stopped:
            with suppress(queue.Full):
                self._told.put(told, timeout=RETRY_S)
                return


class Feeds:
    """Iterate over it for ever. `find` looks for the mesh: at first, and when a process of it does not answer any more.

    Raises NotRunningError where no process answers at first, or none does for 15 s later; EventingError where the question is
    refused."""

    def __init__(self, find: Callable[[], MeshClient], wanted: Mapping[str, str]) -> None:
        self._find = find
        self._wanted = wanted
        self._readers: dict[tuple[str, str], _Reader] = {}
        self._told: queue.Queue[_Told] = queue.Queue()
        self._began = False
        self._found = False

    def __iter__(self) -> Iterator[Batch]:
        self._follow(self._find())
        while True:
            batch = Batch()
            self._take(self._told.get(), batch)
            if len(self._readers) > 1:
                end = time.monotonic() + TOGETHER_S
                while (left := end - time.monotonic()) > 0:
                    try:
                        self._take(self._told.get(timeout=left), batch)
                    except queue.Empty:
                        break
                batch.entries.sort(key=lambda entry: (entry["time"], entry["kind"] != "accepted"))
            if batch.entries or batch.notes:
                yield batch

    def close(self) -> None:
        """Ask nothing any more: each thread ends after the answer that it waits for."""
        for reader in self._readers.values():
            reader.stopped = True

    def _follow(self, mesh: MeshClient) -> None:
        """Read from these processes, and from no others."""
        planes = set(mesh.endpoints.admin_urls.items())
        for key in self._readers.keys() - planes:
            self._readers.pop(key).stopped = True
        if not self._readers:
            self._told = queue.Queue(_QUEUED * len(planes))
        for name, url in sorted(planes - self._readers.keys()):
            self._readers[name, url] = _Reader(name, url, mesh, self._wanted, self._told, late=self._found)
        self._found = True

    def _take(self, told: _Told, batch: Batch) -> None:
        reader = told.reader
        if reader.stopped:
            return
        if told.feed is None:
            assert told.error is not None
            self._lost(reader, told.error, batch)
            return
        who = "the data plane" if len(self._readers) == 1 else f"the data-plane process {reader.name}"
        if told.feed["restarted"] or reader.late:
            batch.notes.append(f"{who} was started again; what happened meanwhile is not told")
        if told.feed["missed"]:
            batch.notes.append(f"{told.feed['missed']} records were missed: the mesh was faster than this terminal")
        reader.late, reader.lost_since = False, None
        self._began = True
        batch.entries += told.feed["entries"]

    def _lost(self, reader: _Reader, error: EventingError, batch: Batch) -> None:
        """It does not answer; the others go on."""
        if not isinstance(error, NotRunningError):
            raise error
        now = time.monotonic()
        if reader.lost_since is None:
            reader.lost_since = now
            if len(self._readers) > 1:
                told = f"1 of {len(self._readers)} data-plane processes does not answer; waiting for it: {reader.name}"
                batch.notes.append(told)
            elif self._began:
                batch.notes.append("the mesh does not answer; waiting for it")
        since = [each.lost_since for each in self._readers.values()]
        lost = [moment for moment in since if moment is not None]
        if len(lost) == len(since) and (not self._began or now - max(lost) > PATIENCE_S):
            raise error
        try:
            self._follow(self._find())  # it may be back on other ports, or with another number of processes
        except NotRunningError:
            return
