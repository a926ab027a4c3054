"""The whole mesh in the event loop of a test, as users of `eventing.runtime.mesh` have it."""

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventing.bindings.http import decode
from eventing.errors import EventingError, StartError
from eventing.event import Event
from eventing.runtime.mesh import Mesh
from eventing.wire.server import HttpServer, Request
from tests.support.manifests import CHANNEL, subscription

ATTRIBUTES = {"specversion": "1.0", "type": "com.example.order", "source": "/shop", "id": "1"}


class Subscriber:
    """Takes events and hands them to the test."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.server = HttpServer(self._receive)
        self.url = ""

    def _receive(self, request: Request) -> None:
        for event in decode(request.headers, request.body):
            self.events.put_nowait(event)
        request.respond(204)


@pytest.fixture
async def subscriber() -> AsyncIterator[Subscriber]:
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    taking = Subscriber()
    taking.url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    await taking.server.start(listener)
    yield taking
    await taking.server.aclose()


async def accepted(mesh: Mesh, event: Event) -> str:
    """Send until the channel is there and due to its subscriber; the receipt of the acceptance that reached it."""
    with mesh.client() as client:
        for _ in range(200):
            answer = await asyncio.to_thread(client.send, "default", "orders", event)
            if answer.accepted:
                document = await asyncio.to_thread(client.trace, answer.receipt)
                if document["matches"][0]["deliveries"]:
                    return answer.receipt
            else:
                assert answer.status == 404, answer.problem
            await asyncio.sleep(0.02)
    raise AssertionError("the channel never had its subscription")


async def test_an_event_reaches_its_subscriber(tmp_path: Path, subscriber: Subscriber) -> None:
    manifest = tmp_path / "orders.yaml"
    manifest.write_text(f"{CHANNEL}---\n{subscription(subscriber.url)}")
    async with Mesh(tmp_path / "data", manifests=[str(manifest)]) as mesh:
        assert stat.S_IMODE(mesh.kubeconfig.stat().st_mode) == 0o600
        assert (mesh.data_dir / "endpoints.json").exists()
        await accepted(mesh, Event(ATTRIBUTES, b'{"n": 1}'))
        async with asyncio.timeout(10):
            event = await subscriber.events.get()
        assert (event.type, event.id, event.data) == ("com.example.order", "1", b'{"n": 1}')
    assert not (tmp_path / "data" / "endpoints.json").exists()


async def test_it_takes_its_temporary_directory_with_it() -> None:
    mesh = Mesh()
    async with mesh:
        where = mesh.data_dir
        assert where.exists()
    assert not where.exists()
    with pytest.raises(EventingError, match="not running"):
        _ = mesh.ingress_url


async def test_two_meshes_side_by_side_do_not_meet() -> None:
    async with Mesh() as one, Mesh() as other:
        assert one.ingress_url != other.ingress_url


async def test_a_refused_manifest_is_a_start_error(tmp_path: Path) -> None:
    manifest = tmp_path / "bad.yaml"
    manifest.write_text(CHANNEL + "spec: {channelTemplate: {kind: 7}}\n")
    with pytest.raises(StartError, match=r"bad\.yaml: Channel orders was refused: .*channelTemplate"):
        async with Mesh(tmp_path / "data", manifests=[str(manifest)]):
            pytest.fail("it must not start")
    # What is left behind is no obstacle to the next one.
    async with Mesh(tmp_path / "data"):
        pass
