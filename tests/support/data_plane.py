"""A data plane without its control plane: ingress, channels, delivery and journal in the loop of a test."""

import asyncio
import random
import socket
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from eventing.bindings.http import event_head, payload
from eventing.channels import Budget, ChannelFactory, channel_factories
from eventing.dataplane.table import ChannelTable
from eventing.delivery.addresses import AddressGuard
from eventing.delivery.connections import Connections
from eventing.delivery.resolver import Resolver
from eventing.delivery.spans import AttemptSpans
from eventing.delivery.worker import Engine, SubscriptionWorker
from eventing.event import Event
from eventing.ingress.receiver import Receiver
from eventing.ingress.routes import Routes
from eventing.ingress.traced import TracedReceiver
from eventing.journal import Journal
from eventing.journal.story import story
from eventing.observe.traces import Tracing
from eventing.resources.kinds import Object
from eventing.wire.client import ClientLimits
from eventing.wire.server import HttpServer, ServerLimits

__all__ = ["Client", "DataPlaneRig", "Response", "make_event", "subscriber"]


def make_event(id_: str = "1", data: bytes = b'{"n":1}', **attributes: str) -> Event:
    common = {"specversion": "1.0", "id": id_, "source": "/shop", "type": "com.example.order"}
    return Event(common | {"datacontenttype": "application/json"} | attributes, data)


def subscriber(uid: str, uri: str | None, *, reply: str | None = None, **options: Any) -> Object:
    """An entry of spec.subscribers. Options are those of `delivery` in snake case, `dead_letter` a URL, `concurrency` a number."""
    entry: Object = {"uid": uid, "name": uid, "generation": 1, "subscriberUri": uri, "replyUri": reply}
    if "concurrency" in options:
        entry["annotations"] = {"eventing-mesh.dev/concurrency": str(options.pop("concurrency"))}
    delivery: Object = {}
    if dead_letter := options.pop("dead_letter", None):
        delivery["deadLetterSink"] = {"uri": dead_letter}
    names = {"backoff_policy": "backoffPolicy", "backoff_delay": "backoffDelay", "retry_after_max": "retryAfterMax"}
    delivery |= {names.get(name, name): value for name, value in options.items()}
    return entry | ({"delivery": delivery} if delivery else {})


