"""Addresses that the settings deny, in a whole mesh; and an environment that would lead elsewhere. A1, A3."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from eventing.event import Event
from eventing.runtime.mesh import Mesh
from eventing.runtime.settings import DeliverySettings
from eventing.testing.sinks import Sink
from tests.support.manifests import CHANNEL, subscription

EVENT = Event({"specversion": "1.0", "type": "com.example.order", "source": "/shop", "id": "1"}, b"")
WITHIN_S = 20.0


async def ended(mesh: Mesh) -> dict[str, Any]:
    """Send until the subscription is there; then its delivery, once it has an end."""
    async with asyncio.timeout(WITHIN_S):
        with mesh.client() as client:
            while True:
                answer = await asyncio.to_thread(client.send, "default", "orders", EVENT)
                while answer.accepted:
                    (match,) = (await asyncio.to_thread(client.trace, answer.receipt))["matches"]
                    if not match["deliveries"]:
                        break
                    if match["deliveries"][0]["state"] != "pending":
                        return dict(match["deliveries"][0])
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0.02)


async def test_a_range_that_the_user_denies_is_not_connected_to(sink: Sink, tmp_path: Path) -> None:
    manifest = tmp_path / "orders.yaml"
    manifest.write_text(f"{CHANNEL}---\n{subscription(sink.url + '/')}")
    ranges = DeliverySettings(deny_ranges=("192.0.2.0/24", "127.0.0.0/8"))
    async with Mesh(manifests=[str(manifest)], delivery=ranges) as mesh:
        delivery = await ended(mesh)
    assert (delivery["state"], delivery["reason"]) == ("dropped", "NoDeadLetterSink")
    assert delivery["attempts"][0]["error"] == "AddressDenied: the address 127.0.0.1 is denied: it is in 127.0.0.0/8"
    assert delivery["attempts"][1]["number"] == 0, "there is no second attempt"
    assert sink.requests == []


async def test_proxies_of_the_environment_are_none_of_ours(sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    manifest = tmp_path / "orders.yaml"
    manifest.write_text(f"{CHANNEL}---\n{subscription(sink.url + '/')}")
    ranges = DeliverySettings(allow_ranges=("127.0.0.1",), deny_ranges=("127.0.0.0/8",))
    async with Mesh(manifests=[str(manifest)], delivery=ranges) as mesh:
        assert (await ended(mesh))["state"] == "delivered"
    assert sink.requests[-1].event_id == "1"
