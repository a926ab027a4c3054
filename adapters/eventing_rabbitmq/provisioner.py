"""The provision half: the exchange of each channel, and the queue of each of its subscriptions.

What is there is never made anew silently: an exchange or a queue that was made otherwise is left as it is, and the condition says
in what it differs. What is gone is made again, and the log says that events were lost with it.
"""

import logging
import shlex
from collections.abc import Iterator
from typing import Final

from eventing.back_end_settings import SettingsError
from eventing.channels import BackEndSettings, Provisioned
from eventing.resources.kinds import Object
from eventing.resources.subscribers import Subscriber, read_subscribers
from eventing_rabbitmq.administration import Administration
from eventing_rabbitmq.faults import NOT_FOUND, PRECONDITION_FAILED, RabbitmqError
from eventing_rabbitmq.names import (
    QUORUM,
    SINGLE_CONSUMER,
    delay_queues,
    exchange_of,
    is_ordered,
    queue_arguments,
    queue_of,
    queue_type,
)
from eventing_rabbitmq.settings import RabbitmqSettings

__all__ = ["EXCHANGE_ANNOTATION", "RabbitmqProvisioner"]

_log = logging.getLogger(__name__)

_TRUST_S: Final = 30.0  # exchanges and queues are deleted by others, too
_SECRET_READY: Final = "SecretReady"  # noqa: S105 - a condition
_DELIVERY_LIMIT: Final = "x-delivery-limit"
_OLDEST: Final = (3, 8)
_SAFE_DELAYS: Final = (3, 10)
_DELIVERY_LIMITS: Final = (4, 0)  # from then on quorum queues have one unless told otherwise
EXCHANGE_ANNOTATION: Final = "rabbitmq.eventing-mesh.dev/exchange"  # of the status: it was made


class RabbitmqProvisioner:
    """Provisions in the broker that `settings` lead to at the time of each call."""

    def __init__(self, settings: BackEndSettings) -> None:
        self._settings = settings
        self._administration: Administration | None = None
        self._notes: dict[str, str] = {}  # by queue: what is to be known of one that serves all the same

    async def ensure(self, channel: Object) -> Provisioned:
        """The exchange is there, and the queues of the subscriptions that the data plane knows are there and bound to it."""
        name = exchange_of(channel)
        try:
            administration = await self._present()
        except SettingsError as error:
            return Provisioned(False, error.reason, str(error), step=_SECRET_READY)
        try:
            version = await administration.version()
            if version < _OLDEST:
                message = f"RabbitMQ {_text(version)} at {administration.settings.where} is too old: quorum queues begin with 3.8"
                return Provisioned(False, "UnsupportedVersion", message)
            await administration.declare_exchange(name)
            for subscriber in read_subscribers(channel):
                await self._ensure_known(administration, channel, subscriber, version)
        except RabbitmqError as error:
            if error.code != PRECONDITION_FAILED:
                return Provisioned(False, error.reason, str(error))
            message = (
                f"there is another exchange {name}, which is left as it is: {error}; delete it, or name the channel otherwise"
            )
            return Provisioned(False, "ExchangeMismatch", message)
        queues = [queue_of(channel, subscriber.uid) for subscriber in read_subscribers(channel)]
        notes = [_lacks(version, queue_type(channel)), *(self._notes.get(queue, "") for queue in queues)]
        message = "; ".join(filter(None, notes))
        return Provisioned(True, "", message, annotations={EXCHANGE_ANNOTATION: name}, trust_s=_TRUST_S)

    async def remove(self, channel: Object) -> None:
        """Delete the queues of the channel's subscriptions, then the exchange. Raises SettingsError or RabbitmqError."""
        uids = _subscribers_of(channel)
        made = ((channel.get("status") or {}).get("annotations") or {}).get(EXCHANGE_ANNOTATION)
        if not (uids or made):
            return  # nothing was ever made, and RabbitMQ need not be there for that
        administration = await self._present()
        for uid in sorted(uids):
            self._notes.pop(queue_of(channel, uid), None)
            await _delete_queues(administration, queue_of(channel, uid))
        await administration.delete_exchange(exchange_of(channel))

    async def ensure_subscription(self, channel: Object, subscriber: Subscriber) -> Provisioned:
        """The subscription's queue is there and bound: what is published from now on is due to it (C-02)."""
        try:
            administration = await self._present()
            version = await administration.version()
            await administration.declare_exchange(exchange_of(channel))
            said = await _ensure_queue(administration, channel, subscriber, version)
        except (SettingsError, RabbitmqError) as error:
            return Provisioned(False, error.reason, str(error))
        queue = queue_of(channel, subscriber.uid)
        if said.ready and said.message:
            self._notes[queue] = said.message
        else:
            self._notes.pop(queue, None)
        return said

    async def remove_subscription(self, channel: Object, subscription_uid: str) -> None:
        """Delete the subscription's queues with what is in them. Raises as `remove` does."""
        queue = queue_of(channel, subscription_uid)
        self._notes.pop(queue, None)
        await _delete_queues(await self._present(), queue)

    async def aclose(self) -> None:
        """Close the connection to RabbitMQ."""
        administration, self._administration = self._administration, None
        if administration is not None:
            await administration.aclose()

    async def _ensure_known(
        self, administration: Administration, channel: Object, subscriber: Subscriber, version: tuple[int, ...]
    ) -> None:
        """A queue that the data plane reads is bound still; if it is gone it is made again."""
        queue = queue_of(channel, subscriber.uid)
        try:
            await administration.bind(queue, exchange_of(channel))
        except RabbitmqError as error:
            if error.code != NOT_FOUND:
                raise
            _log.warning("the queue of a subscription is gone, with the events in it, and is made anew", extra={"queue": queue})
            await _ensure_queue(administration, channel, subscriber, version)

    async def _present(self) -> Administration:
        settings = RabbitmqSettings.read(self._settings)
        before = self._administration
        if before is not None and before.settings == settings:
            return before
        made = self._administration = Administration(settings)
        if before is not None:
            await before.aclose()
        return made


