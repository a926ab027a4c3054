"""A subscription's member of its consumer group: reads records into the cursor, writes its positions, follows the rebalances.

aiokafka's protocol is eager: each rebalance takes all partitions away and gives some back. From the one to the other they are in
doubt; what turns out to be ours still, and was nobody else's meanwhile (its commit is the one that we wrote), goes on as if
nothing had been. Whatever fails ends the client; another is made, for ever, and the cursor's state outlives it.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
)

from eventing.channels import Lag
from eventing_kafka import clients
from eventing_kafka.client_log import bound_client_log
from eventing_kafka.cursor import KafkaCursor
from eventing_kafka.offsets import Offsets
from eventing_kafka.partition import FILL_BYTES, PORTION, Partition
from eventing_kafka.settings import KafkaSettings

__all__ = ["Member"]

logger = logging.getLogger(__name__)

COMMIT_S: Final = 0.5
"""From the first settled lease to the commit; with the broker's answer it is within the second that C-16 asks for."""
SESSION_MS: Final = 10_000
REQUEST_TIMEOUT_MS: Final = 20_000
_REBALANCE_MS: Final = 12_000  # within the request's time-out, which the answer to a JoinGroup must not exceed
_STEP_S: Final = 5.0  # for each thing that is asked within a rebalance, which stops the heartbeat
_WAIT_MS: Final = 2_000  # how long Kafka may wait with its answer until there is something
_WAIT_FLOWING_MS: Final = 20  # while one partition flows it is not asked for by a fetch that waits for others
_LOOK_S: Final = 15.0  # how often what has become of the membership is asked where nothing arrives
_LEAVE_S: Final = 1.0  # at least, for leaving
_FRESH_S: Final = 5.0  # age of a partition's end beyond which it is asked for
FETCH_BYTES_MIN: Final = 32 << 10
"""What a fetch brings of a partition at least, where there are many."""
_FETCHED_BYTES: Final = 4 << 20  # fetched and not read yet, of all partitions; a batch comes whole, however large
_FETCH_BYTES_MAX: Final = 1 << 20  # of one answer, since each is copied while the loop stands still
_BACKOFF_S: Final = (0.5, 15.0)
_TOO_LATE: Final = (IllegalGenerationError, IllegalStateError, RebalanceInProgressError, UnknownMemberIdError)


