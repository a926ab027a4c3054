"""Questions to a mesh of several data-plane processes: all are asked, one that does not answer is said."""

import contextlib
import json
import queue
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import pytest

from eventing.errors import EventingError
from eventing.journal.documents import as_dict
from eventing.runtime.feeds import Feeds
from eventing.runtime.mesh_client import MeshClient, NotRunningError
from eventing.runtime.settings import Endpoints
from tests.support.waiting import DEADLINE_S, eventually
from tests.unit.journal.test_joined import counts, match, standing, trace


class Process:
    """The local API of one data-plane process: answers what a test gives it, `tail` from a queue, each once."""

    def __init__(self, answer: Any = None, status: int = 200) -> None:
        self.answer = answer
        self.status = status
        self.feeds: queue.Queue[dict[str, Any]] = queue.Queue()
        self.asked_after: list[str] = []
        process = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                body = process.answer
                if parts.path.endswith("/tail"):
                    process.asked_after.append(parse_qs(parts.query).get("after", [""])[0])
                    body = process.feeds.get(timeout=DEADLINE_S)
                content = json.dumps(body).encode()
                with contextlib.suppress(ConnectionError):
                    self.send_response(process.status)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the class
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for _number in range(3):  # whoever waits for something to happen
            self.happens()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def happens(self, *entries: dict[str, Any], **members: Any) -> None:
        self.feeds.put({"next": "p.1.1.1", "entries": list(entries), "missed": 0, "restarted": False} | members)


GONE = "http://127.0.0.1:1"  # nobody listens there


def client(*urls: str) -> MeshClient:
    planes = {f"embedded-{number}": url for number, url in enumerate(urls)}
    return MeshClient(Endpoints("https://x", "http://x", urls[0], planes), "t0ken")


def test_trace_asks_all_and_puts_the_answers_together() -> None:
    with Process(as_dict(trace("a", match("a-1")))) as one, Process(as_dict(trace("b", match("b-1")))) as two:
        with client(one.url, two.url) as mesh:
            told = mesh.trace("1")
        assert [each["receipt"] for each in told["matches"]] == ["a-1", "b-1"]
        assert told["unanswered"] == []


def test_a_process_that_does_not_answer_is_named_and_the_others_are_heard() -> None:
    busy = Process({"detail": "16 readers are here already"}, status=429)
    with Process(as_dict(trace("a", match("a-1")))) as one, busy, client(one.url, GONE, busy.url) as mesh:
        told = mesh.trace("1")
        assert [each["receipt"] for each in told["matches"]] == ["a-1"]
        gone, refusing = told["unanswered"]
        assert gone.startswith("embedded-1: the mesh does not answer on 127.0.0.1:1")
        assert refusing.startswith("embedded-2: ")
        assert "16 readers are here already" in refusing


def test_where_none_answers_that_is_an_error() -> None:
    with client(GONE, GONE) as mesh, pytest.raises(NotRunningError):
        mesh.trace("1")


def test_a_subscription_stands_as_it_does_in_all_of_them() -> None:
    absent = Process({"detail": "not in force"}, status=404)
    there = as_dict(standing(counts(accepted=1), pending=3))
    with Process(there) as one, Process(there) as two, absent, client(one.url, two.url, absent.url, GONE) as mesh:
        told, unanswered = mesh.standing("default", "printer")
        assert told is not None
        assert (told["pending"], told["counts"]["accepted"]) == (6, 2)
        assert "not in embedded-2" in told["findings"][0]["finding"]
        assert [each.partition(":")[0] for each in unanswered] == ["embedded-3"]


def test_a_subscription_that_is_in_force_nowhere() -> None:
    with Process({}, status=404) as one, Process({}, status=404) as two, client(one.url, two.url) as mesh:
        assert mesh.standing("default", "printer") == (None, [])


# The feed.


def entry(time: str, kind: str = "attempt") -> dict[str, Any]:
    return {"time": f"2026-01-01T00:00:{time}Z", "kind": kind}


