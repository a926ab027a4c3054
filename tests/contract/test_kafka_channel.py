"""The Kafka channel keeps the contract of the Channel port, on a real Kafka."""

from collections.abc import AsyncIterator

import pytest

from eventing.testing.channel_harness import ChannelHarness
from eventing.testing.channels import ChannelContract
from tests.contract.kafka_harness import KafkaHarness
from tests.support.kafka.broker import KafkaBroker

pytestmark = pytest.mark.kafka


class TestKafkaChannel(ChannelContract):
    """A topic of three partitions."""

    partitions = 3

    @pytest.fixture
    async def harness(self, kafka: KafkaBroker) -> AsyncIterator[ChannelHarness]:
        harness = KafkaHarness(kafka.bootstrap, self.partitions)
        await harness.start()
        yield harness
        await harness.aclose()


class TestKafkaChannelOfOnePartition(TestKafkaChannel):
    """Keeps the order of the whole channel too."""

    partitions = 1


def test_no_subclass_overrides_a_clause() -> None:
    own = {name for name in {*vars(TestKafkaChannel), *vars(TestKafkaChannelOfOnePartition)} if name.startswith("test_")}
    assert not own & set(vars(ChannelContract))
