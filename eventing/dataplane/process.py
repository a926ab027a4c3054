"""One data-plane process: start, serve, drain.

Start: register with the control plane → follow the channels → apply what is there → accept events → ready.
Stop: accept nothing new → finish or release what is in flight, within the deadline → let go of the channels → close. The order
is what keeps the promises: nothing is accepted that could not be kept, nothing is let go of before its end is recorded.
"""

import asyncio
import logging
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eventing.channels import Budget, ChannelFactory
from eventing.dataplane.admin import Admin, AdminNames
from eventing.dataplane.lag import BEHIND_S, EVERY_S, LagWatch
from eventing.dataplane.queries import Queries
from eventing.dataplane.readiness import Phase, Readiness
from eventing.dataplane.report import Reporter
from eventing.dataplane.table import ChannelTable, channel_key
from eventing.delivery.addresses import AddressGuard
from eventing.delivery.connections import Connections
from eventing.delivery.spans import AttemptSpans
from eventing.delivery.worker import Engine
from eventing.ingress.pace import Pace
from eventing.ingress.receiver import Receiver
from eventing.ingress.routes import Routes
from eventing.ingress.traced import TracedReceiver
from eventing.journal import Journal
from eventing.journal.failures import FailureLog
from eventing.kube import Cache, Change, KubeClient, SettingsFollower
from eventing.observe.exposition import DataPlaneCollector, registry
from eventing.observe.metrics import IngressMetrics
from eventing.observe.scrape import Scrape
from eventing.observe.traces import Tracing
from eventing.wire.client import ClientLimits
from eventing.wire.server import HttpServer, ServerLimits
from eventing.wire.shared_listener import Loads

__all__ = ["DataPlane", "DataPlaneSettings"]

log = logging.getLogger(__name__)

ENDS_S = 1.0  # closed connections are gone in the next turn of the loop
SPANS_S = 2.0  # at the end, for the spans that wait


@dataclass(frozen=True, slots=True)
class DataPlaneSettings:
    """Bounds of one data-plane process; sizes in bytes, times in seconds."""

    workers: int = 1  # processes that serve the same channels; with several, those that live in one process are not served
    drain_s: float = 10.0  # from the order to stop until what is pending is dead-lettered or recorded as dropped
    memory_bytes: int = 64 << 20  # of all events in in-memory channels; beyond it the ingress answers 503
    server: ServerLimits = field(default_factory=ServerLimits)
    guard: AddressGuard = field(default_factory=AddressGuard)
    journal: bool = True
    failures: Path | None = None  # directory in which failed events are recorded; None: they are not
    lag_every_s: float = EVERY_S  # who is behind is looked at so often, and has an event that is as old as `behind_s`
    behind_s: float = BEHIND_S


