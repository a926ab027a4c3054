"""One Kafka cluster, for the provision half: its topics, its consumer groups. Every call has a deadline."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import create_conn
from aiokafka.protocol.admin import CreateTopicsRequest, DeleteGroupsRequest, DeleteTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.offset import OffsetRequest

from eventing_kafka.clients import stop
from eventing_kafka.faults import CONNECT_S, ClusterError, cause, reason_of, words_of
from eventing_kafka.protocol import NO_ID, TopicRequest
from eventing_kafka.settings import KafkaSettings

__all__ = ["CALL_S", "KafkaCluster", "TopicDescription"]

_log = logging.getLogger(__name__)

CALL_S: Final = 5.0  # for one call, connecting among it
_CLOSE_S: Final = 2.0
_AGAIN_S: Final = 0.1  # between attempts of one call
_AWAY_S: Final = 2.0  # after a failure calls fail at once, so that many channels do not besiege a broker that is away
_RETENTION: Final = "retention.ms"
_TOPIC: Final = 2  # type of a resource, in DescribeConfigs
_LATEST: Final = -1
_NO_GENERATION: Final = -1  # of who commits without being a member

_GONE: Final = (errors.KafkaConnectionError, errors.NodeNotReadyError, errors.StaleMetadata)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as Kafka has it."""

    name: str
    id: str  # of this very topic: another of the same name has another; "" where the broker is too old to say
    partitions: tuple[int, ...]
    replication: int  # the least of all partitions
    internal: bool = False


