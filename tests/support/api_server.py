"""The embedded API server by itself, in a thread of its own, and the real kubectl against it."""

import asyncio
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from eventing.apiserver import ApiServer, ensure_certificates, write_kubeconfig
from eventing.resources.catalogue import installed_kinds
from eventing.resources.core import CORE_KINDS
from tests.support.waiting import DEADLINE_S

__all__ = ["Kubectl", "serving"]


@contextmanager
def serving(directory: Path, port: int = 0) -> Iterator[Path]:
    """Serve all kinds of the mesh over `directory`, again if it was served before; gives the kubeconfig."""
    paths = ensure_certificates(directory / "pki", ["localhost", "127.0.0.1"])
    listener = socket.create_server(("127.0.0.1", port))
    kubeconfig = directory / "kubeconfig"
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    write_kubeconfig(kubeconfig, server=url, ca=paths.ca_cert, token="admin")
    loop = uvloop.new_event_loop()
    started = threading.Event()
    servers: list[ApiServer] = []

    async def serve() -> None:
        kinds = (*CORE_KINDS, *installed_kinds())
        server = ApiServer(database=directory / "api.sqlite3", kinds=kinds, users={"admin": "kubernetes-admin"})
        servers.append(server)
        await server.serve(listener, certfile=paths.server_cert, keyfile=paths.server_key, started=started.set)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(DEADLINE_S)
        yield kubeconfig
    finally:
        asyncio.run_coroutine_threadsafe(servers[0].aclose(), loop).result(DEADLINE_S)
        thread.join(DEADLINE_S)
        loop.close()


class Kubectl:
    """kubectl with a home, and so a discovery cache, of its own. `close` ends what it started."""

    def __init__(self, program: Path, kubeconfig: Path, home: Path, *, namespace: str = "default", **environment: str) -> None:
        self.namespace = namespace
        self.home = home
        self._started: list[subprocess.Popen[str]] = []
        self._program = program
        self._kubeconfig = kubeconfig
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "HOME": str(home), **environment}

    def with_environment(self, **environment: str) -> "Kubectl":
        """The same, in another environment."""
        other = Kubectl(self._program, self._kubeconfig, self.home, namespace=self.namespace, **environment)
        other._started = self._started
        return other

    def minor(self) -> int:
        """35 of v1.35.2: which of its commands it has."""
        told = json.loads(self("version", "--client", "--output=json"))["clientVersion"]
        return int(told["gitVersion"].split(".")[1])

    def __call__(self, *arguments: str, given: object = "", code: int = 0) -> str:
        """What it says on both outputs; `given` is its input (objects as JSON). Fails where it ends with another code."""
        text = given if isinstance(given, str) else json.dumps(given)
        done = subprocess.run(
            [self._program, *arguments],
            input=text,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == code, f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-o", "json"))

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """A kubectl that goes on until it is stopped."""
        process = subprocess.Popen(
            [self._program, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate(timeout=DEADLINE_S)

    def make_ready(self, channel: str = "orders") -> None:
        """As the mesh's reconciler would, which does not run here."""
        status = {"conditions": [{"type": "Ready", "status": "True"}], "address": {"url": "http://x"}}
        patch = json.dumps({"status": status})
        self("patch", f"channels/{channel}", "--subresource=status", "--type=merge", "-p", patch)
