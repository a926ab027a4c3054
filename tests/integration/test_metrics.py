"""What a scrape says about a running mesh, and what it says no more."""

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_format

from eventing.observe.exposition import DataPlaneCollector, registry
from eventing.observe.metrics import IngressMetrics
from eventing.observe.scrape import Scrape
from eventing.runtime.data_directory import DataDirectory
from eventing.runtime.mesh import Mesh
from eventing.runtime.tokens import Tokens
from eventing.testing.sinks import Answer, Sink
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.manifests import CHANNEL, subscription

Found = dict[str, float]


def read(content_type: str, body: str) -> Found:
    """Samples by name and labels, as they stand in the text."""
    families = open_metrics if content_type.startswith("application/openmetrics-text") else text_format
    return {
        f"{sample.name}{{{','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))}}}": sample.value
        for family in families(body)
        for sample in family.samples
    }


async def scrape(rig: DataPlaneRig) -> Found:
    collector = DataPlaneCollector(removed=rig.table.removed, ingress=IngressMetrics(), figures=dict)
    written = Scrape(channels=rig.table.channel_metrics, subscriptions=rig.table.figures, rest=registry("dataplane", collector))
    content_type, body = await written.write("")
    return read(content_type, body.decode())


async def test_series_of_a_deleted_subscription_end_and_its_counts_are_kept() -> None:
    async with Sink() as sink, DataPlaneRig() as mesh:
        mesh.channel("orders", subscriber("kept", sink.url), subscriber("gone", sink.url))
        await mesh.accepted(make_event())
        await mesh.quiet()
        before = await scrape(mesh)
        labels = "channel=orders,code=200,namespace=default,subscription"
        assert before[f"eventing_delivery_attempts_total{{{labels}=gone}}"] == 1
        assert before[f"eventing_delivery_attempts_total{{{labels}=kept}}"] == 1
        mesh.channel("orders", subscriber("kept", sink.url))
        async with asyncio.timeout(10):
            while not mesh.table.removed:
                await asyncio.sleep(0.005)
        after = await scrape(mesh)
        assert not [series for series in after if "subscription=gone" in series]
        assert after[f"eventing_delivery_attempts_total{{{labels}=kept}}"] == 1
        assert after["eventing_removed_subscriptions_events_total{end=delivered,reason=}"] == 1
        mesh.remove("orders")
        assert not [series for series in await scrape(mesh) if "channel=orders" in series]


async def test_what_waits_and_for_how_long() -> None:
    async with Sink() as sink, DataPlaneRig() as mesh:
        sink.always("/s", Answer(503))
        mesh.channel("orders", subscriber("s", sink.url + "/s", retry=5, backoff_delay="PT60S"))
        for number in range(3):
            await mesh.accepted(make_event(str(number)))
        await asyncio.sleep(0.02)
        found = await scrape(mesh)
        of = "{channel=orders,namespace=default,subscription=s}"
        assert found[f"eventing_subscription_pending_events{of}"] == 3
        assert found[f"eventing_subscription_pending_bytes{of}"] > 0
        assert found[f"eventing_subscription_oldest_seconds{of}"] > 0


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"])
async def test_a_scraper_gets_the_format_that_it_asks_for(tmp_path: Path, accept: str) -> None:
    async with Mesh(tmp_path) as mesh:
        status, content_type, body = await get(f"{mesh.metrics_url}/metrics", accept)
        assert status == 200
        assert content_type.startswith("application/openmetrics-text" if accept else "text/plain; version=0.0.4")
        found = read(content_type, body)
        assert found["eventing_dataplane_channels{}"] == 0
        assert found["eventing_channel_memory_limit_bytes{}"] == 64 << 20
        assert [series for series in found if series.startswith("eventing_build_info{process=dataplane,version=")]


async def get(url: str, accept: str = "", *, tls: ssl.SSLContext | bool = True, token: str = "") -> tuple[int, str, str]:
    headers = {"accept": accept} if accept else {}
    if token:
        headers["authorization"] = f"Bearer {token}"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers, ssl=tls) as answer:
        return answer.status, answer.headers["content-type"], await answer.text()


async def test_control_shows_its_own_to_who_has_a_token(tmp_path: Path) -> None:
    manifest = tmp_path / "orders.yaml"
    manifest.write_text(f"{CHANNEL}---\n{subscription('http://127.0.0.1:1/')}")
    async with Mesh(tmp_path / "data", manifests=[str(manifest)]) as mesh:
        tls = ssl.create_default_context(cafile=str(mesh.data_dir / "pki" / "ca.crt"))
        token = Tokens.of(DataDirectory(mesh.data_dir)).admin
        assert (await get(f"{mesh.api_url}/metrics", tls=tls))[0] == 401
        ready = "eventing_resources{ready=True,resource=subscriptions.messaging.knative.dev}"
        found: Found = {}
        async with asyncio.timeout(20):
            while found.get(ready) != 1:
                status, content_type, body = await get(f"{mesh.api_url}/metrics", tls=tls, token=token)
                assert status == 200
                found = read(content_type, body)
                await asyncio.sleep(0.02)
        subscriptions = "resource=subscriptions.messaging.knative.dev"
        assert found[f"eventing_api_objects{{{subscriptions}}}"] == 1
        assert found[f"eventing_api_watches{{{subscriptions}}}"] == 1
        assert found[f"eventing_api_requests_total{{code=200,{subscriptions},verb=list}}"] >= 1
        assert found[f"eventing_api_request_duration_seconds_count{{{subscriptions},verb=list}}"] >= 1
        assert found["eventing_reconciles_total{controller=subscriptions,result=done}"] >= 1
        assert found["eventing_reconcile_duration_seconds_count{controller=subscriptions}"] >= 1
        assert found["eventing_reconcile_due{controller=subscriptions}"] == 0
        assert [series for series in found if series.startswith("eventing_build_info{process=control,")]
        unknown = "code=404,resource=,verb="
        await get(f"{mesh.api_url}/apis/nothing.example.com/v1/things", tls=tls, token=token)
        _, content_type, body = await get(f"{mesh.api_url}/metrics", tls=tls, token=token)
        assert read(content_type, body)[f"eventing_api_requests_total{{{unknown}}}"] >= 1
