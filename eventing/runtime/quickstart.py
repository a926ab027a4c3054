"""The role `quickstart`: the built-in example, played. Applies it, sends one event, shows its way, prints what arrives."""

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

from rich.console import Console

from eventing.bindings.http import decode
from eventing.errors import ApiError, ApiUnavailableError, EventingError, InvalidEventError, ObjectNotFoundError
from eventing.event import Event
from eventing.kube import Cluster, KubeClient
from eventing.observe.lines import emit, printable
from eventing.resources.messaging import SUBSCRIPTION
from eventing.runtime.apply import apply
from eventing.runtime.data_directory import DataDirectory
from eventing.runtime.manifests import parse
from eventing.runtime.mesh_client import MeshClient
from eventing.runtime.settings import ChildSettings
from eventing.runtime.tokens import Tokens
from eventing.runtime.way import show
from eventing.wire.server import HttpServer, Request

__all__ = ["Quickstart"]

_CHANNEL: Final = "orders"
_SUBSCRIPTION: Final = "quickstart-printer"
_PATIENCE_S: Final = 30.0
_POLL_S: Final = 0.05
_FAREWELL_S: Final = 2.0
_DATA_SHOWN: Final = 2000  # characters


class Quickstart:
    """The example and its subscriber, which is its own and prints what it gets."""

    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings
        directory = DataDirectory(Path(settings.data_dir))
        tokens = Tokens.of(directory)
        cluster = Cluster(settings.endpoints.api, token=tokens.admin, ca_data=(directory.pki / "ca.crt").read_text())
        self._client = KubeClient(cluster, user_agent="eventing-quickstart")
        self._mesh = MeshClient(settings.endpoints, tokens.admin, directory.ingress_ca)
        self._arrived = asyncio.Event()

    async def run(self, *, started: Callable[[], None], stop: asyncio.Event) -> None:
        listener = socket.socket(fileno=self._settings.sockets["subscriber"])
        subscriber = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server = HttpServer(self._receive)
        try:
            await server.start(listener)
            started()
            async with asyncio.TaskGroup() as tasks:
                playing = tasks.create_task(self._play(subscriber))
                await stop.wait()
                playing.cancel()
            await self._take_away(subscriber)
        finally:
            await server.aclose(1.0)
            await self._client.aclose()
            self._mesh.close()

    async def _play(self, subscriber: str) -> None:
        example = Template(files("eventing.runtime").joinpath("quickstart.yaml").read_text(encoding="utf-8"))
        await apply(self._client, parse(example.substitute(SUBSCRIBER=subscriber), "quickstart.yaml"))
        if why := await self._not_ready():
            emit(f"The example is applied, but its Subscription {_SUBSCRIPTION} is not ready: {printable(why)}\n")
            return
        emit(f"Quickstart: Channel {_CHANNEL} and Subscription {_SUBSCRIPTION} are ready. An event is sent:\n\n")
        attributes = {
            "specversion": "1.0",
            "type": "com.example.order",
            "source": "/quickstart",
            "id": "hello-1",
            "datacontenttype": "application/json",
        }
        answer = await asyncio.to_thread(self._mesh.send, "default", _CHANNEL, Event(attributes, b'{"item": "coffee", "n": 1}'))
        if not answer.accepted:
            emit(f"The ingress refused it: {printable(answer.problem)}\n")
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await self._arrived.wait()
        await self._show_way(answer.receipt)
        emit("\nThe mesh stays up; what else arrives at this subscriber is printed here. Ctrl-C stops it.\n\n")

    async def _take_away(self, subscriber: str) -> None:
        """Delete the Subscription, unless it points elsewhere by now: at the next start nobody would answer at its address."""
        try:
            async with asyncio.timeout(_FAREWELL_S):
                subscription = await self._client.get(SUBSCRIPTION, "default", _SUBSCRIPTION)
                if subscription["spec"]["subscriber"].get("uri") == subscriber:
                    await self._client.delete(SUBSCRIPTION, "default", _SUBSCRIPTION, uid=subscription["metadata"]["uid"])
        except ObjectNotFoundError:
            return  # the user was first
        except (TimeoutError, ApiError) as error:
            why = printable(str(error)) or "the API server did not answer in time"
            emit(f"The Subscription {_SUBSCRIPTION} stays, and points at nobody: {why}\n")

    async def _not_ready(self) -> str:
        """Wait until the Subscription is ready; "" then, else why it is not."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                subscription = await self._client.get(SUBSCRIPTION, "default", _SUBSCRIPTION)
            except ApiUnavailableError as error:  # the control process is being restarted
                why = str(error)
            else:
                conditions = subscription.get("status", {}).get("conditions", [])
                ready = next((each for each in conditions if each["type"] == "Ready"), {"status": "Unknown"})
                current = subscription.get("status", {}).get("observedGeneration") == subscription["metadata"]["generation"]
                if ready["status"] == "True" and current:
                    return ""
                why = f"{ready.get('reason', 'no controller has seen it')} {ready.get('message', '')}".strip()
            if time.monotonic() >= deadline:
                return why
            await asyncio.sleep(_POLL_S)

    async def _show_way(self, receipt: str) -> None:
        deadline = time.monotonic() + 5.0
        while True:
            try:
                document = await asyncio.to_thread(self._mesh.trace, receipt)
            except EventingError as error:
                emit(f"Its way cannot be shown: {printable(str(error))}\n")
                return
            states = [delivery["state"] for match in document["matches"] for delivery in match["deliveries"]]
            if (states and "pending" not in states) or time.monotonic() >= deadline:
                break
            await asyncio.sleep(_POLL_S)
        console = Console(highlight=False)
        with console.capture() as capture:
            show(document, receipt, console)
        emit("Its way, as `eventing trace hello-1` shows it:\n\n" + capture.get())

    def _receive(self, request: Request) -> None:
        try:
            events = decode(request.headers, request.body)
        except InvalidEventError as error:
            emit(f"  refused what came from {request.peer}, which is no event: {printable(str(error))}\n")
            request.respond(400, b"content-type: text/plain; charset=utf-8\r\n", f"{error}\n".encode())
            return
        for event in events:
            emit(_printed(event))
        request.respond(204)
        self._arrived.set()


def _printed(event: Event) -> str:
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    head = f"{time.strftime('%H:%M:%S')}  {bold}received {printable(event.type)}{plain}"
    head += f"  id {printable(event.id)}  source {printable(event.source)}"
    text = event.data[: _DATA_SHOWN * 4].decode("utf-8", "replace")
    body = printable(text[:_DATA_SHOWN], keep="\n\t")
    cut = f"\n… {len(event.data)} bytes in all" if len(text) > _DATA_SHOWN else ""
    return head + "\n" + "".join(f"          {line}\n" for line in (body + cut).splitlines()) + "\n"
