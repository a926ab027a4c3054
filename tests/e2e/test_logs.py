"""`eventing up --log-format json`: every line of every process is JSON, and those about lost events can be traced."""

import json
import signal
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.manifests import CHANNEL, subscription
from tests.support.up import Up
from tests.support.waiting import eventually


def lines(mesh: Up) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in mesh.log.splitlines()]
    for line in found:
        assert {"time", "level", "process", "message"} <= line.keys(), line
        assert line["level"] in {"debug", "info", "warning", "error", "critical"}
    return found


def say_nonsense(mesh: Up) -> None:
    """To the API server, which has the library that serves it complain."""
    api = urlsplit(mesh.endpoints["api"])
    trust = ssl.create_default_context(cafile=str(mesh.data_dir / "pki" / "ca.crt"))
    plain = socket.create_connection(("127.0.0.1", api.port or 0))
    with trust.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
        secure.sendall(b"this is not HTTP\r\n\r\n")
        secure.recv(1000)


def test_every_line_is_json(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/?key=hunter2"
    final = f"{subscription(nobody)}  delivery: {{retry: 0}}\n"
    with Up(tmp_path / "data", "--log-format=json", "-f-", stdin=f"{CHANNEL}---\n{final}") as mesh:
        mesh.ready()
        event = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "ce-id": "lost", "content-type": "text/plain"}

        def dropped() -> dict[str, Any] | None:
            mesh.post("/default/orders", event, b"planted payload")
            return next((line for line in lines(mesh) if line["message"] == "event dropped"), None)

        line = eventually(dropped, "the line of the lost event")
        assert line is not None
        assert (line["process"], line["level"]) == ("dataplane", "warning")
        assert (line["subscription"], line["reason"]) == ("default/printer", "NoDeadLetterSink")
        (match,) = json.loads(mesh.run("trace", line["receipt"], "-o", "json"))["matches"]
        assert match["id"] == "lost"
        assert "ConnectFailed" in line["detail"]
        say_nonsense(mesh)
        nonsense = eventually(lambda: [line for line in lines(mesh) if line.get("logger") == "uvicorn.error"], "a library's line")
        assert nonsense[0]["process"] == "control"
        mesh.process.send_signal(signal.SIGHUP)
        assert mesh.process.wait(20) == 0
        found = lines(mesh)
        assert {"supervisor", "control", "dataplane"} <= {line["process"] for line in found}
        assert "hunter2" not in mesh.log
        assert "planted payload" not in mesh.log


def test_a_start_that_fails_is_a_line_of_json_too(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with Up(tmp_path / "data", "--log-format=json", f"--ingress-port={taken.getsockname()[1]}") as mesh:
            assert mesh.process.wait(60) == 1
            (line,) = lines(mesh)
        assert (line["level"], line["process"], line["message"]) == ("error", "supervisor", "cannot start")
        assert "--ingress-port" in line["reason"]
