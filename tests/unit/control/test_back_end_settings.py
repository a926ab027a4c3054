"""A back end's ConfigMap and Secret: both halves have them as the API server has them, and what they change is asked for anew."""

import asyncio
import base64
from collections.abc import AsyncIterator

import pytest

from eventing.back_end_settings import SETTINGS_NAMESPACE
from eventing.channels import BackEndSettings, Capabilities, Order, Provisioned, wanted_order
from eventing.kube import SettingsFollower
from eventing.resources.subscribers import Subscriber
from tests.unit.control.conftest import FakeApi, Mesh


@pytest.fixture
async def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
async def follower(api: FakeApi) -> AsyncIterator[SettingsFollower]:
    follower = SettingsFollower(api, "durable-config")
    running = asyncio.create_task(follower.run())
    yield follower
    running.cancel()
    await asyncio.wait({running})


async def put(api: FakeApi, plural: str, name: str, **data: str) -> None:
    metadata = {"namespace": SETTINGS_NAMESPACE, "name": name}
    await api.write("apply", api.kinds[plural], {"metadata": metadata, "data": {k.replace("_", "."): v for k, v in data.items()}})


async def until(settings: BackEndSettings, config: dict[str, str] | None, secret: dict[str, bytes] | None) -> None:
    changed = asyncio.Event()
    end = settings.on_change(changed.set)
    async with asyncio.timeout(5):
        while (settings.config, settings.secret) != (config, secret):
            await changed.wait()
            changed.clear()
    end()


async def test_without_a_config_map_there_is_none(api: FakeApi, follower: SettingsFollower) -> None:
    async with asyncio.timeout(5):
        await follower.synced()
    assert follower.settings.config is None
    await put(api, "configmaps", "another", bootstrap_servers="no")
    await put(api, "configmaps", "durable-config", bootstrap_servers="kafka:9092")
    await until(follower.settings, {"bootstrap.servers": "kafka:9092"}, None)


async def test_the_named_secret_is_followed_and_never_shown(api: FakeApi, follower: SettingsFollower) -> None:
    named = {"auth.secret.ref.name": "credentials"}
    await put(api, "configmaps", "durable-config", auth_secret_ref_name="credentials")
    async with asyncio.timeout(5):
        await follower.synced()
    await until(follower.settings, named, None)
    assert follower.settings.secret_name == f"{SETTINGS_NAMESPACE}/credentials"
    await put(api, "secrets", "credentials", password=base64.b64encode(b"first").decode())
    await until(follower.settings, named, {"password": b"first"})
    await put(api, "secrets", "credentials", password=base64.b64encode(b"second").decode())
    await until(follower.settings, named, {"password": b"second"})
    assert "second" not in repr(follower.settings)
    await put(api, "secrets", "other", password=base64.b64encode(b"third").decode())
    await put(api, "configmaps", "durable-config", auth_secret_ref_name="other")
    await until(follower.settings, {"auth.secret.ref.name": "other"}, {"password": b"third"})
    await put(api, "secrets", "credentials", password=base64.b64encode(b"late").decode())
    await put(api, "configmaps", "durable-config", bootstrap_servers="kafka:9092", auth_secret_ref_name="")
    await until(follower.settings, {"bootstrap.servers": "kafka:9092", "auth.secret.ref.name": ""}, None)


async def test_both_present_at_the_start_are_told_together(api: FakeApi) -> None:
    await put(api, "secrets", "credentials", password=base64.b64encode(b"first").decode())
    await put(api, "configmaps", "durable-config", auth_secret_ref_name="credentials")
    follower = SettingsFollower(api, "durable-config")
    told: list[object] = []
    follower.settings.on_change(lambda: told.append(follower.settings.secret))
    running = asyncio.create_task(follower.run())
    async with asyncio.timeout(5):
        await follower.synced()
    assert told == [{"password": b"first"}]
    running.cancel()
    await asyncio.wait({running})


async def test_a_back_end_set_up_anew_is_asked_again(mesh: Mesh) -> None:
    plane = mesh.start()
    await mesh.apply("durablechannels", "orders")
    await mesh.until_ready("durablechannels", "orders")
    asked = mesh.durable.calls["ensure"]
    mesh.durable.says = Provisioned(False, "TopicNotReady", "no broker at kafka:9092")
    await put(mesh.api, "configmaps", "durable-config", bootstrap_servers="kafka:9092")
    await mesh.until(lambda: mesh.ready("durablechannels", "orders")[0] == "False")
    assert mesh.durable.calls["ensure"] > asked
    assert mesh.durable.settings.config == {"bootstrap.servers": "kafka:9092"}
    assert plane is not None


async def test_options_of_the_back_end_travel_with_the_entry(mesh: Mesh) -> None:
    mesh.start()
    await mesh.apply("durablechannels", "orders")
    reference = {"apiVersion": "messaging.knative.dev/v1", "kind": "DurableChannel", "name": "orders"}
    given = {"group.id": "mine", "eventing-mesh.dev/order": "key", "example.com/else": "no"}
    await mesh.subscription(annotations=given, channel=reference)
    await mesh.until_ready("subscriptions", "sub")
    channel = mesh.find("durablechannels", "orders")
    assert channel is not None
    assert channel["spec"]["subscribers"][0]["annotations"] == {"group.id": "mine", "eventing-mesh.dev/order": "key"}


@pytest.mark.parametrize(
    ("annotations", "order"),
    [
        ({}, Order.PARTITION),
        ({"eventing-mesh.dev/order": "none"}, Order.NONE),
        ({"eventing-mesh.dev/order": "key"}, Order.PARTITION),
        ({"eventing-mesh.dev/concurrency": "1"}, Order.SUBSCRIPTION),
        ({"eventing-mesh.dev/concurrency": "1", "eventing-mesh.dev/order": "none"}, Order.NONE),
    ],
)
def test_the_order_that_a_subscription_gets(annotations: dict[str, str], order: Order) -> None:
    kept = frozenset({Order.NONE, Order.PARTITION, Order.SUBSCRIPTION})
    capabilities = Capabilities(True, kept, False, False, 1 << 20, default_order=Order.PARTITION)
    assert wanted_order(Subscriber("u", "s", "default", 1, "http://s/", annotations=annotations), capabilities) is order
