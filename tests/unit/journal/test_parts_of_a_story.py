"""What several processes know, put together."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from eventing.journal import Decision, Journal, Rule
from eventing.journal.documents import Match, RefusedGroup, Trace
from eventing.journal.joined import END_STATES, joined_matches, joined_standing, joined_trace
from eventing.journal.standing import Situation, standing
from eventing.journal.story import trace
from eventing.testing.clock import VirtualClock
from tests.support.data_plane import make_event

UIDS = ("a", "b", "c")
_DECISIONS = {"delivered": Decision.DELIVERED, "dead-lettered": Decision.DEAD_LETTERED, "dropped": Decision.DROPPED}
_RULES = {"delivered": Rule.ACCEPTED, "dead-lettered": Rule.EXHAUSTED, "dropped": Rule.NO_DEAD_LETTER_SINK}


@dataclass
class Process:
    """A process's journal, and how it writes into it."""

    clock: VirtualClock
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(clock=self.clock, wall=self.clock.wall)
        self.numbers = {uid: self.journal.subscriber(f"default/{uid}", uid, f"http://{uid}/") for uid in UIDS}
        self.journal.place("default/orders", tuple(self.numbers.values()))

    def accept(self, id_: str) -> str:
        event = make_event(id_)
        event.receipt = self.journal.next_receipt()
        self.journal.accepted(event, self.journal.places.place_of(1), b"127.0.0.1:1")
        return self.journal.receipt_text(event.receipt)

    def begin(self, id_: str, uid: str, receipt: str) -> int:
        """Take the event out of the channel for a subscription."""
        return self.journal.adopted(make_event(id_), self.numbers[uid], receipt)

    def attempt(self, receipt: int, uid: str, number: int, decision: Decision, rule: Rule) -> None:
        self.clock.advance(0.001)
        self.journal.attempted(
            receipt,
            self.numbers[uid],
            number,
            self.clock(),
            0.0005,
            200 if decision is Decision.DELIVERED else 503,
            decision,
            rule,
        )

    def end(self, id_: str, receipt: int, uid: str, state: str) -> None:
        self.clock.advance(0.001)
        event = make_event(id_)
        event.receipt = receipt
        if state == "delivered":
            self.attempt(receipt, uid, 1, Decision.DELIVERED, Rule.ACCEPTED)
        else:
            self.journal.ended(event, self.numbers[uid], self.clock(), 0.0, 0, _DECISIONS[state], _RULES[state])

    def asked(self, query: str) -> Trace:
        return asyncio.run(trace(self.journal, query))


# What happens to one event at one subscription: the processes that have it one after the other, each with its failed attempts;
# and how it ends: at the last of them, not at all, or (None) it is not even begun.
ways = st.tuples(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=3),
    st.sampled_from([*END_STATES, "pending"]),
)


@given(
    acceptor=st.integers(0, 2),
    ways=st.lists(st.fixed_dictionaries(dict.fromkeys(UIDS, ways)), min_size=1, max_size=3),
    order=st.permutations([0, 1, 2]),
)
def test_exactly_one_end_for_each_event_and_subscription(acceptor: int, ways: list[dict[str, Any]], order: list[int]) -> None:
    """However the shares of the channel move between the processes, and whoever is asked first."""
    clock = VirtualClock()
    processes = [Process(clock) for _ in range(3)]
    receipts = [processes[acceptor].accept(f"event-{number}") for number in range(len(ways))]
    attempts: Counter[tuple[str, str]] = Counter()
    for number, (receipt, subscriptions) in enumerate(zip(receipts, ways, strict=True)):
        id_ = f"event-{number}"
        for uid, (turns, end) in subscriptions.items():
            for at, failures in turns:
                process = processes[at]
                own = process.begin(id_, uid, receipt)
                for attempt in range(1, failures + 1):
                    process.attempt(own, uid, attempt, Decision.RETRYING, Rule.EXPONENTIAL)
                    attempts[receipt, uid] += 1
            if end != "pending":
                process.end(id_, own, uid, end)
                attempts[receipt, uid] += 1
    for number, receipt in enumerate(receipts):
        for query in (receipt, f"event-{number}"):
            (match,) = joined_trace([processes[at].asked(query) for at in order]).matches
            assert (match.receipt, match.acceptance) == (receipt, "here")
            assert Counter(each.uid for each in match.deliveries) == dict.fromkeys(UIDS, 1)
            assert {each.uid: each.state for each in match.deliveries} == {uid: end for uid, (_, end) in ways[number].items()}
            for each in match.deliveries:
                assert len(each.attempts) == attempts[receipt, each.uid]
                assert [attempt.started for attempt in each.attempts] == sorted(attempt.started for attempt in each.attempts)
                ends = [attempt for attempt in each.attempts if attempt.outcome in END_STATES]
                assert len(ends) == (each.state != "pending")