class Following:
    """The batches of `Feeds`, as they come, from a thread."""

    def __init__(self, find: Callable[[], MeshClient]) -> None:
        self._batches: queue.Queue[Any] = queue.Queue()
        self._feeds = Feeds(find, {"failed": "true"})
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            for batch in self._feeds:
                self._batches.put(batch)
        except EventingError as error:
            self._batches.put(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._feeds.close()

    def next(self) -> Any:
        return self._batches.get(timeout=DEADLINE_S)


@pytest.fixture(autouse=True)
def _no_reader_is_left() -> Iterator[None]:
    yield
    eventually(lambda: not any(thread.name.startswith("tail-") for thread in threading.enumerate()), "readers have ended")


@pytest.fixture
def two(_no_reader_is_left: None) -> Iterator[tuple[Process, Process]]:
    with Process() as one, Process() as other:
        yield one, other


def test_what_happens_in_several_processes_is_told_in_the_order_of_time(two: tuple[Process, Process]) -> None:
    with Following(lambda: client(two[0].url, two[1].url)) as following:
        for process in two:
            process.happens()
        two[0].happens(entry("01"), entry("04"))
        two[1].happens(entry("02"), entry("04", "accepted"), missed=7)
        entries: list[dict[str, Any]] = []
        notes: list[str] = []
        while len(entries) < 4:  # they come together unless the machine is very busy
            batch = following.next()
            entries += batch.entries
            notes += batch.notes
        assert batch.entries == sorted(batch.entries, key=lambda each: (each["time"], each["kind"]))
        assert [(each["time"][17:19], each["kind"]) for each in sorted(entries, key=lambda each: (each["time"], each["kind"]))] == [
            ("01", "attempt"), ("02", "attempt"), ("04", "accepted"), ("04", "attempt"),
        ]  # fmt: skip
        assert notes == ["7 records were missed: the mesh was faster than this terminal"]
        assert two[0].asked_after[:2] == ["", "p.1.1.1"]


def test_a_process_that_does_not_answer_is_said_once_and_the_others_go_on(two: tuple[Process, Process]) -> None:
    with Following(lambda: client(two[0].url, GONE)) as following:
        two[0].happens()
        assert following.next().notes == ["1 of 2 data-plane processes does not answer; waiting for it: embedded-1"]
        for second in ("01", "02"):
            two[0].happens(entry(second))
            batch = following.next()
            assert [each["time"][17:19] for each in batch.entries] == [second]
            assert batch.notes == []


def test_a_mesh_that_is_back_with_other_processes_is_followed(two: tuple[Process, Process]) -> None:
    meshes = [client(two[0].url, GONE), client(two[1].url)]
    with Following(lambda: meshes.pop(0) if len(meshes) > 1 else meshes[0]) as following:
        two[1].happens()
        notes: list[str] = []
        while len(notes) < 2:
            notes += following.next().notes
        assert "embedded-1" in notes[0]
        assert notes[1] == "the data plane was started again; what happened meanwhile is not told"
        two[1].happens(entry("03"))
        assert [each["time"][17:19] for each in following.next().entries] == ["03"]


def test_where_no_process_answers_it_ends() -> None:
    with Following(lambda: client(GONE, GONE)) as following:
        told = following.next()
        assert isinstance(told if isinstance(told, EventingError) else following.next(), NotRunningError)


def test_a_process_that_is_stopping_is_waited_for(two: tuple[Process, Process]) -> None:
    with Following(lambda: client(two[0].url, two[1].url)) as following:
        two[1].status = 503
        two[0].happens()
        two[1].happens()
        assert following.next().notes == ["1 of 2 data-plane processes does not answer; waiting for it: embedded-1"]
        two[1].status = 200
        two[1].happens(restarted=True)
        assert following.next().notes == [
            "the data-plane process embedded-1 was started again; what happened meanwhile is not told"
        ]


def test_a_question_that_is_refused_ends_it() -> None:
    with Process(status=401) as process, Following(lambda: client(process.url)) as following:
        process.happens()
        error = following.next()
        assert isinstance(error, EventingError)
        assert not isinstance(error, NotRunningError)
