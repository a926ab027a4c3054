"""Subscriptions and channels that are changed through the API while events come in, and what is due to whom meanwhile.

What the mesh promises (docs/architecture.md, docs/delivery.md: Ready means that every event accepted from now on is due; an edit applies from the next attempt; a
deletion drops what is pending; a recreated Subscription is a new one) is written down as it is observed, by the numbers of events:
each Subscription has a timeline of no / may / due, each of its addresses a number from which nothing may reach it any more.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from eventing.errors import ApiError, ApiUnavailableError, ObjectExistsError, ObjectNotFoundError
from eventing.kube import KubeClient
from eventing.resources.conditions import is_ready
from eventing.resources.dataplane import DATA_PLANE, DATA_PLANE_NAMESPACE
from eventing.resources.kinds import Kind, Object
from eventing.resources.messaging import CHANNEL, SUBSCRIPTION
from eventing.testing.sinks import Sink
from eventing_memory.kind import IN_MEMORY_CHANNEL
from tests.chaos.traffic import Traffic
from tests.support.manifests import channel_object, subscription_object

__all__ = ["DELIVERY", "Changes", "Subscribed"]

T = TypeVar("T")
_PATIENCE_S: Final = 90.0
# What keeps order, and what asks for none, by the kind of the backing channel.
_ONE_AT_A_TIME: Final = {"eventing-mesh.dev/concurrency": "1"}
_ORDERED: Final[dict[str, dict[str, str]]] = {IN_MEMORY_CHANNEL.kind: _ONE_AT_A_TIME, "RabbitmqChannel": _ONE_AT_A_TIME}
_UNORDERED: Final[dict[str, dict[str, str]]] = {"KafkaChannel": {"kafka.eventing.knative.dev/delivery.order": "unordered"}}
DELIVERY: Final[Object] = {"retry": 6, "backoffPolicy": "linear", "backoffDelay": "PT0.02S", "timeout": "PT10S"}


@dataclass(slots=True)
class Subscribed:
    """One Subscription object, from its creation to its deletion."""

    name: str
    ordered: bool
    dead_letters: bool
    uid: str = ""
    timeline: list[tuple[int, str]] = field(default_factory=list)  # from this number on: no | may | due
    addresses: dict[str, int | None] = field(default_factory=dict)  # path → closed for events of this number and later
    deleted: bool = False

    def state(self, number: int) -> str:
        found = [state for since, state in self.timeline if since <= number]
        return found[-1] if found else "no"

    @property
    def dead(self) -> str:
        """Where its dead letters go."""
        return f"/dead/{self.name}-{id(self)}"

    @property
    def path(self) -> str:
        """Its present address."""
        return next(reversed(self.addresses))


class Changes:
    """What one user does to the channel that the traffic goes to, and its Subscriptions."""

    def __init__(
        self,
        client: KubeClient,
        traffic: Traffic,
        sink: Sink,
        rand: random.Random,
        *,
        backing: Kind = IN_MEMORY_CHANNEL,
        template: Object | None = None,
        delivery: Object | None = None,
    ) -> None:
        """`backing` is the kind behind the channel, asked for with the channel's `template`, or the default where that is None;
        `delivery` is what the Subscriptions have."""
        self._backing = backing
        self._template = template
        self.delivery = delivery or DELIVERY
        self._client = client
        self._traffic = traffic
        self._sink = sink
        self._rand = rand
        self._addresses = 0
        self.all: list[Subscribed] = []
        self.live: dict[str, Subscribed] = {}

    async def make_channel(self, *, ready: bool = True) -> None:
        """Make it, and wait until it takes events."""
        made = _in_default(channel_object(self._traffic.channel))
        if self._template is not None:
            made["spec"]["channelTemplate"] = self._template
        await self._patiently(lambda: self._client.create(CHANNEL, made), ObjectExistsError)
        if ready:
            await self.channel_ready()

    async def channel_ready(self) -> None:
        """Wait until the channel takes events."""
        await self._eventually(self._channel_ready, "the channel ready")

    async def delete_channel(self) -> None:
        """Delete it, and wait until its address is gone: what is pending ends there."""
        since = self._traffic.oldest_unanswered
        for each in self.live.values():
            each.timeline.append((since, "may"))
            each.deleted = True  # what is pending may be dropped
        await self._patiently(lambda: self._client.delete(CHANNEL, "default", self._traffic.channel), ObjectNotFoundError)
        self._traffic.statuses.clear()
        await self._eventually(self._address_gone, "404 at the channel's address")

    async def bring_channel_back(self) -> None:
        """A new channel of the same name: the Subscriptions that name it are due again once they are Ready."""
        await self.make_channel()
        for each in self.live.values():
            await self._eventually(partial(self._ready, each), f"{each.name} ready")
            each.timeline.append((self._traffic.next_number, "due"))

    async def subscribe(self, name: str, *, ordered: bool = False, dead_letters: bool = True) -> Subscribed:
        """Make a Subscription, and wait until it is Ready."""
        each = Subscribed(name, ordered, dead_letters)
        each.addresses[self._address(name)] = None
        each.timeline.append((self._traffic.oldest_unanswered, "may"))
        self.all.append(each)
        self.live[name] = each
        await self._patiently(lambda: self._client.create(SUBSCRIPTION, self._object(each)), ObjectExistsError)
        await self._eventually(lambda: self._ready(each), f"{name} ready")
        each.timeline.append((self._traffic.next_number, "due"))
        return each

    async def edit(self, name: str) -> None:
        """Give it another address, and wait until that is in force."""
        each = self.live[name]
        old = each.path
        each.addresses[self._address(name)] = None
        body = {"spec": self._object(each)["spec"]}
        await self._patiently(lambda: self._client.patch(SUBSCRIPTION, "default", name, body))
        await self._eventually(lambda: self._ready(each), f"{name} ready with its new address")
        each.addresses[old] = self._traffic.next_number

    async def reorder(self, name: str, *, ordered: bool) -> int:
        """Ask for order, or no more, and wait until that is in force. Every event accepted since has this number or a greater one."""
        each = self.live[name]
        (annotation,) = _ONE_AT_A_TIME
        wanted = _ONE_AT_A_TIME[annotation] if ordered else None
        body = {"metadata": {"annotations": {annotation: wanted}}}
        await self._patiently(lambda: self._client.patch(SUBSCRIPTION, "default", name, body))

        def has_it(entries: Sequence[Object]) -> bool:
            found = [(entry.get("annotations") or {}).get(annotation) for entry in entries if entry["uid"] == each.uid]
            return found == [wanted]

        await self._eventually(lambda: self._applied(has_it), f"{name} with its other order")
        return self._traffic.next_number

    async def unsubscribe(self, name: str) -> Subscribed:
        """Delete it; `gone` waits until that is in force."""
        each = self.live.pop(name)
        each.timeline.append((self._traffic.oldest_unanswered, "may"))
        each.deleted = True
        await self._patiently(lambda: self._client.delete(SUBSCRIPTION, "default", name), ObjectNotFoundError)
        return each

    async def gone(self, each: Subscribed) -> None:
        """Wait until the data plane has applied the channel without it."""
        await self._eventually(lambda: self._left(each), f"{each.name} gone from the channel")
        each.timeline.append((self._traffic.next_number, "no"))

    async def recreate(self, name: str) -> None:
        """Delete it and make one of the same name at once."""
        old = await self.unsubscribe(name)
        await self.subscribe(name, ordered=old.ordered, dead_letters=old.dead_letters)
        await self.gone(old)

    async def random(self) -> None:
        """One change of what may be changed."""
        name = self._rand.choice(sorted(self.live))
        what = self._rand.choice(["edit", "edit", "recreate", "new", "delete"])
        if what == "new" or (what == "delete" and len(self.live) < 3):
            rand = self._rand
            await self.subscribe(f"extra-{len(self.all)}", ordered=rand.random() < 0.5, dead_letters=rand.random() < 0.5)
        elif what == "delete":
            await self.gone(await self.unsubscribe(name))
        elif what == "edit":
            await self.edit(name)
        else:
            await self.recreate(name)

    # how it is observed

    def _address(self, name: str) -> str:
        self._addresses += 1
        return f"/{name}/{self._addresses}"

    def _object(self, each: Subscribed) -> Object:
        made = _in_default(subscription_object(f"{self._sink.url}{each.path}", each.name))
        made["spec"]["channel"]["name"] = self._traffic.channel
        made["metadata"]["annotations"] = (_ORDERED if each.ordered else _UNORDERED).get(self._backing.kind, {})
        delivery = dict(self.delivery)
        if each.dead_letters:
            delivery["deadLetterSink"] = {"uri": f"{self._sink.url}{each.dead}"}
        made["spec"]["delivery"] = delivery
        return made

    async def _patiently(self, call: Callable[[], Awaitable[T]], done: type[ApiError] | None = None) -> T | None:
        """Call until the API server, which may be away, has answered. `done`: the call that was not answered had been heard."""
        async with asyncio.timeout(_PATIENCE_S):
            heard = False
            while True:
                try:
                    return await call()
                except ApiUnavailableError:
                    heard = True
                    await asyncio.sleep(0.05)
                except ApiError as error:
                    if done is not None and heard and isinstance(error, done):
                        return None
                    if not error.retriable:
                        raise
                    await asyncio.sleep(0.05)

    async def _eventually(self, probe: Callable[[], Awaitable[bool]], what: str) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while True:
                    try:
                        if await probe():
                            return
                    except ApiError as error:
                        if not error.retriable:
                            raise
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not within {_PATIENCE_S} s: {what}") from None

    async def _ready(self, each: Subscribed) -> bool:
        found = await self._client.get(SUBSCRIPTION, "default", each.name)
        each.uid = found["metadata"]["uid"]
        observed = (found.get("status") or {}).get("observedGeneration")
        return is_ready(found) and observed == found["metadata"]["generation"]

    async def _channel_ready(self) -> bool:
        return is_ready(await self._client.get(CHANNEL, "default", self._traffic.channel))

    async def _address_gone(self) -> bool:
        return 404 in self._traffic.statuses

    async def _left(self, each: Subscribed) -> bool:
        return await self._applied(lambda entries: all(entry["uid"] != each.uid for entry in entries))

    async def _applied(self, wanted: Callable[[Sequence[Object]], bool]) -> bool:
        """Whether the backing channel's subscribers are as wanted, in every data-plane process."""
        backing = await self._client.get(self._backing, "default", self._traffic.channel)
        if not wanted((backing.get("spec") or {}).get("subscribers") or ()):
            return False
        planes, _ = await self._client.list(DATA_PLANE, DATA_PLANE_NAMESPACE)
        name = f"{self._backing.plural}.{self._backing.group}/default/{self._traffic.channel}"
        applied: list[Any] = [((plane.get("status") or {}).get("applied") or {}).get(name) for plane in planes]
        return bool(applied) and all(one and one["generation"] >= backing["metadata"]["generation"] for one in applied)


def _in_default(obj: Object) -> Object:
    obj["metadata"]["namespace"] = "default"
    return obj