async def _ensure_queue(
    administration: Administration, channel: Object, subscriber: Subscriber, version: tuple[int, ...]
) -> Provisioned:
    queue = queue_of(channel, subscriber.uid)
    wanted = queue_arguments(channel, subscriber, no_delivery_limit=version >= _DELIVERY_LIMITS)
    said = Provisioned(True)
    try:
        await administration.declare_queue(queue, wanted)
    except RabbitmqError as error:
        if error.code != PRECONDITION_FAILED:
            raise
        said = await _other_queue(administration, queue, wanted, error, ordered=is_ordered(subscriber))
    if said.ready:
        await administration.bind(queue, exchange_of(channel))
    return said


async def _other_queue(
    administration: Administration, queue: str, wanted: dict[str, object], refusal: RabbitmqError, *, ordered: bool
) -> Provisioned:
    """A queue was made with other arguments, which are for life. Can it do what is asked of it all the same?"""
    for arguments, message in _serving(queue, wanted, administration.settings.vhost, ordered=ordered):
        try:
            await administration.declare_queue(queue, arguments)
        except RabbitmqError as error:
            if error.code != PRECONDITION_FAILED:
                raise
            continue
        return Provisioned(True, "", message)
    message = f"there is another queue {queue}, which is left as it is: {refusal}; delete it, or make the Subscription again"
    return Provisioned(False, "QueueMismatch", message)


def _serving(queue: str, wanted: dict[str, object], vhost: str, *, ordered: bool) -> Iterator[tuple[dict[str, object], str]]:
    """Arguments with which a queue serves too, and what is to be known then."""
    of_other_order = {name: value for name, value in wanted.items() if name != SINGLE_CONSUMER}
    text = ""  # where order is asked for now the data plane keeps it
    if not ordered:
        of_other_order[SINGLE_CONSUMER] = True
        text = (
            f"queue {queue} was made for one consumer at a time (concurrency 1), so that one data-plane process serves it and "
            "the others wait; to change that, make the Subscription again under another name"
        )
    yield of_other_order, text
    if _DELIVERY_LIMIT in wanted:
        where = f" -p {shlex.quote(vhost)}" if vhost != "/" else ""
        policy = "no-delivery-limit '^rabbitmq\\.' '{\"delivery-limit\": -1}' --apply-to quorum_queues"
        limited = (
            f"queue {queue} was made before RabbitMQ 4, which drops an event after 20 deliveries unless a policy says otherwise: "
            f"rabbitmqctl set_policy{where} {policy}"
        )
        for arguments, message in ((wanted, ""), (of_other_order, text)):
            without = {name: value for name, value in arguments.items() if name != _DELIVERY_LIMIT}
            yield without, "; ".join(filter(None, (message, limited)))


async def _delete_queues(administration: Administration, queue: str) -> None:
    for name in (queue, *delay_queues(queue)):
        await administration.delete_queue(name)


def _lacks(version: tuple[int, ...], kind: str) -> str:
    """What this version does not do for the channel, "" if nothing."""
    if kind == QUORUM and version < _SAFE_DELAYS:
        return (
            f"RabbitMQ {_text(version)} moves events between queues at most once: one that waits long for its next attempt may "
            "be lost when a node dies; from 3.10 on it may not"
        )
    return ""


def _text(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def _subscribers_of(channel: Object) -> set[str]:
    parts = (channel.get("spec") or {}), (channel.get("status") or {})
    return {entry["uid"] for part in parts for entry in part.get("subscribers") or () if entry.get("uid")}
