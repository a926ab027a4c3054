"""What is in force in this process: the channels that it serves, and a worker for each of their subscribers.

Level-triggered: `apply` brings one channel to what its object says, whatever was before.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from eventing.channels import BackEndSettings, Budget, Channel, ChannelFactory, ChannelHost, Cursor, Lag, Order
from eventing.dataplane.unserved import UnservedChannel
from eventing.delivery.connections import Target, target, unreachable
from eventing.delivery.policy import Policy
from eventing.delivery.traced import TracedWorker
from eventing.delivery.worker import Delivery, Engine, SubscriptionWorker
from eventing.errors import InvalidObjectError
from eventing.ingress.routes import Route, Routes
from eventing.journal.standing import Situation
from eventing.observe.metrics import ChannelMetrics, SubscriptionMetrics
from eventing.observe.redaction import redacted
from eventing.observe.scrape import Figures
from eventing.resources.dataplane import needs_one_worker
from eventing.resources.kinds import Kind, Object
from eventing.resources.subscribers import JOURNAL_DATA_ANNOTATION, Subscriber, read_subscribers

__all__ = ["ChannelTable", "Served", "channel_key"]

log = logging.getLogger(__name__)


def channel_key(kind: Kind, namespace: str, name: str) -> str:
    """How a channel is named in a DataPlane's status: PLURAL.GROUP/NAMESPACE/NAME."""
    return f"{kind.plural}.{kind.group}/{namespace}/{name}"


@dataclass(slots=True)
class Served:
    """One channel in force."""

    key: str
    uid: str
    created: tuple[str, str]  # creation time and kind: who comes first owns the address
    channel: Channel
    route: Route
    factory: ChannelFactory
    spec: Object | None = None  # as last applied, while one of its subscribers is leaving
    generation: int = 0
    subscribers: dict[str, Subscriber] = field(default_factory=dict)
    workers: dict[str, SubscriptionWorker] = field(default_factory=dict)
    leaving: dict[str, SubscriptionWorker] = field(default_factory=dict)  # removed, and not detached yet

    def behind(self, events: int) -> bool:
        """Whether each of its subscriptions, and there are some, has more than so many events before it."""
        return bool(self.workers) and all((worker.lag().events or 0) > events for worker in self.workers.values())


