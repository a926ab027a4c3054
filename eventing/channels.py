"""The Channel port: what a back end must do. Clauses C-01… are in docs/decisions/0002-channel-port.md, with the evidence.

Two halves. **Provision** (`Provisioner`) makes, looks at and removes what a channel needs in the back end; the one generic
channel reconciler calls it. **Flow** (`Channel`, `Cursor`, `Lease`) moves events and runs in every data-plane process.

The flow half is called from the event loop's callbacks, so that the hot path needs no task and no future per delivery:
nothing here blocks, what may take time returns a future, and a cursor calls its consumer back when there is something to take.
Retry, time-outs and dead letters belong to the delivery worker; a back end only has to survive them.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol

from eventing.errors import StartError
from eventing.event import Event
from eventing.resources.kinds import Kind, Object
from eventing.resources.subscribers import Subscriber

__all__ = [
    "BackEndSettings",
    "Budget",
    "Capabilities",
    "Channel",
    "ChannelConditions",
    "ChannelFactory",
    "ChannelHost",
    "Configuration",
    "Consumer",
    "Cursor",
    "Lag",
    "Lease",
    "Order",
    "Provisioned",
    "Provisioner",
    "channel_factories",
    "wanted_order",
]


class Order(Enum):
    """What order a subscription asks for, and a back end can keep, also through retries (C-20)."""

    NONE = "none"
    KEY = "key"  # per `partitionkey`
    PARTITION = "partition"  # within each part into which the back end divides the channel; a key stays in one part
    SUBSCRIPTION = "subscription"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a back end declares; the contract suite tests both what is declared and that the rest is refused (C-27)."""

    durable: bool  # stored events survive the death of every process of the mesh
    orders: frozenset[Order]
    replay: bool  # a subscription can be set back to events that it has settled
    atomic_batch: bool  # False: some events of a failed batch may be stored
    max_event_bytes: int  # as stored; more is refused before anything is sent (C-08)
    max_hold_s: float | None = None  # a lease ends after this; None: it lives as long as the process
    default_order: Order = Order.NONE  # of a subscription that asks for none


def wanted_order(subscriber: Subscriber, capabilities: Capabilities) -> Order:
    """The order that a subscription gets: the one that its annotation `eventing-mesh.dev/order` names; that of the whole channel
    where it allows one delivery at a time; else the default. What the back end does not keep is passed over."""
    orders = {order.value: order for order in capabilities.orders}
    if subscriber.order in orders:
        return orders[subscriber.order]
    if subscriber.concurrency == 1 and Order.SUBSCRIPTION in capabilities.orders:
        return Order.SUBSCRIPTION
    return capabilities.default_order