class Response:
    """An answer of the ingress."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"<{self.status} {dict(self.headers)} {self.body!r}>"


class Client:
    """One keep-alive connection to the ingress, on plain streams."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(
        self, method: str, target: str, head: str | bytes = b"", body: bytes = b"", host: str = "localhost"
    ) -> Response:
        """`head` are header lines, `\\n` or CRLF between them."""
        if isinstance(head, str):
            head = head.strip().encode().replace(b"\n", b"\r\n")
            head = head + b"\r\n" if head else head
        length = b"" if b"content-length" in head.lower() else b"content-length: %d\r\n" % len(body)
        start = f"{method} {target} HTTP/1.1\r\nhost: {host}\r\n".encode()
        return await self.raw(
            start + head.removesuffix(b"\r\n\r\n") + (b"\r\n" if head.endswith(b"\r\n\r\n") else b"") + length + b"\r\n" + body
        )

    async def raw(self, sent: bytes) -> Response:
        if self._streams is None or self._streams[0].at_eof():
            await self.aclose()
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(sent)
        return await read_response(reader)

    async def raw_head(self, sent: bytes) -> Response:
        """The answer to a HEAD request, which has a length and no body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(sent)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        writer.transport.abort()
        await asyncio.sleep(0)
        return Response(int(head[0].split()[1]), dict(line.split(": ", 1) for line in head[1:] if line), b"")

    async def aclose(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
            await asyncio.sleep(0)


async def read_response(reader: asyncio.StreamReader) -> Response:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Response(int(head[0].split()[1]), headers, body)


class DataPlaneRig:
    """`async with DataPlaneRig() as mesh`, then `mesh.channel("orders", subscriber(…))`. Ends as a data plane does."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rand: Callable[[], float] | None = None,
        per_origin: int = 64,
        budget: int = 64 << 20,
        client_limits: ClientLimits | None = None,
        server_limits: ServerLimits | None = None,
        guard: AddressGuard | None = None,
        resolver: Resolver | None = None,
        hops_max: int = 50,
        connector: Any = None,
        tracing: Tracing | None = None,
        workers: int = 1,
        process: str = "embedded",
        factory: ChannelFactory | None = None,
    ) -> None:
        self._process = process
        self._workers = workers
        self.clock = clock
        self.wall = wall
        self.budget = Budget(budget)
        self._options: dict[str, Any] = {
            "per_origin": per_origin,
            "limits": client_limits,
            "guard": guard,
            "resolver": resolver,
            "connector": connector,
        }
        self._server_limits = server_limits
        self._hops_max = hops_max
        self._tracing = tracing
        self._rand = rand or random.Random(1).random
        self._tasks = asyncio.TaskGroup()
        self._clients: list[Client] = []
        self._generation = 0
        self._uids: dict[str, str] = {}
        self.factory = factory or channel_factories()["memory"]

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self.journal = Journal(clock=self.clock, wall=self.wall)
        self.connections = Connections(self._tasks, clock=self.clock, **self._options)
        self.engine = Engine(
            journal=self.journal, connections=self.connections, tasks=self._tasks, rand=self._rand, clock=self.clock,
            wall=self.wall, spans=AttemptSpans(self._tracing, self.journal.receipt_text) if self._tracing else None,
        )  # fmt: skip
        self.routes = Routes()
        self.table = ChannelTable(
            engine=self.engine, routes=self.routes, budget=self.budget, clock=self.clock, workers=self._workers,
            process=self._process,
        )  # fmt: skip
        if self._tracing is None:
            receiver = Receiver(self.routes, self.journal, hops_max=self._hops_max)
        else:
            receiver = TracedReceiver(self.routes, self.journal, hops_max=self._hops_max, tracing=self._tracing)
        self.server = HttpServer(receiver, limits=self._server_limits, names=self.connections.names, refused=receiver.refused)
        sock = socket.create_server(("127.0.0.1", 0))
        await self.server.start(sock)
        self.port: int = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = self.new_client()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for client in self._clients:
            await client.aclose()
        await self.stop(0.0)
        await self._tasks.__aexit__(kind, error, trace)

    async def stop(self, deadline_s: float, grace_s: float = 0.0) -> None:
        """As a data plane stops: nothing new, drain, dead-letter what is left, cut the rest."""
        await self.server.aclose(0.0)
        await self.table.aclose(self.clock() + deadline_s, grace_s=grace_s)
        self.connections.close()

    def new_client(self) -> Client:
        client = Client(self.port)
        self._clients.append(client)
        return client

    def channel(self, name: str, *subscribers: Object, recreated: bool = False, **annotations: str) -> None:
        """Make the channel `default/NAME`, or bring it to this."""
        self._generation += 1
        if recreated or name not in self._uids:
            self._uids[name] = f"{name}-{self._generation}"
        metadata = {"name": name, "namespace": "default", "uid": self._uids[name], "generation": self._generation}
        annotated = {"annotations": {f"eventing-mesh.dev/{key}": value for key, value in annotations.items()}}
        self.table.apply(name, self.factory, {"metadata": metadata | annotated, "spec": {"subscribers": list(subscribers)}})

    def remove(self, name: str) -> None:
        self.table.apply(name, self.factory, None)

    def bound(self, events: int) -> None:
        """How far a subscription of the (only) channel may lag, instead of the 10,000 that would take a test long to publish."""
        channel: Any = next(iter(self.table._served.values())).channel
        channel.max_events, channel._clear_number, channel._scan_number = events, events, events // 2

    def worker(self, uid: str) -> SubscriptionWorker:
        return next(s.workers[uid] for s in self.table._served.values() if uid in s.workers)

    async def publish(self, event: Event, channel: str = "orders") -> Response:
        head = event_head(event)
        return await self.client.request("POST", f"/default/{channel}", head, payload(event))

    async def accepted(self, event: Event, channel: str = "orders") -> str:
        """Publish; the receipt."""
        answer = await self.publish(event, channel)
        assert answer.status == 202, answer
        return answer.headers["eventing-receipt"]

    async def deliveries(self, query: str) -> dict[str, Any]:
        """What became of the newest event of this receipt or id, by subscription."""
        matches = (await story(self.journal, query))["matches"]
        return {delivery["uid"]: delivery for delivery in matches[-1]["deliveries"]} if matches else {}

    async def ended(self, query: str, uid: str = "s", *, within: float = 10.0, step: float = 0.002) -> tuple[str, str]:
        """Wait until the event has an end at the subscription; the end and its reason."""
        async with asyncio.timeout(within):
            while True:
                delivery = (await self.deliveries(query)).get(uid)
                if delivery and delivery["state"] != "pending":
                    return delivery["state"], delivery["reason"]
                await asyncio.sleep(step)

    async def quiet(self, within: float = 10.0, step: float = 0.002) -> None:
        """Wait until nothing is pending."""
        async with asyncio.timeout(within):
            while self.table.pending:
                await asyncio.sleep(step)
