"""The provision half: the topic of each channel, and the place at which each of its subscriptions begins.

Whose a topic is, is kept in the channel's `status.annotations`, with the id that Kafka gave to that very topic: what was there
before the channel, or was made by somebody else since, is used and never deleted.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from aiokafka.errors import InvalidReplicationFactorError

from eventing.back_end_settings import SettingsError
from eventing.channels import BackEndSettings, Provisioned
from eventing.errors import EventingError
from eventing.resources.duration import parse_duration
from eventing.resources.kinds import Object
from eventing.resources.subscribers import Subscriber
from eventing_kafka.client_log import bound_client_log
from eventing_kafka.cluster import CALL_S, KafkaCluster, TopicDescription
from eventing_kafka.faults import ClusterError
from eventing_kafka.kind import DEFAULTS, is_topic
from eventing_kafka.names import ORDER_ANNOTATION, external_topic, group_of, own_group, topic_of
from eventing_kafka.settings import KafkaSettings

__all__ = ["KafkaProvisioner"]

_log = logging.getLogger(__name__)

_CONFIG_PARSED: Final = "ConfigParsed"
_TRUST_S: Final = 30.0  # topics are changed by others, too
_MEMBERS_LEAVE_S: Final = 2.0  # what one call waits for the members of a group that is to go
_AGAIN_S: Final = 0.2

# Knative's annotations of the status, and ours.
TOPIC_ANNOTATION: Final = "default.topic"
OWNER_ANNOTATION: Final = "eventing.knative.dev/topic.owner"
TOPIC_ID_ANNOTATION: Final = "kafka.eventing-mesh.dev/topic-id"
OURS: Final = "kafkachannel-controller"
EXTERNAL: Final = "external"


class GroupInUseError(EventingError):
    """A consumer group still has members."""

    retriable = True
    reason = "GroupInUse"


class KafkaProvisioner:
    """Provisions in the cluster that `settings` lead to at the time of each call."""

    def __init__(self, settings: BackEndSettings) -> None:
        bound_client_log()
        self._settings = settings
        self._cluster: KafkaCluster | None = None

    async def ensure(self, channel: Object) -> Provisioned:
        """The topic is there, with what the spec asks for or more; it is made where it is not."""
        try:
            cluster = await self._present_cluster()
        except SettingsError as error:
            return Provisioned(False, error.reason, str(error), step=_CONFIG_PARSED)
        try:
            if external_topic(channel):
                return await self._ensure_external(cluster, topic_of(channel))
            return await self._ensure_own(cluster, channel, topic_of(channel))
        except ClusterError as error:
            return Provisioned(False, error.reason, str(error))

    async def remove(self, channel: Object) -> None:
        """Delete the groups of the channel's subscriptions, then the topic if it is ours. Raises SettingsError, ClusterError or
        GroupInUseError."""
        uids = _subscribers_of(channel)
        ours = _said(channel).get(OWNER_ANNOTATION) == OURS
        if not (uids or ours):
            return  # nothing was ever made, and Kafka need not be there for that
        cluster = await self._present_cluster()
        for uid in sorted(uids):
            await self._delete_group(cluster, own_group(channel, uid))
        if not ours:
            return
        name = topic_of(channel)
        topic = await cluster.topic(name)
        if topic is None:
            return
        if not _same(topic, _said(channel)):
            _log.warning(
                "the topic of a channel that is deleted is another than was made for it, and is left alone",
                extra={"topic": name, "channel": _name_of(channel)},
            )
            return
        await cluster.delete_topic(name)
        _log.info("topic deleted", extra={"topic": name, "channel": _name_of(channel)})

    async def ensure_subscription(self, channel: Object, subscriber: Subscriber) -> Provisioned:
        """The group of a new subscription begins at the present end of every partition (C-02).

        One that the data plane knows already has a place of its own, whatever Kafka says at the moment: where a partition has
        no offset then, it was added, or came anew, and is read from its beginning.
        """
        order = subscriber.annotations.get(ORDER_ANNOTATION, "ordered")
        if order not in {"ordered", "unordered"}:
            message = (
                f"invalid annotation {ORDER_ANNOTATION} value: {order}. Allowed values [ ordered | unordered ]"  # Knative's words
            )
            return Provisioned(False, "InvalidAnnotation", message)
        if any(entry.get("uid") == subscriber.uid for entry in (channel.get("spec") or {}).get("subscribers") or ()):
            return Provisioned(True)
        group, name = group_of(channel, subscriber), topic_of(channel)
        try:
            cluster = await self._present_cluster()
            topic = await cluster.topic(name)
            if topic is None:
                return Provisioned(False, "TopicNotFound", f"topic {name} does not exist (yet)")
            if await cluster.committed(group, name, topic.partitions):
                # A call before this one, or an older life of a group that the Subscription names: to commit now would move it.
                return Provisioned(True)
            ends = await cluster.ends(name, topic.partitions)
            if not await cluster.commit(group, name, ends):
                _log.warning(
                    "a consumer group has members of its own, so no offsets were committed for a new subscription: it begins "
                    "with what the topic holds",
                    extra={"group": group, "topic": name},
                )
        except (SettingsError, ClusterError) as error:
            return Provisioned(False, error.reason, str(error))
        return Provisioned(True)

    async def remove_subscription(self, channel: Object, subscription_uid: str) -> None:
        """Delete the group that was the subscription's own. Raises as `remove` does."""
        await self._delete_group(await self._present_cluster(), own_group(channel, subscription_uid))

    async def aclose(self) -> None:
        """Close the connections to Kafka."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.aclose()

    async def _present_cluster(self) -> KafkaCluster:
        settings = KafkaSettings.read(self._settings)
        before = self._cluster
        if before is not None and before.settings == settings:
            before.settings = settings  # what is asked of new topics may differ
            return before
        cluster = self._cluster = KafkaCluster(settings)
        if before is not None:
            await before.aclose()
        return cluster

    async def _ensure_external(self, cluster: KafkaCluster, name: str) -> Provisioned:
        topic = await cluster.topic(name)
        if topic is None or topic.internal or not topic.partitions:
            why = "does not exist" if topic is None else "is Kafka's own" if topic.internal else "has no partitions"
            message = f"topic {name} {why}; it was given by annotation, so it is neither made nor deleted here"
            return Provisioned(False, "Topic is not present or invalid", message, trust_s=_TRUST_S)  # Knative's words
        message = f"topic {name} was given by annotation and stays when the channel is deleted"
        return Provisioned(True, "", message, annotations=_annotations(topic, EXTERNAL), trust_s=_TRUST_S)

    async def _ensure_own(self, cluster: KafkaCluster, channel: Object, name: str) -> Provisioned:
        if not is_topic(name):
            message = f"{name!r} cannot be the name of a topic (at most 249 characters): choose a shorter name for the channel"
            return Provisioned(False, "FailedToCreateTopic", message)
        spec: Mapping[str, Any] = {**DEFAULTS, **(channel.get("spec") or {})}
        said, topic, made = _said(channel), await cluster.topic(name), False
        if topic is None:
            # Brokers learn of a topic one after the other: the one that we have asked may be behind.
            topic, made = await self._create(cluster, name, spec)
        if made and said.get(OWNER_ANNOTATION):
            fields = {"topic": name, "channel": _name_of(channel)}
            _log.warning("the topic of a channel was gone and is made anew", extra=fields)
        if made or _same(topic, said):
            owner = OURS
        else:
            owner = EXTERNAL if said.get(OWNER_ANNOTATION) else await self._owner_of_found(cluster, topic, spec)
        if differences := await _less_than(cluster, topic, spec):
            message = (
                f"topic {name} exists, but {', '.join(differences)}; it is left as it is: change it with Kafka's own tools, or "
                "delete the channel and make it again under another name or with what the topic has"
            )
            return Provisioned(False, "TopicMismatch", message, annotations=_annotations(topic, owner), trust_s=_TRUST_S)
        message = "" if owner == OURS else f"topic {name} was not made for this channel and stays when it is deleted"
        return Provisioned(True, "", message, annotations=_annotations(topic, owner), trust_s=_TRUST_S)

    async def _create(self, cluster: KafkaCluster, name: str, spec: Mapping[str, Any]) -> tuple[TopicDescription, bool]:
        """The topic, and whether it was made by this call."""
        config = {**dict(cluster.settings.topic_config), "retention.ms": str(_retention_ms(spec))}
        try:
            made = await cluster.create_topic(name, spec["numPartitions"], spec["replicationFactor"], config)
        except ClusterError as error:
            if error.reason == "KafkaRefused":
                if isinstance(error.__cause__, InvalidReplicationFactorError):
                    told = f"{str(error).rstrip('.')}; start more brokers, or delete the channel and make it again with less"
                    raise ClusterError(
                        "FailedToCreateTopic", f"{told} than {spec['replicationFactor']} as spec.replicationFactor"
                    ) from error
                raise ClusterError("FailedToCreateTopic", str(error)) from error
            raise
        deadline = asyncio.get_running_loop().time() + CALL_S
        while (topic := await cluster.topic(name)) is None:  # the brokers learn of it one after the other
            if asyncio.get_running_loop().time() >= deadline:
                raise ClusterError("FailedToCreateTopic", f"topic {name} was made and is not to be seen")
            await asyncio.sleep(_AGAIN_S)
        return topic, made

    async def _owner_of_found(self, cluster: KafkaCluster, topic: TopicDescription, spec: Mapping[str, Any]) -> str:
        """Whose is a topic that was there already? One that is as it would be made and has never held an event is taken for one
        that was made just before the controller died."""
        exact = (len(topic.partitions), topic.replication) == (spec["numPartitions"], spec["replicationFactor"])
        if exact and await cluster.retention_ms(topic.name) == _retention_ms(spec):
            ends = await cluster.ends(topic.name, topic.partitions)
            return EXTERNAL if any(ends.values()) else OURS
        return EXTERNAL

    async def _delete_group(self, cluster: KafkaCluster, group: str) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _MEMBERS_LEAVE_S
        while not await cluster.delete_group(group):
            if loop.time() >= deadline:
                raise GroupInUseError(f"consumer group {group} still has members")
            await asyncio.sleep(_AGAIN_S)


async def _less_than(cluster: KafkaCluster, topic: TopicDescription, spec: Mapping[str, Any]) -> list[str]:
    """In what the topic has less than the spec asks for, in words. More is fine: that is how a topic grows, since the spec is
    immutable."""
    found: list[str] = []
    if len(topic.partitions) < spec["numPartitions"]:
        found.append(f"it has {len(topic.partitions)} partitions, and spec.numPartitions is {spec['numPartitions']}")
    if topic.replication < spec["replicationFactor"]:
        found.append(f"it is kept on {topic.replication} brokers, and spec.replicationFactor is {spec['replicationFactor']}")
    wanted = _retention_ms(spec)
    try:
        retention = await cluster.retention_ms(topic.name)
    except ClusterError as error:
        if error.reason != "NotAuthorized":
            raise
        retention = wanted  # who may use a topic need not be allowed to read its configuration
    if 0 <= retention < wanted:
        found.append(f"its retention.ms is {retention}, and spec.retentionDuration is {spec['retentionDuration']} ({wanted} ms)")
    return found


def _retention_ms(spec: Mapping[str, Any]) -> int:
    return round(parse_duration(spec["retentionDuration"]) * 1000)


def _annotations(topic: TopicDescription, owner: str) -> dict[str, str]:
    return {TOPIC_ANNOTATION: topic.name, OWNER_ANNOTATION: owner, TOPIC_ID_ANNOTATION: topic.id}


def _said(channel: Object) -> Mapping[str, str]:
    """What `ensure` has said of the topic before."""
    annotations: Mapping[str, str] = (channel.get("status") or {}).get("annotations") or {}
    return annotations


def _same(topic: TopicDescription, said: Mapping[str, str]) -> bool:
    """Whether it is the very topic that was made for the channel."""
    return (said.get(OWNER_ANNOTATION), said.get(TOPIC_ANNOTATION), said.get(TOPIC_ID_ANNOTATION)) == (OURS, topic.name, topic.id)


def _subscribers_of(channel: Object) -> set[str]:
    parts = (channel.get("spec") or {}), (channel.get("status") or {})
    return {entry["uid"] for part in parts for entry in part.get("subscribers") or () if entry.get("uid")}


def _name_of(channel: Object) -> str:
    metadata = channel["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}"
