"""Subscriptions edited, deleted and recreated, and a channel deleted and recreated, while events come in: through the API, in a mesh
within the test's own loop. No event that was due is lost, and none goes where it should not."""

import asyncio
import random
from collections import Counter
from urllib.parse import urlsplit

from eventing.kube import KubeClient
from eventing.kube.cluster import load_kubeconfig
from eventing.runtime.mesh import Mesh
from eventing.testing.sinks import Answer, Sink, failing_at_random
from tests.chaos.books import Asked, balance
from tests.chaos.changes import Changes
from tests.chaos.traffic import Traffic

DROPS = ("SubscriptionDeleted", "ChannelDeleted", "NoDeadLetterSink")


def unsteady(sink: Sink, seed: int, share: float = 0.15) -> None:
    """Every subscriber fails now and then; dead-letter sinks do not."""
    failing = failing_at_random(seed, share, Answer(500), Answer(503), Answer.cut(), Answer.cut(25))
    sink.otherwise(lambda received: Answer() if received.path.startswith("/dead/") else failing(received))


async def test_subscriptions_and_their_channel_change(seed: int) -> None:
    rand = random.Random(seed)
    async with Sink() as sink, Mesh(drain_s=1.0) as mesh:
        unsteady(sink, seed)
        client = KubeClient(load_kubeconfig(mesh.kubeconfig), user_agent="chaos")
        traffic = Traffic(urlsplit(mesh.ingress_url).port or 0, rand)
        changes = Changes(client, traffic, sink, rand)
        asked = Asked(urlsplit(mesh.metrics_url).port or 0, mesh.client().token)
        try:
            await changes.make_channel()
            steady = await changes.subscribe("steady")
            await changes.subscribe("ordered", ordered=True)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(traffic.run())
                await traffic.until(20)
                await changes.edit("ordered")
                await changes.recreate("steady")
                for _ in range(rand.randint(3, 6)):
                    await traffic.until(rand.randint(0, 20))
                    await changes.random()
                await changes.delete_channel()
                await changes.bring_channel_back()
                await traffic.until(20)
                traffic.stop()
            ends: Counter[str] = await balance(traffic, changes.all, sink, asked, drops=DROPS)
        finally:
            await client.aclose()
    assert ends["delivered"] > 60
    assert steady.deleted
