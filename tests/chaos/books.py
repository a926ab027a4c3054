"""The books of a mesh that is changed under load: the sink's records and the trace's answers against what was due."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from eventing.dataplane.openapi import API
from eventing.testing.ledger import Ledger
from eventing.testing.sinks import Sink
from tests.chaos.changes import Subscribed
from tests.chaos.traffic import Sent, Traffic
from tests.support.data_plane import Client

__all__ = ["Asked", "balance", "in_order_by_key"]


@dataclass(slots=True)
class Asked:
    """The trace, over HTTP."""

    port: int
    token: str

    async def trace(self, each: Sent) -> dict[str, Any]:
        """By the uid of a Subscription: what became of the event there."""
        client = Client(self.port)
        try:
            answer = await client.request("GET", f"{API}/trace/{each.receipt}", f"authorization: Bearer {self.token}")
        finally:
            await client.aclose()
        assert answer.status == 200, answer
        return {entry["uid"]: entry for match in json.loads(answer.body)["matches"] for entry in match["deliveries"]}


async def balance(
    traffic: Traffic,
    subscribed: Collection[Subscribed],
    sink: Sink,
    asked: Asked,
    *,
    drops: Collection[str],
    killed: Collection[str] = (),
    others: Collection[str] = (),
    stored: bool = False,
    within: float = 30.0,
) -> Counter[str]:
    """Wait until every delivery that is due has an end, then check the rules. Returns the ends by name.

    `killed` are data-plane processes that were not asked to stop: what they had accepted and not delivered is lost, as in-memory
    channels say, and the books count it as `lost with its process`. `others` are ids of events that came into the channel in
    another way; they are not looked at. `stored`: events outlive the process that accepted them; of one that no other process had
    read when its Subscription was deleted nobody knows.
    """

    def due(each: Sent, receiver: Subscribed) -> bool:
        return receiver.state(each.number) == "due" and each.process not in killed

    by_id = {each.id: each for each in traffic.sent}
    ends: Counter[str] = Counter()
    reasons: dict[tuple[str, str], str] = {}
    deadline = time.monotonic() + within
    while missing := _missing(traffic, subscribed, sink, reasons, killed):
        for each, receiver in missing:
            told = (await asked.trace(each)).get(receiver.uid)
            if told is not None and told["state"] == "dropped":
                reasons[receiver.name + receiver.uid, each.id] = told["reason"]
            elif told is None and stored and receiver.deleted:
                reasons[receiver.name + receiver.uid, each.id] = "SubscriptionDeleted"
            if time.monotonic() > deadline:
                raise AssertionError(f"event {each.id} was due to {receiver.name} {receiver.timeline} and is nowhere: {told}")
        await asyncio.sleep(0.02)
    ledger = Ledger()
    for each in traffic.sent:
        ledger.send(each.id, [one.name + one.uid for one in subscribed if due(each, one)])
        if each.receipt:
            ledger.acknowledge(each.id)
    for receiver in subscribed:
        name = receiver.name + receiver.uid
        for path, closed in receiver.addresses.items():
            for received in sink.at(path):
                if received.event_id in others:
                    continue
                assert received.event_id in by_id, f"{path} got an event that nobody sent: {received.event_id}"
                each = by_id[received.event_id]
                assert received.body == each.data, f"the data of event {each.id} was altered on its way to {path}"
                assert closed is None or each.number < closed, (
                    f"event {each.id} reached {path}, which was closed from {closed} on"
                )
                assert receiver.state(each.number) != "no", f"event {each.id} reached {path}: {receiver.timeline}"
            for event_id in sink.ids(path).difference(others):
                if due(by_id[event_id], receiver):
                    ledger.deliver(name, event_id)
                ends["delivered"] += 1
        for event_id in sink.ids(receiver.dead).difference(others):
            assert receiver.state(by_id[event_id].number) != "no", f"event {event_id} became a dead letter of {receiver.name}"
            if due(by_id[event_id], receiver):
                ledger.dead_letter(name, event_id)
            ends["dead-lettered"] += 1
        if receiver.ordered:
            _in_order(sink, receiver, by_id)
    for (name, event_id), reason in reasons.items():
        ledger.drop(name, event_id, reason)
        ends[reason] += 1
    ledger.check(drops=drops)
    if killed:
        ends["lost with its process"] = len(_missing(traffic, subscribed, sink, reasons, ()))
    print(f"the books: {ledger.summary()}; all ends: {dict(ends)}")
    return ends


def _missing(
    traffic: Traffic, subscribed: Collection[Subscribed], sink: Sink, reasons: dict[tuple[str, str], str], killed: Collection[str]
) -> list[tuple[Sent, Subscribed]]:
    found = []
    for receiver in subscribed:
        arrived = sink.ids(receiver.dead).union(*(sink.ids(path) for path in receiver.addresses))
        for each in traffic.accepted:
            known = each.id in arrived or (receiver.name + receiver.uid, each.id) in reasons
            if not known and receiver.state(each.number) == "due" and each.process not in killed:
                found.append((each, receiver))
    return found


def _in_order(sink: Sink, receiver: Subscribed, by_id: dict[str, Sent]) -> None:
    """One delivery at a time: each attempt is of the same event as the one before it, or of a later one; through edits too."""
    tried = [by_id[each.event_id] for each in sink.requests if each.path in receiver.addresses and each.event_id in by_id]
    accepted = [each for each in tried if each.receipt]
    if any(each.key for each in accepted):
        in_order_by_key(receiver, accepted)
        return
    for before, after in pairwise(accepted):
        if before.process == after.process:
            assert before.order <= after.order, f"{receiver.name} got {after.id} after {before.id}, which was accepted later"


def in_order_by_key(receiver: Subscribed, tried: list[Sent]) -> None:
    """What is tried for the first time comes after all of its key that was accepted before it. What was tried before may come again
    after a fault, from the oldest that was not recorded as settled on."""
    last: dict[str, Sent] = {}
    seen: set[str] = set()
    for each in tried:
        if each.id in seen:
            continue
        seen.add(each.id)
        before = last.get(each.key)
        assert before is None or before.number < each.number, (
            f"{receiver.name} got {each.id} for the first time after {before.id}, of the same key {each.key} and accepted later"
        )
        last[each.key] = each