class DataPlane:
    """The data plane of one process. `ingress` and `admin` are bound sockets; `token` opens the journal's answers. `loads` are
    given where other processes accept from `ingress`, too."""

    def __init__(
        self,
        *,
        name: str,
        client: KubeClient,
        factories: Mapping[str, ChannelFactory],
        ingress: socket.socket,
        admin: socket.socket,
        token: str,
        settings: DataPlaneSettings | None = None,
        tls: ssl.SSLContext | None = None,
        tracing: Tracing | None = None,
        loads: Loads | None = None,
    ) -> None:
        self._name = name
        self._loads = loads
        self._client = client
        self._factories = factories
        self._sockets = ingress, admin
        self._token = token
        self._settings = settings or DataPlaneSettings()
        self._tls = tls
        self._tracing = tracing

    async def run(self, *, started: Callable[[], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain and return. `started` is called once events are accepted."""
        settings = self._settings
        clock = time.monotonic
        async with asyncio.TaskGroup() as tasks:
            journal = Journal(clock=clock, wall=time.time, enabled=settings.journal)
            # A reply is an event, and may be as large as one.
            limits = ClientLimits(body_bytes=settings.server.body_bytes)
            connections = Connections(tasks, guard=settings.guard, limits=limits)
            tracing = self._tracing
            spans = AttemptSpans(tracing, journal.receipt_text) if tracing is not None else None
            engine = Engine(journal=journal, connections=connections, tasks=tasks, spans=spans)
            budget = Budget(settings.memory_bytes)
            routes = Routes()
            followers = {
                factory.name: SettingsFollower(self._client, factory.config_map)
                for factory in self._factories.values()
                if factory.config_map
            }
            table = ChannelTable(
                engine=engine,
                routes=routes,
                budget=budget,
                clock=clock,
                settings={name: follower.settings for name, follower in followers.items()},
                process=self._name,
                workers=settings.workers,
            )
            failures = self._failures(journal, tasks)
            readiness = Readiness(table=table, budget=budget, client=self._client, tracing=tracing)
            ingress = IngressMetrics()
            pace = Pace()
            receiver = (
                Receiver(routes, journal, metrics=ingress, pace=pace)
                if tracing is None
                else TracedReceiver(
                    routes, journal, metrics=ingress, pace=pace, tracing=tracing, scheme="https" if self._tls else "http"
                )
            )
            server = HttpServer(
                receiver,
                limits=settings.server,
                names=connections.names,
                refused=receiver.refused,
            )
            collector = DataPlaneCollector(
                removed=table.removed,
                ingress=ingress,
                tracing=tracing,
                figures=lambda: {
                    "eventing_ingress_connections": len(server.connections),
                    "eventing_delivery_connections": connections.open_connections,
                    "eventing_channel_memory_bytes": budget.recount(),
                    "eventing_channel_memory_limit_bytes": budget.limit,
                    "eventing_dataplane_channels": table.channels,
                    "eventing_dataplane_subscriptions": table.subscriptions,
                    "eventing_ingress_accepted_connections": server.accepted_total,
                    "eventing_journal_events": journal.accepted_events,
                    "eventing_log_unlisted_failures": engine.failure_lines.unlisted,
                    "eventing_journal_attempts": journal.attempts_written,
                    "eventing_journal_failures_written": journal.failures_written,
                    "eventing_journal_failures_lost": journal.failures_lost,
                    "eventing_journal_overwritten_attempts": journal.attempts_kept_from,
                    "eventing_journal_overwritten_events": journal.acceptances_kept_from,
                },
            )
            rest = registry("dataplane", collector)
            scrape = Scrape(channels=table.channel_metrics, subscriptions=table.figures, rest=rest)
            queries = Queries(journal=journal, table=table, failures=failures, token=self._token, tasks=tasks)
            admin = HttpServer(
                Admin(scrape=scrape, tasks=tasks, queries=queries, health=readiness.health),
                names=AdminNames(),
                methods="GET, HEAD",
            )
            await admin.start(self._sockets[1])
            reporter = Reporter(self._client, name=self._name, instance=secrets.token_hex(8))
            following = tasks.create_task(self._follow(table, reporter, server, readiness, followers.values(), started))
            watching = tasks.create_task(self._watch_lag(table, journal, reporter))
            pace.start()
            await stop.wait()

            pace.close()
            readiness.phase = Phase.STOPPING
            deadline = clock() + settings.drain_s
            following.cancel()
            watching.cancel()
            await server.stop_accepting()
            await server.aclose(min(2.0, settings.drain_s / 2))
            await _drained(table, deadline)
            await table.aclose(deadline, grace_s=min(2.0, settings.drain_s / 2))
            connections.close()
            await _ended(connections, clock() + ENDS_S)
            if dropped := table.dropped("Shutdown"):
                log.warning("events were dropped with reason Shutdown; eventing trace knows which", extra={"events": dropped})
            engine.failure_lines.flush()
            await queries.aclose()
            await admin.aclose()
            if tracing is not None:
                await asyncio.to_thread(tracing.close, SPANS_S)
            if failures is not None:  # last: what could not be delivered is written down
                await failures.aclose(min(3.0, settings.drain_s / 2))

    async def _watch_lag(self, table: ChannelTable, journal: Journal, reporter: Reporter) -> None:
        """Report who is behind, for ever."""
        settings = self._settings

        def stirred() -> object:
            return (journal.accepted_events, journal.attempts_written) if journal.enabled else object()

        watch = LagWatch(table.lags, stirred, wall=time.time, behind_s=settings.behind_s)
        while True:
            await asyncio.sleep(settings.lag_every_s)
            reporter.behind(await watch.changes())

    def _failures(self, journal: Journal, tasks: asyncio.TaskGroup) -> FailureLog | None:
        directory = self._settings.failures
        if directory is None or not self._settings.journal:
            return None
        failures = FailureLog(directory, journal)
        failures.open()
        failures.start(tasks)
        return failures

    async def _follow(
        self,
        table: ChannelTable,
        reporter: Reporter,
        server: HttpServer,
        readiness: Readiness,
        followers: Collection[SettingsFollower],
        started: Callable[[], None],
    ) -> None:
        async with asyncio.TaskGroup() as tasks:
            await reporter.register()
            for follower in followers:
                tasks.create_task(follower.run())
            for follower in followers:  # before the channels that need them
                await follower.synced()
            caches = []
            for factory in self._factories.values():
                cache = Cache(self._client, factory.kind)
                cache.on_change(_applier(table, reporter, factory))
                tasks.create_task(cache.run())
                caches.append(cache)
            tasks.create_task(reporter.run())
            for cache in caches:
                await cache.synced()
            await server.start(self._sockets[0], self._tls, loads=self._loads)
            readiness.phase = Phase.SERVING
            started()


def _applier(table: ChannelTable, reporter: Reporter, factory: ChannelFactory) -> Callable[[Change], None]:
    def apply(change: Change) -> None:
        metadata = change.obj["metadata"]
        key = channel_key(factory.kind, metadata["namespace"], metadata["name"])
        table.apply(key, factory, None if change.type == "DELETED" else change.obj)
        reporter.applied(key, table.applied(key))

    return apply


async def _ended(connections: Connections, deadline: float) -> None:
    """Wait until what was still being attempted when its connection was closed has its end in the journal."""
    while connections.open_connections and time.monotonic() < deadline:
        await asyncio.sleep(0.01)


async def _drained(table: ChannelTable, deadline: float) -> None:
    """Wait until volatile channels hold nothing that is still pending, or the deadline."""
    pending = table.pending
    while pending and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        pending = table.pending
    if pending:
        log.warning("stopping with events pending; they are dead-lettered or recorded as dropped", extra={"events": pending})
