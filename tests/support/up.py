"""The real `eventing up` as a process, a subscriber for it, and its other verbs."""

import http.client
import json
import os
import queue
import signal
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import yaml

from tests.support.waiting import DEADLINE_S, eventually

__all__ = ["Received", "Subscriber", "Up"]

COMMAND = Path(sys.executable).with_name("eventing")
Received = tuple[dict[str, str], bytes]
_START_S = 60.0  # three processes that import everything, beside brokers that start too


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("EVENTING_")}


class Up:
    """One `eventing up`, its output in files. Use as a context manager: whatever is left of it is killed."""

    def __init__(self, data_dir: Path, *arguments: str, stdin: str = "") -> None:
        self.data_dir = data_dir
        self._log = data_dir.with_name(f"{data_dir.name}.log")
        self._said = data_dir.with_name(f"{data_dir.name}.out")
        ports = [f"--{name}-port=0" for name in ("api", "ingress", "metrics")]
        with self._log.open("ab") as log, self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [COMMAND, "up", f"--data-dir={data_dir}", *ports, *arguments],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=log,
                env=environment(),
            )
        assert self.process.stdin is not None
        self.process.stdin.write(stdin.encode())
        self.process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def said(self) -> str:
        """Its standard output."""
        return self._said.read_text()

    @property
    def log(self) -> str:
        """Its standard error; that of earlier starts on the same directory comes first."""
        return self._log.read_text()

    @property
    def endpoints(self) -> dict[str, Any]:
        """What is in endpoints.json; {} where it is not there."""
        try:
            found: dict[str, Any] = json.loads((self.data_dir / "endpoints.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def ready(self) -> "Up":
        eventually(lambda: self.endpoints or self.process.poll() is not None, "ready", _START_S)
        assert self.process.poll() is None, self.log
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def children(self) -> dict[str, int]:
        """Pid by role class; with --workers, of the last data plane."""
        return dict(self.roles())

    def pids(self, role: str) -> list[int]:
        """Of all that play it."""
        return sorted(pid for name, pid in self.roles() if name == role)

    def roles(self) -> list[tuple[str, int]]:
        """Role class and pid of each child."""
        listing = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], check=True, capture_output=True, text=True).stdout
        found: list[tuple[str, int]] = []
        for line in listing.splitlines():
            pid, parent, arguments = line.split(maxsplit=2)
            if int(parent) == self.process.pid and "eventing.runtime.child" in arguments:
                found.append((arguments.partition("eventing.runtime.child ")[2].split()[0].rpartition(":")[2], int(pid)))
        return found

    def run(self, *arguments: str, code: int = 0) -> str:
        """Another verb on the same data directory; its output."""
        done = subprocess.run(
            [COMMAND, *arguments, f"--data-dir={self.data_dir}"],
            env={**environment(), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def post(self, path: str, headers: dict[str, str], body: bytes) -> http.client.HTTPResponse:
        """As curl does it; the answer, read."""
        parts = urlsplit(self.endpoints["ingress"])
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=DEADLINE_S)
        if parts.scheme == "https":
            trust = ssl.create_default_context(cafile=str(self.data_dir / "pki" / "ingress-ca.crt"))
            connection = http.client.HTTPSConnection(str(parts.hostname), parts.port, timeout=DEADLINE_S, context=trust)
        try:
            connection.request("POST", path, body=body, headers=headers)
            response = connection.getresponse()
            response.read()
            return response
        finally:
            connection.close()

    def send_until_due(self, **attributes: str) -> str:
        """Send events until one is accepted that is due to a subscription; its id."""
        numbers = iter(range(1, 1000))

        def sent() -> str:
            identity = f"probe-{next(numbers)}"
            event = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "ce-id": identity, **attributes}
            try:
                if self.post("/default/orders", event, b"{}").status != 202:
                    return ""
            except OSError:
                return ""
            (match,) = json.loads(self.run("trace", identity, "-o", "json"))["matches"]
            return identity if match["deliveries"] else ""

        return eventually(sent, "an event that is due to a subscription")

    def api(self, path: str, method: str = "GET", body: object = None, content_type: str = "application/json") -> Any:
        """One request to the Kubernetes API with what is in the kubeconfig."""
        kubeconfig = yaml.safe_load((self.data_dir / "kubeconfig").read_text())
        request = Request(
            kubeconfig["clusters"][0]["cluster"]["server"] + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"Bearer {kubeconfig['users'][0]['user']['token']}", "Content-Type": content_type},
        )
        trust = ssl.create_default_context(cafile=str(self.data_dir / "pki" / "ca.crt"))
        with urlopen(request, context=trust, timeout=DEADLINE_S) as response:
            return json.load(response)


class Subscriber:
    """An HTTP endpoint in threads of the test's own process, so that it owes nothing to the mesh."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.received: queue.Queue[Received] = queue.Queue()
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.put(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the class
                """Say nothing."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def get(self, identity: str, deadline_s: float = DEADLINE_S) -> Received:
        """The event of this id; others that come before it are let go."""
        while True:
            headers, body = self.received.get(timeout=deadline_s)
            if headers["ce-id"] == identity:
                return headers, body