class KafkaCluster:
    """The cluster that these settings lead to. Connects when first asked, and again when it has to."""

    def __init__(self, settings: KafkaSettings, *, client_id: str = "eventing-controller") -> None:
        self.settings = settings
        self._client_id = client_id
        self._client: AIOKafkaClient | None = None
        self._connecting = asyncio.Lock()
        self._failure: ClusterError | None = None
        self._fails_until = 0.0
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()

    # Topics.

    async def topic(self, name: str) -> TopicDescription | None:
        """The topic; None where there is none. It is not made by asking."""

        async def ask(client: AIOKafkaClient) -> TopicDescription | None:
            found = await _metadata(client, name)
            if found is None:
                return None
            partitions, id_ = found["partitions"], found.get("topic_id", NO_ID)
            return TopicDescription(
                name,
                "" if id_ == NO_ID else str(id_),
                tuple(sorted(partition["partition"] for partition in partitions)),
                min((len(partition["replicas"]) for partition in partitions), default=0),
                found["is_internal"],
            )

        return await self._call(f"looking for topic {name}", ask)

    async def retention_ms(self, topic: str) -> int:
        """How long the topic keeps events; -1: for ever."""

        async def ask(client: AIOKafkaClient) -> int:
            request = DescribeConfigsRequest([(_TOPIC, topic, [_RETENTION])], False)
            ((code, message, _, _, entries),) = (await client.send(_any_node(client), request)).resources
            _check(code, message or f"configuration of topic {topic}")
            return next(int(entry[1]) for entry in entries if entry[0] == _RETENTION)

        return await self._call(f"reading the configuration of topic {topic}", ask)

    async def create_topic(self, name: str, partitions: int, replication: int, config: Mapping[str, str]) -> bool:
        """Make the topic. False where there is one of that name."""

        async def ask(client: AIOKafkaClient) -> bool:
            wanted: tuple[Any, ...] = (name, partitions, replication, [], list(config.items()))
            request = CreateTopicsRequest([wanted], int(CALL_S * 1000), False)
            ((_, code, message),) = (await client.send(await _controller(client), request)).topic_errors
            if code == errors.TopicAlreadyExistsError.errno:
                return False
            _check(code, message or "")
            return True

        return await self._call(f"making topic {name}", ask)

    async def delete_topic(self, name: str) -> None:
        """Delete the topic, if there is one."""

        async def ask(client: AIOKafkaClient) -> None:
            answer = await client.send(await _controller(client), DeleteTopicsRequest([name], int(CALL_S * 1000)))
            ((_, code),) = answer.topic_error_codes
            if code != errors.UnknownTopicOrPartitionError.errno:
                _check(code, f"topic {name}")

        await self._call(f"deleting topic {name}", ask)

    async def ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The offset that the next record of each partition will have."""

        async def ask(client: AIOKafkaClient) -> dict[int, int]:
            described = await _metadata(client, topic)
            if described is None:
                raise errors.UnknownTopicOrPartitionError(f"topic {topic}")
            leaders = {each["partition"]: each["leader"] for each in described["partitions"]}
            by_leader: dict[int, list[int]] = {}
            for partition in partitions:
                by_leader.setdefault(leaders[partition], []).append(partition)
            found: dict[int, int] = {}
            for leader, led in by_leader.items():
                request = OffsetRequest(-1, 0, [(topic, [(partition, _LATEST) for partition in led])])
                for _, answers in (await client.send(leader, request)).topics:
                    for partition, code, _, offset in answers:
                        _check(code, f"partition {partition} of topic {topic}")
                        found[partition] = offset
            return found

        return await self._call(f"looking for the end of topic {topic}", ask)

    # Consumer groups.

    async def committed(self, group: str, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The committed offsets of a group; partitions without one are left out."""

        async def ask(client: AIOKafkaClient) -> dict[int, int]:
            request = OffsetFetchRequest(group, [(topic, sorted(partitions))])
            answer = await client.send(await client.coordinator_lookup(0, group), request)
            _check(getattr(answer, "error_code", 0), f"group {group}")
            found: dict[int, int] = {}
            for _, answers in answer.topics:
                for partition, offset, _, code in answers:
                    _check(code, f"group {group}, partition {partition} of topic {topic}")
                    if offset >= 0:
                        found[partition] = offset
            return found

        return await self._call(f"reading the offsets of group {group}", ask)

    async def commit(self, group: str, topic: str, offsets: Mapping[int, int]) -> bool:
        """Commit for a group without members. False where it has some, whose offsets are their own."""

        async def ask(client: AIOKafkaClient) -> bool:
            entries = [(partition, offset, "") for partition, offset in offsets.items()]
            request = OffsetCommitRequest(group, _NO_GENERATION, "", -1, [(topic, entries)])
            answer = await client.send(await client.coordinator_lookup(0, group), request)
            for _, answers in answer.topics:
                for partition, code in answers:
                    if code in {errors.UnknownMemberIdError.errno, errors.RebalanceInProgressError.errno}:
                        return False
                    _check(code, f"group {group}, partition {partition} of topic {topic}")
            return True

        return await self._call(f"committing offsets of group {group}", ask)

    async def delete_group(self, group: str) -> bool:
        """Delete the group and its offsets, if there is one. False where it still has members."""

        async def ask(client: AIOKafkaClient) -> bool:
            answer = await client.send(await client.coordinator_lookup(0, group), DeleteGroupsRequest([group]))
            ((_, code),) = answer.results
            if code == errors.NonEmptyGroup.errno:
                return False
            if code != errors.GroupIdNotFound.errno:
                _check(code, f"group {group}")
            return True

        return await self._call(f"deleting group {group}", ask)

    async def aclose(self) -> None:
        """Close the connections. Calls under way fail."""
        self._closed = True
        await self._disconnect()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # The way there.

    def _task(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Work that has an end of its own, and is not cancelled with who waits for it: aiokafka loses the connection that it is
        just opening when it is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it has got it, or has given up before

    async def _call(self, what: str, ask: Callable[[AIOKafkaClient], Awaitable[Result]]) -> Result:
        """Ask, again where that may help, until the deadline. Raises ClusterError."""
        now = asyncio.get_running_loop().time()
        if self._failure is not None and now < self._fails_until:
            raise self._failure
        task = self._task(self._ask(ask, now + CALL_S))
        await asyncio.wait({task}, timeout=CALL_S)
        error = task.exception() if task.done() else errors.RequestTimedOutError(f"no answer within {CALL_S:g} s")
        if error is None:
            self._reached()
            return task.result()
        if not isinstance(error, errors.KafkaError):
            raise error
        told = ClusterError(reason_of(error), f"{what} at {self.settings.where}: {words_of(error)}")
        if told.reason == "KafkaUnavailable":
            # Metadata may have become so old that no broker of it is left: begin anew.
            self._failed(told)
            await self._disconnect()
        raise told from error

    async def _ask(self, ask: Callable[[AIOKafkaClient], Awaitable[Result]], deadline: float) -> Result:
        while True:
            client = await self._connected()
            try:
                return await ask(client)
            except errors.KafkaError as error:
                if not error.retriable or asyncio.get_running_loop().time() >= deadline - _AGAIN_S:
                    raise
                if isinstance(error, _GONE) and self._client is client:
                    await self._disconnect()  # knocking anew tells at once whether anybody is there, and what is in the way
            await asyncio.sleep(_AGAIN_S)

    def _reached(self) -> None:
        if self._failure is not None:
            self._failure = None
            _log.info("Kafka answers again", extra={"servers": self.settings.where})

    def _failed(self, error: ClusterError) -> ClusterError:
        if self._failure is None or self._failure.reason != error.reason:
            _log.warning("Kafka cannot be used", extra={"reason": error.reason, "error": str(error)})
        self._failure = error
        self._fails_until = asyncio.get_running_loop().time() + _AWAY_S
        return error

    async def _connected(self) -> AIOKafkaClient:
        async with self._connecting:
            if self._client is not None:
                return self._client
            self._check_open()
            if self._failure is not None and asyncio.get_running_loop().time() < self._fails_until:
                raise self._failure  # somebody has tried while we waited for our turn
            reached = await self._reachable()
            options = {**self.settings.client_options(), "bootstrap_servers": [reached]}
            client = AIOKafkaClient(
                client_id=self._client_id, request_timeout_ms=int(CALL_S * 1000), retry_backoff_ms=100, **options
            )
            try:
                await client.bootstrap()
                self._check_open()
            except (errors.KafkaError, ClusterError):
                await client.close()
                raise
            self._client = client
            return client

    def _check_open(self) -> None:
        if self._closed:
            raise ClusterError("KafkaUnavailable", "the settings have changed meanwhile")

    async def _reachable(self) -> str:
        """The first server that lets us in. aiokafka's own search for it says only that it has failed."""
        failures: dict[str, ClusterError] = {}
        for knock in asyncio.as_completed([self._task(self._knock(server)) for server in self.settings.servers]):
            server, failure = await knock
            if failure is None:
                return server
            failures[server] = failure
        told = [failures[server] for server in self.settings.servers]
        # Of several reasons the one that waiting does not help.
        worst = next((failure for failure in told if failure.reason != "KafkaUnavailable"), told[0])
        raise self._failed(ClusterError(worst.reason, f"Kafka cannot be reached: {'; '.join(dict.fromkeys(map(str, told)))}"))

    async def _knock(self, server: str) -> tuple[str, ClusterError | None]:
        """Connect and log in, and go. Returns what was in the way."""
        host, _, port = server.rpartition(":")
        options = self.settings.client_options()
        del options["bootstrap_servers"]
        try:
            connection = await create_conn(
                host.strip("[]"),
                int(port),
                client_id=self._client_id,
                request_timeout_ms=int(CONNECT_S * 1000),
                **{"sasl_mechanism": None, **options},
            )
            await connection.close()
        except (errors.KafkaError, OSError, TimeoutError, ValueError) as error:
            return server, ClusterError(reason_of(error), f"{server}: {cause(error, self.settings)}")
        return server, None

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await stop(client, _Closing(client), _CLOSE_S)


class _Closing:
    """A client that is nothing but that, to be stopped as the others are."""

    def __init__(self, client: AIOKafkaClient) -> None:
        self.stop = client.close


async def _metadata(client: AIOKafkaClient, name: str) -> Any:
    """What the cluster says of a topic, None where there is none. Raises where a partition has no leader (yet)."""
    answer = await client.send(_any_node(client), TopicRequest(name))
    (found,) = answer.to_object()["topics"]
    if found["error_code"] == errors.UnknownTopicOrPartitionError.errno:
        return None
    _check(found["error_code"], f"topic {name}")
    for partition in found["partitions"]:
        if partition["error_code"] == errors.LeaderNotAvailableError.errno:
            raise errors.LeaderNotAvailableError(f"partition {partition['partition']} of topic {name}")
    return found


def _any_node(client: AIOKafkaClient) -> int:
    node = client.get_random_node()
    if node is None:
        raise errors.NodeNotReadyError("no broker is known")
    return int(node)


async def _controller(client: AIOKafkaClient) -> int:
    controller = client.cluster.controller
    if controller is None:
        await client.force_metadata_update()
        controller = client.cluster.controller
    if controller is None:
        raise errors.NodeNotReadyError("the controller is not known")
    return int(controller.nodeId)


def _check(code: int, about: str) -> None:
    if code:
        raise errors.for_code(code)(about)
