"""The verbs against a stand-in for the mesh: what goes over the wire, what a person reads, the exit code."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from eventing.cli.app import run
from eventing.runtime.data_directory import DataDirectory
from eventing.runtime.settings import Endpoints

MATCH = {
    "receipt": "r-1",
    "id": "1",
    "source": "/shop\x1b[2J",
    "type": "com.example.order",
    "channel": "default/orders",
    "received": "2026-01-31T12:00:00.123Z",
    "from": "127.0.0.1:4242",
    "deliveries": [
        {
            "subscription": "default/sub-a",
            "uid": "u",
            "subscriber": "http://localhost:9000/",
            "state": "delivered",
            "reason": "",
            "attempts": [
                {
                    "number": 1,
                    "started": "2026-01-31T12:00:00.125Z",
                    "duration_ms": 1.25,
                    "status": 503,
                    "error": "",
                    "decision": "503 → retry 1 of 5 in 0.5 s: server error",
                },
                {
                    "number": 2,
                    "started": "2026-01-31T12:00:00.625Z",
                    "duration_ms": 0.5,
                    "status": 200,
                    "error": "",
                    "decision": "delivered: 200",
                },
            ],
        },
        {
            "subscription": "default/sub-b",
            "uid": "v",
            "subscriber": "http://localhost:9001/",
            "state": "pending",
            "reason": "",
            "attempts": [],
        },
    ],
}
REFUSED = {
    "received": "2026-01-31T12:00:00.000Z",
    "channel": "default/orders",
    "from": "127.0.0.1:1",
    "id": "",
    "status": 400,
    "reason": "source: required attribute is missing",
}


class StandIn:
    """One server for both ports; answers what a test puts into it and keeps what it got."""

    def __init__(self, data_dir: Path) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer: tuple[int, dict[str, str], bytes] = (202, {"Eventing-Receipt": "r-1"}, b"")
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                stand_in.requests.append((self.command, self.path, headers, body))
                status, lines, content = stand_in.answer
                self.send_response(status)
                for name, value in {**lines, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = _answer  # noqa: N815 - the names that http.server looks for

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the class
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        url = f"http://127.0.0.1:{self.server.server_port}"
        directory = DataDirectory(data_dir)
        directory.write_endpoints(Endpoints(url, url, url))
        directory.write(directory.tokens, json.dumps({"admin": "t0ken"}))


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVENTING_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TZ", "UTC")
    return tmp_path


@pytest.fixture
def mesh(data_dir: Path) -> Iterator[StandIn]:
    stand_in = StandIn(data_dir)
    thread = threading.Thread(target=stand_in.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield stand_in
    stand_in.server.shutdown()
    stand_in.server.server_close()
    thread.join()


def test_send_makes_an_event_in_binary_mode(mesh: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["send", "--channel", "orders", "-n", "shop", "--type", "com.example.order", "--id", "1", "--data", '{"n": 1}']
    assert run([*arguments, "--source", "/café", "--attribute", "subject=a b", "--attribute", "PartitionKey=7"]) == 0
    ((method, path, headers, body),) = mesh.requests
    assert (method, path, body) == ("POST", "/shop/orders", b'{"n": 1}')
    assert headers.pop("ce-time").endswith("Z")
    assert {name: value for name, value in headers.items() if name.startswith(("ce-", "content-"))} == {
        "ce-specversion": "1.0",
        "ce-type": "com.example.order",
        "ce-source": "/caf%C3%A9",
        "ce-id": "1",
        "ce-subject": "a%20b",
        "ce-partitionkey": "7",
        "content-type": "application/json",
        "content-length": "8",
    }
    assert capsys.readouterr().out == "accepted by shop/orders: id 1, receipt r-1\n"


@pytest.mark.parametrize(
    ("content", "content_type"),
    [(b'{"n": 1}', "application/json"), (b"hello", "text/plain; charset=utf-8"), (b"\xff\x00", "application/octet-stream")],
)
def test_send_takes_a_file_as_it_is(mesh: StandIn, data_dir: Path, content: bytes, content_type: str) -> None:
    file = data_dir / "order.json"
    file.write_bytes(content)
    assert run(["send", "-c", "orders", "-d", f"@{file}"]) == 0
    _, _, headers, body = mesh.requests[0]
    assert (body, headers["content-type"]) == (content, content_type)


def test_send_without_data_has_no_content_type(mesh: StandIn) -> None:
    assert run(["send", "-c", "orders"]) == 0
    assert "content-type" not in mesh.requests[0][2]


def test_send_counts(mesh: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["send", "-c", "orders", "--id", "x", "--count", "3"]) == 0
    assert [headers["ce-id"] for _, _, headers, _ in mesh.requests] == ["x-1", "x-2", "x-3"]
    assert capsys.readouterr().out.startswith("3 events accepted by default/orders in ")


def test_a_refusal_is_printed_and_fails(mesh: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    mesh.answer = (503, {"Retry-After": "1"}, b'{"detail": "no room\\u001b[2J left", "status": 503}')
    assert run(["send", "-c", "orders"]) == 1
    error = capsys.readouterr().err
    assert error == "eventing: default/orders refused the event: 503 no room\\x1b[2J left; try again in 1 s\n"


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--type", ""], 1, "type: must not be empty"),
        (["--source", "no uri"], 1, "'no uri' is not a URI reference"),
        (["--attribute", "Sub-ject=1"], 1, "lower-case letters and digits"),
        (["--attribute", "subject"], 2, "is not NAME=VALUE"),
        (["--data", "@/nowhere"], 1, "cannot be read from /nowhere: No such file"),
        (["--count", "0"], 2, "--count"),
    ],
)
def test_what_is_wrong_with_the_event_is_said_before_it_is_sent(
    mesh: StandIn, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, expected: str
) -> None:
    assert run(["send", "-c", "orders", *arguments]) == code
    assert expected in capsys.readouterr().err
    assert mesh.requests == []


def test_trace_shows_each_attempt_and_decision(mesh: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    mesh.answer = (200, {}, json.dumps({"matches": [MATCH, MATCH], "refused": []}).encode())
    assert run(["trace", "a/1"]) == 0
    ((method, path, headers, _),) = mesh.requests
    assert (method, path, headers["authorization"]) == ("GET", "/api/v1/trace/a%2F1", "Bearer t0ken")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    block, _ = out.split("\n\n")
    lines = [line.split() for line in block.splitlines()]
    assert lines[0] == ["event", "1", "type", "com.example.order", "source", "/shop\\x1b[2J"]
    assert lines[1][-2:] == ["receipt", "r-1"]
    assert lines[2] == ["default/sub-a", "delivered", "http://localhost:9000/"]
    assert lines[3][:2] == ["attempt", "1"]
    assert " ".join(lines[3]).endswith("1.2 ms 503 → retry 1 of 5 in 0.5 s: server error")
    assert " ".join(lines[4]).endswith("0.5 ms delivered: 200")
    assert lines[5] == ["default/sub-b", "pending", "http://localhost:9001/"]
    assert lines[6] == ["no", "attempt", "yet"]


@pytest.mark.parametrize(
    ("acceptance", "told"),
    [
        ("here", "accepted 2026-01-31 12:00:00.123 by default/orders, from 127.0.0.1:4242, receipt r-1\n"),
        (
            "elsewhere",
            "accepted by another process or an earlier one, receipt r-1; came out of default/orders 2026-01-31 12:00:00.123",
        ),
        ("outside", "put into default/orders by somebody else, not through the mesh; came out of it 2026-01-31 12:00:00.123"),
        ("unconfirmed", "the channel did not confirm that it is stored, so the producer was answered 503"),
    ],
)
def test_trace_says_who_accepted_the_event(mesh: StandIn, capsys: pytest.CaptureFixture[str], acceptance: str, told: str) -> None:
    document = {"query": "1", "matches": [MATCH | {"acceptance": acceptance}], "refused": []}
    mesh.answer = (200, {}, json.dumps(document).encode())
    assert run(["trace", "1"]) == 0
    assert told in capsys.readouterr().out


def test_trace_for_programs_is_the_document(mesh: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    document = {"matches": [MATCH], "refused": []}
    mesh.answer = (200, {}, json.dumps(document).encode())
    assert run(["trace", "1", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == document | {"unanswered": []}


@pytest.mark.parametrize("output", ["text", "json"])
def test_trace_of_the_unknown_says_what_was_refused(mesh: StandIn, capsys: pytest.CaptureFixture[str], output: str) -> None:
    group = {
        "channel": "default/orders",
        "status": 400,
        "reason": "source: required attribute is missing",
        "count": 2,
        "last": "x",
    }
    document = {"matches": [], "refused": [REFUSED], "refused_groups": [group], "refused_window_s": 60.0}
    mesh.answer = (200, {}, json.dumps(document).encode())
    assert run(["trace", "1", "-o", output]) == 3
    out = capsys.readouterr().out
    assert "source: required attribute is missing" in out
    if output == "text":
        assert "2 requests to default/orders were refused in the last minute: 2 \u00d7 400 source: required" in out


@pytest.mark.parametrize("arguments", [["trace", "1"], ["send", "-c", "orders"]])
def test_without_a_mesh_it_says_what_to_do(data_dir: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run(arguments) == 1
    error = capsys.readouterr().err
    assert f"no mesh is ready on {data_dir}" in error
    assert "eventing up" in error


def test_a_mesh_that_is_gone_is_named(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in = StandIn(data_dir)
    stand_in.server.server_close()
    assert run(["trace", "1"]) == 1
    assert "does not answer on 127.0.0.1:" in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == 0
    assert capsys.readouterr().out.startswith("eventing-mesh 0.")
    assert run(["--help"]) == 0
    assert run(["nonsense"]) == 2


@pytest.mark.parametrize("option", ["--allow-range", "--deny-range"])
@pytest.mark.parametrize("value", ["10.0.0.1/8", "example.com", ""])
def test_a_range_that_is_none_is_named_before_anything_starts(
    option: str, value: str, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["up", option, value]) == 2
    assert option in capsys.readouterr().err
    assert not (data_dir / "lock").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--quickstart", "--workers", "2"], "in-memory channel"),
        (["--metrics-port", "65534", "--workers", "3"], "3 data-plane processes need as many ports"),
        (["--workers", "0"], "than or equal to 1"),
    ],
)
def test_what_several_data_plane_processes_cannot_do_is_said_before_anything_starts(
    options: list[str], told: str, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["up", *options]) == 2
    assert told in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (data_dir / "lock").exists()


def test_a_bad_manifest_is_named_before_anything_starts(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = data_dir / "bad.yaml"
    file.write_text("apiVersion: v1\nmetadata: {name: x}\n")
    assert run(["up", "-f", str(file)]) == 1
    assert capsys.readouterr().err == f"eventing: {file}: kind: required field is missing, or is no string\n"
    assert not (data_dir / "lock").exists()
