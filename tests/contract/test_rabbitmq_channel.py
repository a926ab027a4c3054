"""The RabbitMQ channel keeps the contract of the Channel port, on a real RabbitMQ."""

from collections.abc import AsyncIterator

import pytest

from eventing.testing.channel_harness import ChannelHarness
from eventing.testing.channels import ChannelContract
from tests.contract.rabbitmq_harness import RabbitmqHarness
from tests.support.rabbitmq.broker import RabbitmqBroker

pytestmark = pytest.mark.rabbitmq


class TestRabbitmqChannel(ChannelContract):
    """Quorum queues."""

    queue_type = "quorum"

    @pytest.fixture
    async def harness(self, rabbitmq: RabbitmqBroker) -> AsyncIterator[ChannelHarness]:
        harness = RabbitmqHarness(rabbitmq.url, self.queue_type)
        await harness.start()
        yield harness
        await harness.aclose()


class TestRabbitmqChannelOfClassicQueues(TestRabbitmqChannel):
    """Classic queues."""

    queue_type = "classic"


def test_no_subclass_overrides_a_clause() -> None:
    own = {name for name in {*vars(TestRabbitmqChannel), *vars(TestRabbitmqChannelOfClassicQueues)} if name.startswith("test_")}
    assert not own & set(vars(ChannelContract))