class Lease:
    """One event handed to one subscription. Adapters subclass it and keep there what they need.

    It ends by `settle`, `release` or `defer`, or by being `lost`: ownership was taken away, whatever is done with it then has
    no effect. `deliveries` is a lower bound of how often the event was handed out before (C-14). `note` is what the worker
    gave to `defer`, b"" otherwise. `stored` is when this process got to know of the event, `expires` when the lease ends
    (both of the monotonic clock; None: never).
    """

    __slots__ = ("deliveries", "event", "expires", "lost", "note", "stored")

    def __init__(self, event: Event, stored: float, *, deliveries: int = 0, expires: float | None = None) -> None:
        self.event = event
        self.stored = stored
        self.deliveries = deliveries
        self.expires = expires
        self.note = b""
        self.lost = False


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a subscription is behind: stored, due to it, not settled. None where the back end cannot tell (C-23)."""

    events: int | None
    bytes: int | None
    oldest_s: float | None
    as_of: float = 0.0  # monotonic time of the figures


class Consumer(Protocol):
    """What a cursor calls, always from the loop, never from within a call on the same cursor."""

    def wake(self) -> None:
        """`take` may yield (C-11). Spurious calls are allowed."""

    def lost(self, leases: Sequence[Lease]) -> None:
        """These are no longer yours; the events come again to whoever owns them now (C-21)."""

    def evicted(self, lease: Lease, reason: str) -> None:
        """The channel, which is not durable, lets go of an event to stay within its bound (C-26): it is to end in the
        dead-letter sink or be dropped with this reason. The lease is not settled afterwards."""

    def arrived(self, event: Event, origin: str) -> None:
        """The event, about to be handed out for the first time, was not accepted by this process, or so long ago that it does not
        know that any more (`ChannelHost.knows`): give it a receipt here.

        The one call that comes from within `take`. `origin` is the text of the receipt that it was accepted with, "" where that
        is not known."""


class Cursor(Protocol):
    """One subscription's place in a channel, in this process."""

    def take(self, most: int) -> list[Any]:
        """Up to `most` leases, [] where there is nothing now. Does no I/O (C-10). The leases are the adapter's subclass."""

    def settle(self, lease: Any) -> bool:
        """The outcome is known and recorded; any order of calls (C-15). False: the lease was lost, the event may come again."""

    def release(self, lease: Any) -> bool:
        """Give back without an outcome: the event is due again at once, in its place (C-17)."""

    def defer(self, lease: Any, until: float, note: bytes = b"") -> bool:
        """Give back until `until` (monotonic clock); then the event comes again in a new lease that carries `note` (C-18)."""

    def reorder(self, order: Order) -> None:
        """The subscription asks for another order from the next `take` on. Raises ValueError as `attach` does."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def lag(self) -> Lag: ...

    async def detach(self, deadline: float, *, discard: str = "") -> None:
        """End by `deadline` (C-25): record what is settled, release the rest; leases still out become lost.

        With `discard` a channel that is not durable first hands every event that is not out to `evicted`, with that reason:
        what nobody will ask for again must not vanish unrecorded."""


class Channel(Protocol):
    """One channel object, open in this process."""

    @property
    def capabilities(self) -> Capabilities: ...

    def publish(self, events: Sequence[Event]) -> "asyncio.Future[None] | None":
        """Store a batch for all its subscriptions (C-04 to C-09). None: it is stored. A future: done when it is.

        Raises, or sets on the future: ChannelFullError, ChannelUnavailableError, EventTooLargeError."""

    def order(self, subscriber: Subscriber) -> Order:
        """The order in which this subscription is to get its events: what it asks for, else the channel's own default."""

    def attach(self, subscriber: Subscriber, consumer: Consumer, *, order: Order = Order.NONE) -> Cursor:
        """Begin to hand events to `consumer`. A volatile channel: those published from now on. A durable one: those from the
        place that `ensure_subscription` made or an earlier cursor left. Raises ValueError for an order it cannot keep."""

    def configure(self, channel: Object) -> None:
        """The channel object changed (annotations, spec): apply what can be applied."""

    async def aclose(self, deadline: float) -> None:
        """Detach every cursor and let go of the back end, by `deadline` (C-25)."""


