"""Shapes of requests: whatever comes, a connection that knows shapes takes from it what one without them takes, no more, no less."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventing.bindings.http import decode, event_head
from eventing.bindings.shapes import LEARNT_MAX
from eventing.errors import InvalidEventError
from eventing.wire.request import ServerLimits
from eventing.wire.server_connection import SHAPELESS, ServerConnection
from tests.unit.wire.transports import FakeTransport, Peer


def request(
    *more: str, id_: str = "a-1", time: str = "2026-01-01T00:00:00Z", length: int | None = None, data: bytes = b'{"n":1}'
) -> bytes:
    lines = [
        "POST /default/orders HTTP/1.1",
        "Host: mesh",
        "CE-SpecVersion: 1.0",
        "ce-type: t",
        "ce-source: /s",
        f"ce-time:{time}",
        "content-type: application/json",
        "ce-myextension: 7",
        f"Content-Length: {len(data) if length is None else length}",
        f"ce-id: {id_}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


class Mesh(Peer):
    """An ingress in little: decodes each request, answers 202 or 400, says what it has seen."""

    def __init__(self, limits: ServerLimits | None = None) -> None:
        super().__init__(limits)
        self.events: list[Any] = []
        self.known = 0

    def _application(self, request: Any) -> None:
        self.requests.append(request)
        event = request.event
        if event is not None:
            self.known += 1
        else:
            try:
                (event,) = decode(request.headers, request.body)
            except (InvalidEventError, ValueError) as error:
                self.events.append(str(error))
                request.respond(400)
                return
            request.seen(event)
        attributes = dict(event.attributes)
        self.events.append(
            (request.method, request.target, request.host, attributes, event.data, event.headers, event_head(event))
        )
        request.respond(202)

    def another(self) -> None:
        """The next connection to the same server."""
        self.transport = FakeTransport()
        self.connection = ServerConnection(self.server, asyncio.get_running_loop())
        self.connection.connection_made(self.transport)


TEACHERS = [
    request(),
    request("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    request("Knative-Eventing-Hops: 3", "x-request-id: 1"),
    request("ce-subject: orders/1", data=b""),
]


async def test_the_third_of_a_kind_needs_no_parser() -> None:
    mesh = Mesh()
    for number in range(5):
        mesh.send(request("x-other: 1", id_=f"load-{number}", time=f"2026-01-01T00:00:0{number}Z", data=b"x" * number))
    assert mesh.statuses == [202] * 5
    assert mesh.known == 3
    assert [event[3]["id"] for event in mesh.events] == [f"load-{number}" for number in range(5)]
    assert [event[3]["time"][-2] for event in mesh.events] == list("01234")
    assert [event[4] for event in mesh.events] == [b"x" * number for number in range(5)]
    assert mesh.events[4][3]["myextension"] == "7"


@pytest.mark.parametrize("line", ["expect: 100-continue", "connection: close", "transfer-encoding: chunked"])
async def test_what_a_head_does_not_say_in_full_is_not_learnt(line: str) -> None:
    mesh = Mesh()
    for _ in range(10):
        mesh.another()
        mesh.send(*[request(line)] * 4)
    assert not mesh.known
    assert not mesh.server.shapes._known


async def test_several_kinds_on_one_connection() -> None:
    mesh = Mesh()
    for _ in range(20):
        mesh.send(*TEACHERS)
    assert mesh.known > 60
    assert len(mesh.events) == 80
    assert all(mesh.events[at] == mesh.events[at % 4] for at in range(80))


@pytest.mark.parametrize(
    "twist",
    [
        request(id_="a%31"),
        request(id_='"a"'),
        request(id_="a\tb"),
        request(id_="a "),
        request(id_=""),
        request(id_="a\r\nce-id: b"),
        request(id_="a\r\nTransfer-Encoding: chunked"),
        request(id_="a\nce-id: b"),
        request(id_="x" * 300),
        request(time="yesterday"),
        request(time=""),
        request(length=3),
        request(length=99),
        request("content-length: 7"),
        request("expect: 100-continue"),
        request("connection: close"),
        request("upgrade: h2c", "connection: upgrade"),
        request() + request(id_="a-2"),
        request().replace(b"Content-Length: 7", b"Content-Length: 07"),
        request().replace(b"Content-Length: 7", b"Content-Length: +7"),
        request().replace(b"1.0", b"0.3"),
        request().replace(b"Host: mesh", b"Host: orders-kn-channel.default"),
        request().replace(b"/default/orders", b"/default/others"),
    ],
)
async def test_what_differs_is_read_with_care(twist: bytes) -> None:
    assert_same(lambda mesh: mesh.send(twist))


def assert_same(send: Callable[[Mesh], object]) -> None:
    taught, untaught = Mesh(), Mesh()
    for teacher in TEACHERS:
        taught.send(*[teacher] * 10)
    known = taught.known
    taught.send(*TEACHERS)
    assert taught.known == known + len(TEACHERS)
    already = len(taught.events), len(taught.transport.written)
    send(taught)
    send(untaught)
    assert taught.events[already[0] :] == untaught.events
    assert taught.transport.written[already[1] :] == untaught.transport.written
    assert taught.transport.closed == untaught.transport.closed
    assert taught.refusals == untaught.refusals


MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.integers(0, 12),
        st.sampled_from(
            [b"", b"\r\n", b"\r", b"\n", b" ", b"\t", b"%", b'"', b":", b"0", b"\xff", b"\x00", b"ce-id: 2\r\n", b"a: b\r\n"]
        )
        | st.binary(max_size=8),
    ),
    min_size=1,
    max_size=3,
)


@given(st.sampled_from(TEACHERS), MUTATIONS, st.lists(st.integers(1, 400), max_size=2))
@example(TEACHERS[0], [(200, 0, b"")], [])
async def test_no_mutation_is_taken_differently(teacher: bytes, mutations: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    mutated = teacher
    for at, removed, put in mutations:
        mutated = mutated[:at] + put + mutated[at + removed :]
    edges = [0, *sorted(cuts), len(mutated)]
    pieces = [mutated[start:end] for start, end in itertools.pairwise(edges) if start < end]
    assert_same(lambda mesh: mesh.send(*pieces, request(id_="the next")))


async def test_a_body_beyond_the_limit_is_refused_also_of_a_known_shape() -> None:
    mesh = Mesh(ServerLimits(body_bytes=100))
    mesh.send(request(id_="1"), request(id_="2"), request(id_="3"))
    assert mesh.known == 1
    mesh.send(request(data=b"x" * 101))
    assert mesh.statuses == [202, 202, 202, 413]


async def test_a_connection_without_a_shape_stops_looking_for_one() -> None:
    mesh = Mesh()
    for number in range(SHAPELESS + 1):
        mesh.send(request(f"x-other: {number}"))
    assert mesh.known == 0
    assert mesh.connection._shapes == ()


async def test_strangers_cannot_make_the_server_learn_without_end() -> None:
    mesh = Mesh()
    for number in range(LEARNT_MAX * 2):
        mesh.another()
        mesh.send(*[request(f"x-other: {number}")] * 2)
    assert len(mesh.server.shapes._known) == LEARNT_MAX
    mesh.server.shapes.allow()
    mesh.another()
    mesh.send(*[request("x-other: new")] * 3)
    assert mesh.known == 1