def test_an_event_that_came_again_after_its_end_has_the_best_of_both() -> None:
    """At least once: the process that delivered it died before it could say so to the channel."""
    clock = VirtualClock()
    first, second = Process(clock), Process(clock)
    receipt = first.accept("1")
    first.end("1", first.begin("1", "a", receipt), "a", "delivered")
    second.end("1", second.begin("1", "a", receipt), "a", "dropped")
    for processes in ((first, second), (second, first)):
        (match,) = joined_trace([each.asked(receipt) for each in processes]).matches
        delivery = next(each for each in match.deliveries if each.uid == "a")
        assert (delivery.state, delivery.reason) == ("delivered", "")
        assert [each.outcome for each in delivery.attempts] == ["delivered", "dropped"]


def test_the_same_told_twice_is_told_once() -> None:
    """The record of failures on disk is read by every process of the data directory."""
    clock = VirtualClock()
    process = Process(clock)
    receipt = process.accept("1")
    process.end("1", process.begin("1", "a", receipt), "a", "dropped")
    answer = process.asked("1")
    on_disk = structs.replace(answer.matches[0], kept="disk", deliveries=answer.matches[0].deliveries[:1], not_due=[])
    merged = joined_matches([*answer.matches, on_disk, on_disk])
    assert merged == answer.matches


def test_what_nobody_knows_any_more_is_not_called_pending() -> None:
    clock = VirtualClock()
    process = Process(clock)
    (here,) = process.asked(process.accept("1")).matches
    forgotten = structs.replace(here.deliveries[0], state="unknown", reason="Overwritten")
    elsewhere = structs.replace(here, acceptance="elsewhere", deliveries=[forgotten])
    (match,) = joined_matches([here, elsewhere])
    assert [each.state for each in match.deliveries] == ["unknown", "pending", "pending"]


def _refused(count: int, window_s: float, reason: str = "ce-id: required attribute is missing") -> Trace:
    clock = VirtualClock()
    answer = asyncio.run(trace(Journal(clock=clock, wall=clock.wall), "1"))
    group = RefusedGroup(channel="default/orders", status=400, reason=reason, count=count, last="2026-11-25T10:00:00.000Z")
    return structs.replace(answer, refused_groups=[group] if count else [], refused_window_s=window_s)


def test_refusals_add_up() -> None:
    merged = joined_trace([_refused(2, 60.0), _refused(3, 60.0), _refused(1, 60.0, "other"), _refused(0, 60.0)])
    assert {(group.reason, group.count) for group in merged.refused_groups} == {
        ("ce-id: required attribute is missing", 5),
        ("other", 1),
    }
    assert merged.refused_window_s == 60.0


def test_refusals_of_a_longer_time_are_not_added_to_those_of_the_last_minute() -> None:
    merged = joined_trace([_refused(0, 60.0), _refused(2, 60.0), _refused(50, 900.0)])
    assert ([group.count for group in merged.refused_groups], merged.refused_window_s) == ([2], 60.0)
    merged = joined_trace([_refused(0, 60.0), _refused(50, 900.0)])
    assert ([group.count for group in merged.refused_groups], merged.refused_window_s) == ([50], 900.0)


def test_refusals_are_not_told_where_any_process_accepted_it() -> None:
    clock = VirtualClock()
    process = Process(clock)
    process.accept("1")
    merged = joined_trace([_refused(2, 60.0), process.asked("1")])
    assert (len(merged.matches), merged.refused_groups, merged.refused) == (1, [], [])
    assert merged.journal.events == 1


def test_how_a_subscription_stands_in_all_of_them() -> None:
    clock = VirtualClock()
    first, second = Process(clock), Process(clock)
    clock.advance(1.0)
    receipt = first.accept("1")
    for process in (first, second):
        process.attempt(process.begin("1", "a", receipt), "a", 1, Decision.RETRYING, Rule.EXPONENTIAL)
    second.end("1", second.begin("1", "a", receipt), "a", "delivered")

    def stands(process: Process, pending: int, oldest_s: float | None) -> Any:
        situation = Situation(
            number=process.numbers["a"], channel="default/orders", pending=pending, pending_bytes=None, oldest_s=oldest_s,
            in_flight=1, concurrency=10, retry=5, timeout_s=30.0, dead_letter_sink="",
        )  # fmt: skip
        return asyncio.run(standing(process.journal, situation))

    parts = [stands(first, 3, None), stands(second, 4, 12.0)]
    whole = joined_standing(parts)
    assert (whole.pending, whole.oldest_s, whole.in_flight, whole.concurrency) == (7, 12.0, 2, 20)
    assert (whole.counts.accepted, whole.counts.attempts, whole.counts.retrying, whole.counts.delivered) == (1, 3, 2, 1)
    assert "(2 of 3 attempts failed)" in whole.findings[0].finding
    assert joined_standing(parts[:1]) == parts[0]


def _match(process: Process, query: str) -> Match:
    (match,) = process.asked(query).matches
    return match


def test_what_came_past_the_mesh_is_one_story_unless_one_subscription_met_it_twice() -> None:
    clock = VirtualClock()
    first, second = Process(clock), Process(clock)
    first.begin("1", "a", "")
    second.begin("1", "b", "")
    second.begin("1", "c", "")
    (match,) = joined_matches([_match(first, "1"), _match(second, "1")])
    assert {each.uid for each in match.deliveries} == set(UIDS)
    again = Process(clock)
    again.begin("1", "a", "")
    assert len(joined_matches([_match(first, "1"), _match(again, "1")])) == 2