class Budget:
    """The process-wide bound on the bytes of events held in memory; shared by the channels that hold them there.

    `used` is what they hold at most: a channel adds what it stores at once and takes off what is gone when it counts again,
    which `admits` asks all of them to do before it says no.
    """

    __slots__ = ("_recounts", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._recounts: list[Callable[[], None]] = []

    def join(self, recount: Callable[[], None]) -> None:
        """A channel takes part; `recount` brings its share of `used` up to date."""
        self._recounts.append(recount)

    def leave(self, recount: Callable[[], None]) -> None:
        self._recounts.remove(recount)

    def recount(self) -> int:
        """What is held now, exactly."""
        for recount in self._recounts:
            recount()
        return self.used

    def admits(self, size: int) -> bool:
        """Whether `size` bytes more are within the bound."""
        return self.used + size <= self.limit or self.recount() + size <= self.limit


class BackEndSettings:
    """What a back end is set up with: the data of its ConfigMap, and of the Secret that this names; both may change any time.

    `config` is None where there is no such ConfigMap; `secret` where none is named, or the named one does not exist.
    """

    def __init__(
        self, config: Mapping[str, str] | None = None, secret: Mapping[str, bytes] | None = None, secret_name: str = ""
    ) -> None:
        self.config = config
        self.secret = secret
        self.secret_name = secret_name  # NAMESPACE/NAME as named by the ConfigMap, "" where it names none
        self._told: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<BackEndSettings secret={self.secret_name!r}>"

    def change(self, config: Mapping[str, str] | None, secret: Mapping[str, bytes] | None, secret_name: str) -> None:
        """Called by whoever follows the objects; tells everybody if it is news."""
        if (config, secret, secret_name) == (self.config, self.secret, self.secret_name):
            return
        self.config, self.secret, self.secret_name = config, secret, secret_name
        for told in list(self._told):
            told()

    def on_change(self, told: Callable[[], None]) -> Callable[[], None]:
        """Call `told` at every change from now on, from the loop; what is returned ends it."""
        self._told.append(told)
        return lambda: self._told.remove(told)


@dataclass(frozen=True, slots=True)
class ChannelHost:
    """What a process lends to the channels that it opens."""

    budget: Budget
    clock: Callable[[], float]
    settings: BackEndSettings = field(default_factory=BackEndSettings)
    process: str = ""  # its name among those that serve the same channels
    receipts: str = ""  # what the texts of its receipts begin with: the one of an event is RECEIPTS-NUMBER
    knows: Callable[[int], bool] = lambda receipt: True  # whether it still knows what it gave this number for


@dataclass(frozen=True, slots=True)
class ChannelConditions:
    """How a kind of channel names what the mesh finds out about it. Each is a condition that gates Ready."""

    provision: tuple[str, ...] = ("ChannelServiceReady",)  # the steps of `ensure`, in their order
    served: tuple[str, ...] = ("EndpointsReady",)  # every data-plane process has applied the channel
    unserved_reason: str = "DispatcherEndpointsNotReady"  # of `served`, where no data-plane process runs
    always: tuple[str, ...] = ("ServiceReady",)  # what takes Knative a step and the mesh none


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the objects hold that set a back end up: the data of its `config_map`, and of the Secret that those name, if any."""

    config: Mapping[str, str]
    secret_name: str = ""
    secret: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What `ensure` made or found: ready True or False, None where it is not known yet; a reason in CamelCase, a message for
    people."""

    ready: bool | None
    reason: str = ""
    message: str = ""
    step: str = ""  # which of the kind's `ChannelConditions.provision` speaks; "": the last
    annotations: Mapping[str, str] = field(default_factory=dict)  # of the status; what was there under other names stays
    trust_s: float = 600.0  # how long this is taken for true before `ensure` is called again


class Provisioner(Protocol):
    """The provision half. Everything is idempotent and level-triggered: called again whenever in doubt."""

    async def ensure(self, channel: Object) -> Provisioned:
        """Make what the channel needs, or look whether it is there. `status.annotations` hold what it has said before."""

    async def remove(self, channel: Object) -> None:
        """The channel is being deleted: remove what was made for it, its subscriptions' part too (C-03). Raises EventingError
        where that does not succeed now; called again until it returns."""

    async def ensure_subscription(self, channel: Object, subscriber: Subscriber) -> Provisioned:
        """After True, every event whose publish begins later, in any process, is due to this subscription (C-02)."""

    async def remove_subscription(self, channel: Object, subscription_uid: str) -> None:
        """Remove what was made for the subscription. Raises as `remove` does."""

    async def aclose(self) -> None: ...


class ChannelFactory(Protocol):
    """What the entry point of a back end names (group `eventing.channels`)."""

    @property
    def name(self) -> str: ...

    @property
    def external(self) -> bool:
        """Whether a channel leaves something outside the mesh that must be removed with it: then it gets a finalizer."""

    @property
    def missing(self) -> str:
        """What keeps it from opening channels in this installation, and the command that helps; "" where nothing does.

        Its kind is served all the same, and this is said to those who make a channel of it; `provisioner` and `open` are not
        called then."""

    @property
    def kind(self) -> Kind:
        """The kind of channel object that this back end serves."""

    @property
    def conditions(self) -> ChannelConditions:
        """The names of its channels' conditions."""

    @property
    def shared(self) -> bool:
        """Whether several data-plane processes may serve the same channel."""

    @property
    def config_map(self) -> str:
        """The ConfigMap in the mesh's own namespace that the back end is set up with; "" where it needs none."""

    @property
    def options(self) -> frozenset[str]:
        """Annotations of a Subscription that this back end reads, beside those that begin with `eventing-mesh.dev/`."""

    def configuration(self, address: str) -> Configuration:
        """What leads to the back end at `address`, as it is given at the command line. Raises ValueError saying what is wrong
        with it, or that this back end is found in no such way; the text does not repeat what may be a password."""

    def provisioner(self, settings: BackEndSettings) -> Provisioner: ...

    def open(self, channel: Object, host: ChannelHost) -> Channel:
        """Open the channel in this process. Does not wait for the back end."""


@cache
def channel_factories() -> Mapping[str, ChannelFactory]:
    """Every installed back end by its name. Raises StartError naming the one that cannot be loaded."""
    found: dict[str, ChannelFactory] = {}
    for entry_point in entry_points(group="eventing.channels"):
        try:
            found[entry_point.name] = entry_point.load()
        except ImportError as error:
            raise StartError(
                f"the channel back end {entry_point.name!r} ({entry_point.value}) cannot be loaded: {error}; "
                f"install it with: pip install 'eventing-mesh[{entry_point.name}]'"
            ) from error
    if not found:
        raise StartError("no channel back end is installed; run: pip install -e .")
    return found