class ChannelTable:
    """All channels of this process. `stop_s` bounds how long a removed subscriber's last attempts may take; `settings` are what
    the back ends are set up with, by name; `process` is the name of this process among the `workers` that serve the same
    channels. Where there are several, a channel that lives in one process is not served: its producers are answered 503."""

    def __init__(
        self,
        *,
        engine: Engine,
        routes: Routes,
        budget: Budget,
        clock: Callable[[], float],
        stop_s: float = 60.0,
        settings: Mapping[str, BackEndSettings] | None = None,
        process: str = "",
        workers: int = 1,
    ) -> None:
        self._engine = engine
        self._routes = routes
        self._budget = budget
        self._clock = clock
        self._stop_s = stop_s
        self._settings = settings or {}
        self._process = process
        self._workers = workers
        self._served: dict[str, Served] = {}
        self._ending: set[SubscriptionWorker] = set()
        self.unapplied: dict[str, str] = {}  # channels whose objects are at fault, and how
        self.removed: Counter[tuple[str, str]] = Counter()  # ends of events at subscriptions that are gone

    def apply(self, key: str, factory: ChannelFactory, channel: Object | None) -> None:
        """Bring the channel to what its object says; None: it is gone.

        What comes is in force when this returns. What goes gets nothing new from now on, and ends in the background: attempts
        under way are finished, the rest is dropped with a reason.
        """
        served = self._served.get(key)
        self.unapplied.pop(key, None)
        if channel is not None and channel["metadata"].get("deletionTimestamp"):
            channel = None
        if served is not None and (channel is None or channel["metadata"]["uid"] != served.uid):
            self._remove(served)
            served = None
        if channel is None:
            return
        try:
            subscribers = read_subscribers(channel)
        except InvalidObjectError as error:
            # Admission lets no such through. Should one come all the same, what was in force stays in force.
            log.error("channel cannot be applied", extra={"channel": key, "error": str(error)})
            self.unapplied[key] = str(error)
            return
        if served is None:
            served = self._open(key, factory, channel)
        else:
            served.channel.configure(channel)
        if isinstance(served.channel, UnservedChannel):
            return
        self._subscribe(served, subscribers, channel["metadata"].get("annotations") or {})
        # Decoded objects are large, and this process may serve thousands of channels.
        served.spec = channel if served.leaving else None
        served.generation = int(channel["metadata"].get("generation", 1))

    def _open(self, key: str, factory: ChannelFactory, channel: Object) -> Served:
        metadata = channel["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        if factory.missing:
            opened: Channel = UnservedChannel(factory.missing)
        elif factory.shared or self._workers == 1:
            opened = factory.open(channel, self._host(factory))
        else:
            opened = UnservedChannel(needs_one_worker(factory.kind, self._workers))
        route = Route(f"{namespace}/{name}", opened, ChannelMetrics(namespace, name))
        created = (metadata.get("creationTimestamp", ""), factory.kind.kind)
        served = Served(key, metadata["uid"], created, opened, route, factory)
        route.behind = served.behind
        self._served[key] = served
        self._address(route.name)
        return served

    def _host(self, factory: ChannelFactory) -> ChannelHost:
        settings = self._settings.get(factory.name) or BackEndSettings()
        journal = self._engine.journal
        return ChannelHost(self._budget, self._clock, settings, self._process, journal.prefix, journal.knows)

    def _address(self, name: str) -> None:
        """Give the address `/NAMESPACE/NAME` to the channel that came first (docs/architecture.md, "Addresses")."""
        claims = [served for served in self._served.values() if served.route.name == name]
        if claims:
            self._routes.add(min(claims, key=lambda served: served.created).route)

    def _subscribe(self, served: Served, subscribers: tuple[Subscriber, ...], annotations: Mapping[str, str]) -> None:
        wanted = {subscriber.uid: subscriber for subscriber in subscribers}
        for uid in [uid for uid in served.workers if uid not in wanted]:
            del served.subscribers[uid]
            worker = served.leaving[uid] = served.workers.pop(uid)
            worker.leave("SubscriptionDeleted")
            self._engine.tasks.create_task(self._leave(served, worker))
        starting: list[tuple[SubscriptionWorker, Cursor]] = []
        for uid, subscriber in wanted.items():
            if served.subscribers.get(uid) == subscriber or uid in served.leaving:
                continue
            delivery = _delivery(subscriber, served.channel.order(subscriber))
            known = served.workers.get(uid)
            if known is not None:
                known.update(delivery)
            else:
                metrics = SubscriptionMetrics(subscriber.namespace, served.route.metrics.name, subscriber.name or uid)
                worker = self._worker(uid, delivery, metrics)
                cursor = served.channel.attach(subscriber, worker, order=delivery.order)
                starting.append((worker, cursor))
                served.workers[uid] = worker
            served.subscribers[uid] = subscriber
        due = tuple(worker.number for worker in served.workers.values())
        journal = self._engine.journal
        journal.forget_place(served.route.place)
        served.route.place = journal.place(served.route.name, due, data=annotations.get(JOURNAL_DATA_ANNOTATION) != "omit")
        for worker, cursor in starting:  # what it takes at once may be recorded as of this place
            worker.start(cursor, durable=served.channel.capabilities.durable)

    def _worker(self, uid: str, delivery: Delivery, metrics: SubscriptionMetrics) -> SubscriptionWorker:
        spans = self._engine.spans
        if spans is None:
            return SubscriptionWorker(self._engine, uid, delivery, metrics)
        return TracedWorker(self._engine, uid, delivery, metrics, spans=spans)

    def _remove(self, served: Served) -> None:
        del self._served[served.key]
        self._routes.remove(served.route)
        self._engine.journal.close_place(served.route.place)
        self._address(served.route.name)
        for worker in served.workers.values():
            worker.leave("ChannelDeleted")
        self._engine.tasks.create_task(self._close(served))

    async def _close(self, served: Served) -> None:
        async with asyncio.TaskGroup() as tasks:
            for worker in served.workers.values():
                tasks.create_task(self._stop(worker, "ChannelDeleted"))
        await served.channel.aclose(self._clock() + self._stop_s)

    async def _stop(self, worker: SubscriptionWorker, discard: str) -> None:
        self._ending.add(worker)
        await worker.stop(discard, self._clock() + self._stop_s)
        self._ending.discard(worker)
        self.removed.update(worker.metrics.ends)

    async def _leave(self, served: Served, worker: SubscriptionWorker) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stop(worker, "SubscriptionDeleted"))
            await worker.detached.wait()
            del served.leaving[worker.uid]
            if self._served.get(served.key) is served and served.spec is not None:
                # It may be wanted again: then it is a new one, and could not be attached beside the old.
                self.apply(served.key, served.factory, served.spec)

    def applied(self, key: str) -> tuple[str, int] | None:
        """UID and generation in force, None where the channel is not served."""
        served = self._served.get(key)
        return (served.uid, served.generation) if served and not isinstance(served.channel, UnservedChannel) else None

    @property
    def unserved(self) -> list[str]:
        """The channels, NAMESPACE/NAME, whose producers are turned away: they live in one process, and there are several."""
        return [served.route.name for served in self._served.values() if isinstance(served.channel, UnservedChannel)]

    @property
    def channels(self) -> int:
        """How many are in force."""
        return len(self._served) - len(self.unserved)

    @property
    def subscriptions(self) -> int:
        """How many are in force."""
        return sum(len(served.workers) for served in self._served.values())

    def channel_metrics(self) -> Iterator[ChannelMetrics]:
        """Safe to be walked while channels come and go, as `figures` is."""
        return (served.route.metrics for served in list(self._served.values()))

    def figures(self) -> Iterator[Figures]:
        """Of every subscription in force."""
        for served in list(self._served.values()):
            for worker in list(served.workers.values()):
                lag = worker.lag()
                yield worker.metrics, worker.in_flight, lag.events or 0, lag.bytes, lag.oldest_s

    def lags(self, durable_only: bool) -> Iterator[tuple[str, str, bool, Lag]]:
        """Of every subscription in force, or of those of durable channels: uid, NAMESPACE/NAME, whether durable, lag."""
        for served in self._served.values():
            durable = served.channel.capabilities.durable
            if durable or not durable_only:
                for uid, worker in served.workers.items():
                    yield uid, worker.delivery.subscription, durable, worker.lag()

    def situation(self, subscription: str) -> Situation | None:
        """How the Subscription NAMESPACE/NAME stands here; None where it is not in force."""
        for served in self._served.values():
            for worker in served.workers.values():
                delivery = worker.delivery
                if delivery.subscription == subscription:
                    lag = worker.lag()
                    return Situation(
                        number=worker.number,
                        channel=served.route.name,
                        pending=worker.pending,
                        pending_bytes=lag.bytes,
                        oldest_s=lag.oldest_s,
                        in_flight=worker.in_flight,
                        concurrency=delivery.concurrency,
                        retry=delivery.policy.retry,
                        timeout_s=delivery.policy.timeout_s,
                        dead_letter_sink=redacted(delivery.dead_letter.url) if delivery.dead_letter else "",
                    )
        return None

    @property
    def pending(self) -> int:
        """Events without an end in all channels that are not durable."""
        return sum(
            worker.pending
            for served in self._served.values()
            if not served.channel.capabilities.durable
            for worker in served.workers.values()
        )

    def dropped(self, reason: str) -> int:
        """How many events were dropped with this reason at the subscriptions in force."""
        workers = (worker for served in self._served.values() for worker in served.workers.values())
        return sum(worker.metrics.ends.get(("dropped", reason), 0) for worker in workers)

    async def aclose(self, deadline: float, *, grace_s: float = 0.0) -> None:
        """Stop every worker by `deadline` and close every channel. What volatile channels still hold then goes to
        dead-letter sinks, which have `grace_s` seconds for it, or ends with reason Shutdown."""
        async with asyncio.TaskGroup() as tasks:
            for served in list(self._served.values()):
                discard = "" if served.channel.capabilities.durable else "Shutdown"
                for worker in served.workers.values():
                    tasks.create_task(worker.stop(discard, deadline, grace_s=grace_s))
                for worker in served.leaving.values():  # removed in this very moment: closing the channel would not say why
                    tasks.create_task(worker.stop("SubscriptionDeleted", deadline, grace_s=grace_s))
        for served in list(self._served.values()):
            await served.channel.aclose(deadline)
        for worker in self._ending:  # of what was deleted shortly before
            worker.give_up()