class Member(ConsumerRebalanceListener):
    """Runs from `start` to `leave`."""

    def __init__(
        self,
        settings: KafkaSettings | None,
        cursor: KafkaCursor,
        *,
        topic: str,
        group: str,
        client_id: str,
        clock: Callable[[], float],
    ) -> None:
        bound_client_log()
        self._settings = settings
        self._cursor = cursor
        self._topic = topic
        self._group = group
        self._client_id = client_id
        self._clock = clock
        self._consumer: AIOKafkaConsumer | None = None
        self._assigned = asyncio.Event()
        self._roomy = asyncio.Event()
        self._unsaved = asyncio.Event()
        self._renew = asyncio.Event()
        self._saving: asyncio.Task[None] | None = None
        self._leave_by: float | None = None
        self._failure = ""
        self._unwritten = ""  # why the last commit failed
        self._fault: Exception | None = None  # what went wrong where it could not be raised
        self._flowed = float("-inf")  # when records were last read
        self._ends: dict[int, tuple[int, float]] = {}  # by partition: its end as asked for, and when
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"kafka group {group}")
        self._task.add_done_callback(clients.ended)

    # the cursor's side

    def fetched(self, number: int) -> Sequence[Any]:
        """The next portion of what the client has fetched of a partition already."""
        consumer = self._consumer
        if consumer is None or not self._assigned.is_set():
            return ()
        self._flowed = self._clock()
        try:
            return clients.fetched(consumer, TopicPartition(self._topic, number), PORTION)
        except KafkaError as error:  # damaged on the way, or on the disk
            self._fault = error
            self._renew.set()
            return ()

    def room(self) -> None:
        """Nothing of a partition waits, here or in the client."""
        self._flowed = self._clock()
        self._roomy.set()

    def unsaved(self) -> None:
        """Something is settled that no commit says yet."""
        self._unsaved.set()

    def renew(self, settings: KafkaSettings) -> None:
        """Go on with a new client, by these settings."""
        self._settings = settings
        self._renew.set()

    async def leave(self, deadline: float) -> None:
        """Write what is settled, leave the group, end; by `deadline` (of the clock)."""
        # Who waited for a subscriber until the deadline still writes what is settled, or it would come again.
        self._leave_by = max(deadline, self._clock() + _LEAVE_S)
        self._renew.set()
        await asyncio.wait({self._task}, timeout=self._leave_by - self._clock())
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()

    def lag(self) -> Lag:
        now = self._clock()
        consumer = self._consumer
        ends: dict[int, int | None] = {}
        as_of = now
        for number, partition in self._cursor.partitions.items():
            end, when = self._ends.get(number, (None, 0.0))
            if consumer is not None and not self._cursor.in_doubt:
                tp = TopicPartition(self._topic, number)
                with suppress(AssertionError):
                    fetched, stamp = consumer.highwater(tp), consumer.last_poll_timestamp(tp)
                    if fetched is not None and stamp is not None:
                        age = max(0.0, time.time() - stamp / 1000)
                        if end is None or now - age >= when:
                            end, when = max(fetched, partition.offsets.end), now - age
            ends[number] = end
            if end is not None:
                as_of = min(as_of, when)
        return self._cursor.lag_of(ends, as_of)

    # the client

    async def _run(self) -> None:
        backoff = _BACKOFF_S[0]
        before: KafkaSettings | None = None
        while self._leave_by is None:
            self._renew.clear()
            settings = self._settings
            if settings is None:
                await self._renew.wait()
                continue
            if before is not None and before.servers != settings.servers:
                self._cursor.owns([])  # it may be another cluster, with offsets of its own
                self._cursor.doubt()
            before = settings
            began = self._clock()
            try:
                await self._live(self._made(settings))
            except (KafkaError, OSError, TimeoutError) as error:
                self._failed(error)
                if self._clock() - began > 60:
                    backoff = _BACKOFF_S[0]
                with suppress(TimeoutError):
                    async with asyncio.timeout(backoff * random.uniform(0.8, 1.2)):  # noqa: S311 - a spread, no secret
                        await self._renew.wait()
                backoff = min(backoff * 2, _BACKOFF_S[1])
            else:
                backoff = _BACKOFF_S[0]

    async def _live(self, consumer: AIOKafkaConsumer) -> None:
        """The life of one client, until asked to renew or until something fails."""
        try:
            await clients.start(consumer._client, consumer, 2 * REQUEST_TIMEOUT_MS / 1000)  # noqa: SLF001 - whose connections they are
            if self._renew.is_set():
                return
            self._consumer = consumer
            consumer.subscribe([self._topic], listener=self)
            await self._serve(consumer)
            if self._fault is not None:
                raise self._fault
        finally:
            self._fault = None
            self._cursor.doubt()
            self._assigned.clear()
            self._consumer = None
            within = _STEP_S if self._leave_by is None else min(_STEP_S, self._leave_by - self._clock())
            await clients.stop(consumer._client, consumer, within)  # noqa: SLF001 - whose connections they are

    def _made(self, settings: KafkaSettings) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            client_id=self._client_id,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            partition_assignment_strategy=(RangePartitionAssignor,),
            max_poll_interval_ms=2**31 - 1,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=2_000,
            rebalance_timeout_ms=_REBALANCE_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            fetch_max_wait_ms=_WAIT_MS,
            max_partition_fetch_bytes=FILL_BYTES,
            fetch_max_bytes=_FETCH_BYTES_MAX,
            metadata_max_age_ms=15_000,  # so long a topic made anew, or a partition added, goes unnoticed
            **settings.client_options(),
        )

    def _failed(self, error: Exception) -> None:
        failure = clients.told(error)
        if failure != self._failure:
            logger.warning("%s: consumer group %s: %s; trying again", self._cursor.name, self._group, failure)
            self._failure = failure

    async def _serve(self, consumer: AIOKafkaConsumer) -> None:
        """Read and save until asked to renew, or until one of both fails."""
        loop = asyncio.get_running_loop()
        tasks = {
            loop.create_task(self._read(consumer), name=f"kafka reads {self._group}"),
            loop.create_task(self._save(consumer), name=f"kafka saves {self._group}"),
            loop.create_task(_until(self._renew)),
        }
        fetching = consumer._fetcher.error_future  # noqa: SLF001 - the client does not say that it has ended: `getmany` just waits
        try:
            done, _ = await asyncio.wait({*tasks, fetching}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done:
            task.result()
        if not self._cursor.in_doubt:
            within = _STEP_S if self._leave_by is None else min(_STEP_S, (self._leave_by - self._clock()) / 2)
            await self._save_now(consumer, within)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        cursor = self._cursor
        while True:
            await self._assigned.wait()
            self._roomy.clear()
            wanted = [TopicPartition(self._topic, number) for number, each in cursor.partitions.items() if not each.full]
            all_wanted = len(wanted) == len(cursor.partitions)
            # Of one broker one answer is waited for at a time. A partition that has room again must not wait for long until there
            # is something in the others; one that is stuck for longer may, and costs nothing meanwhile.
            flows = not all_wanted and self._clock() - self._flowed < _WAIT_MS / 1000
            consumer._fetcher._fetch_max_wait_ms = _WAIT_FLOWING_MS if flows else _WAIT_MS  # noqa: SLF001 - no call takes it
            if not all_wanted:
                clients.let_linger(consumer)
            try:
                if all_wanted:
                    # Of all partitions, also those of the next assignment: the call outlives this one.
                    fetched = await consumer.getmany(timeout_ms=int(_LOOK_S * 1000), max_records=PORTION)
                else:
                    fetched = await self._read_or_room(consumer, wanted)
            except OffsetOutOfRangeError as error:
                await self._out_of_range(consumer, error)
                continue
            except NoOffsetForPartitionError:
                continue  # met while it is being decided where to begin
            if not self._assigned.is_set():
                continue  # taken away meanwhile; at the assignment it is said where to go on, and this is read again
            self._failure = ""
            if fetched:
                self._flowed = self._clock()
            for tp, records in fetched.items():
                cursor.arrived(tp.partition, records)
            # `getmany` gives one portion, of the first partitions that have something.
            for number, partition in list(cursor.partitions.items()):
                if not partition.full and (records := self.fetched(number)):
                    cursor.arrived(number, records)

    async def _read_or_room(self, consumer: AIOKafkaConsumer, wanted: list[TopicPartition]) -> dict[TopicPartition, list[Any]]:
        """Records of these partitions; none as soon as another has room again."""
        loop = asyncio.get_running_loop()
        # Where nothing is wanted, nothing is read, but what has become of the membership is still asked now and then.
        nothing = TopicPartition(self._topic, -1)
        room = loop.create_task(_until(self._roomy))
        read = loop.create_task(consumer.getmany(*(wanted or [nothing]), timeout_ms=int(_LOOK_S * 1000), max_records=PORTION))
        tasks = {room, read}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()  # it gives nothing up: what is fetched is taken without suspending
            await asyncio.wait(tasks)
        if read.cancelled():
            return {}
        fetched: dict[TopicPartition, list[Any]] = read.result()
        return fetched

    async def _out_of_range(self, consumer: AIOKafkaConsumer, error: OffsetOutOfRangeError) -> None:
        """The broker no longer has the offset: its retention was faster, or the topic is another one."""
        positions: dict[TopicPartition, int] = error.args[0]
        earliest = await consumer.beginning_offsets(list(positions))
        latest = await consumer.end_offsets(list(positions))
        for tp, asked in positions.items():
            partition = self._cursor.partitions.get(tp.partition)
            if partition is None:
                continue
            first = earliest[tp]
            if asked > latest[tp]:
                logger.warning(
                    "%s: the topic %s, partition %d, ends at %d, and %d was next: it was made anew; going on at its beginning",
                    self._cursor.name, self._topic, tp.partition, latest[tp], asked,
                )  # fmt: skip
                self._cursor.replace(tp.partition, Offsets(first))
            else:
                logger.warning(
                    "%s: events of the topic %s, partition %d, offsets %d to %d, are gone by its retention, undelivered",
                    self._cursor.name, self._topic, tp.partition, asked, first - 1,
                )  # fmt: skip
                self._cursor.skip(tp.partition, first)
            consumer.seek(tp, first)
            self.unsaved()

    # what is settled

    async def _save(self, consumer: AIOKafkaConsumer) -> None:
        """Commit what is settled, soon after it is; and keep the partitions' ends fresh where nothing is read."""
        while True:
            try:
                async with asyncio.timeout(_FRESH_S):
                    await self._unsaved.wait()
            except TimeoutError:
                await self._refresh_ends(consumer)
                continue
            await asyncio.sleep(COMMIT_S)
            await self._assigned.wait()
            await self._save_now(consumer, REQUEST_TIMEOUT_MS / 1000)

    async def _save_now(self, consumer: AIOKafkaConsumer, within_s: float) -> None:
        """One commit of what has changed. It must not outlive the assignment: it is cancelled when that ends, since aiokafka
        would repeat it in the next one (C-22)."""
        previous = self._saving
        if previous is not None:
            previous.cancel()
            await asyncio.wait({previous})
        saving = self._saving = asyncio.get_running_loop().create_task(self._commit(consumer), name=f"kafka commit {self._group}")
        try:
            await asyncio.wait({saving}, timeout=within_s)
        finally:
            if not saving.done():
                saving.cancel()
                self._unsaved.set()
        await asyncio.wait({saving})
        if not saving.cancelled():
            saving.result()

    async def _commit(self, consumer: AIOKafkaConsumer) -> None:
        self._unsaved.clear()
        self._cursor.saved = True
        changed: dict[TopicPartition, OffsetAndMetadata] = {}
        partitions = []
        for partition in self._cursor.partitions.values():
            state = partition.state
            if state != partition.committed:
                partition.tried = state
                changed[TopicPartition(self._topic, partition.number)] = OffsetAndMetadata(*state)
                partitions.append((partition, state))
        if not changed:
            return
        subscription = consumer._subscription.subscription  # noqa: SLF001 - see below
        if subscription is None or subscription.assignment is None:
            return
        try:
            # `consumer.commit` would try for ever: also when the topic has been deleted and made anew meanwhile.
            await consumer._coordinator._do_commit_offsets(subscription.assignment, changed)  # noqa: SLF001 - once
        except _TOO_LATE as error:
            logger.debug("%s: a commit of group %s came too late: %s", self._cursor.name, self._group, error)
        except UnknownTopicOrPartitionError as error:
            self._failed(error)
            self._cursor.owns([])  # what has been read is of a topic that is no more
            self._cursor.doubt()
            self._renew.set()
        except KafkaError as error:
            failure = clients.told(error)
            if failure != self._unwritten:  # events may go on coming meanwhile
                logger.warning("%s: commit of consumer group %s: %s; trying again", self._cursor.name, self._group, failure)
                self._unwritten = failure
            self._unsaved.set()
        else:
            self._unwritten = ""
            for partition, state in partitions:
                partition.committed = state

    async def _refresh_ends(self, consumer: AIOKafkaConsumer) -> None:
        if not self._assigned.is_set():
            return
        if consumer.partitions_for_topic(self._topic) is None:
            consumer._client.force_metadata_update()  # noqa: SLF001 - it would look for a topic that is missing now and then only
            return
        now = time.time()
        stale = []
        for number in self._cursor.partitions:
            tp = TopicPartition(self._topic, number)
            try:
                stamp = consumer.last_poll_timestamp(tp)
            except AssertionError:
                return  # not ours at this moment
            if stamp is None or now - stamp / 1000 > _FRESH_S:
                stale.append(tp)
        if stale:
            with suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(_STEP_S):
                    ends = await consumer.end_offsets(stale)
                when = self._clock()
                self._ends |= {tp.partition: (end, when) for tp, end in ends.items()}

    # rebalances

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._assigned.clear()
        self._cursor.doubt()
        consumer = self._consumer
        if consumer is not None and revoked:
            await self._save_now(consumer, _STEP_S)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        try:
            async with asyncio.timeout(_STEP_S):
                partitions = await self._places(consumer, list(assigned))
            for partition in partitions:
                tp = TopicPartition(self._topic, partition.number)
                consumer.seek(tp, max(partition.offsets.end, partition.offsets.position))
        except Exception as error:  # noqa: BLE001 - raised again by `_live`; aiokafka would log it and go on
            # Without its places the assignment is of no use.
            self._fault = error
            self._renew.set()
            return
        # Of a batch that is larger than what a partition may bring, Kafka sends one for each request: less, and the partitions
        # would wait for each other. What the client was made with is right for a few.
        share = max(FETCH_BYTES_MIN, min(FILL_BYTES, _FETCHED_BYTES // max(1, len(partitions))))
        consumer._fetcher._max_partition_fetch_bytes = share  # noqa: SLF001 - set once only
        self._ends = {}
        self._cursor.owns(partitions)
        self._assigned.set()
        self._unsaved.set()

    async def _places(self, consumer: AIOKafkaConsumer, assigned: list[TopicPartition]) -> list[Partition]:
        """The partitions that are ours now: those that were, if nobody else has had them, else as their commits say."""
        coordinator = consumer._coordinator  # noqa: SLF001 - the only way to a commit's metadata without another connection
        committed: dict[TopicPartition, OffsetAndMetadata] = await coordinator.fetch_committed_offsets(assigned)
        new = [tp for tp in assigned if tp not in committed or committed[tp].offset < 0]
        earliest = await consumer.beginning_offsets(new) if new else {}
        partitions = []
        for tp in assigned:
            old = self._cursor.partitions.get(tp.partition)
            if tp in earliest:
                place = None
                offsets = Offsets(earliest[tp])
            else:
                place = (committed[tp].offset, committed[tp].metadata)
                offsets = Offsets(*place)
            if old is not None and place in {old.committed, old.tried}:
                old.committed = place
                partitions.append(old)
            else:
                partitions.append(Partition(tp.partition, offsets, place))
        return partitions


async def _until(event: asyncio.Event) -> None:
    await event.wait()