def _delivery(subscriber: Subscriber, order: Order) -> Delivery:
    options = subscriber.delivery
    namespace = subscriber.namespace

    def place(url: str | None, ca_certs: str | None, *, reply: bool = False) -> Target | None:
        try:
            return target(url, namespace=namespace, ca_certs=ca_certs or "", reply=reply) if url else None
        except ValueError as error:
            return unreachable(url or "", str(error))

    # Prefer: reply goes to every subscriber, also where no reply address exists (Knative's data-plane specification).
    endpoint = place(subscriber.subscriber_uri, subscriber.subscriber_ca_certs, reply=True)
    reply = place(subscriber.reply_uri, subscriber.reply_ca_certs)
    if endpoint is None:  # without a subscriber the event itself goes to the reply address (Knative's channels do so)
        endpoint, reply = reply or unreachable("", "the subscription has neither subscriber nor reply"), None
    return Delivery(
        subscription=f"{namespace}/{subscriber.name or subscriber.uid}",
        subscriber=endpoint,
        reply=reply,
        dead_letter=place(options.dead_letter_uri, options.dead_letter_ca_certs),
        policy=Policy(
            retry=options.retry,
            timeout_s=options.timeout_s,
            backoff_policy=options.backoff_policy,
            backoff_delay_s=options.backoff_delay_s,
            retry_after_max_s=options.retry_after_max_s,
        ),
        format=options.format or "",
        concurrency=subscriber.concurrency,
        order=order,
    )
