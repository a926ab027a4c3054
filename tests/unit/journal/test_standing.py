"""How a subscription stands: figures of the last minutes, and what is to be done."""

import asyncio
from typing import Any

import pytest

from eventing.journal import Decision, Journal, Rule
from eventing.journal.advice import findings
from eventing.journal.documents import Attempt, Counts, Standing
from eventing.journal.record import FAILURES, failure_code
from eventing.journal.standing import Situation, standing
from eventing.testing.clock import VirtualClock
from tests.support.data_plane import make_event


def situation(number: int, **options: Any) -> Situation:
    values: dict[str, Any] = {
        "channel": "default/orders", "pending": 0, "pending_bytes": 0, "oldest_s": None, "in_flight": 0, "concurrency": 10,
        "retry": 5, "timeout_s": 30.0, "dead_letter_sink": "",
    }  # fmt: skip
    return Situation(number=number, **values | options)


def ask(journal: Journal, of: Situation, window_s: float = 300.0) -> Standing:
    return asyncio.run(standing(journal, of, window_s=window_s))


def test_it_counts_what_happened_lately_at_this_subscription_alone() -> None:
    clock = VirtualClock()
    journal = Journal(clock=clock, wall=clock.wall)
    one, other = (journal.subscriber(f"default/{name}", name, "http://s/?a=b") for name in ("one", "other"))
    place = journal.place("default/orders", (one, other))
    elsewhere = journal.place("default/elsewhere", (other,))

    def accept(at: int) -> int:
        event = make_event(str(at))
        event.receipt = journal.next_receipt()
        journal.accepted(event, at, b"p")
        return event.receipt

    old = accept(place)
    journal.attempted(old, one, 1, clock(), 0.0, 500, Decision.RETRYING, Rule.EXPONENTIAL, 5, 0.5)
    clock.advance(400)
    receipts = [accept(place) for _ in range(3)]
    accept(elsewhere)
    journal.attempted(receipts[0], one, 1, clock(), 0.0, 200, Decision.DELIVERED, Rule.ACCEPTED)
    journal.attempted(receipts[0], other, 1, clock(), 0.0, 500, Decision.RETRYING, Rule.EXPONENTIAL, 5, 0.5)
    clock.advance(1)
    note, code = "no answer", failure_code("Timeout")
    journal.attempted(receipts[1], one, 1, clock(), 0.5, 0, Decision.RETRYING, Rule.EXPONENTIAL, 1, 0.5, code, note)
    journal.attempted(receipts[1], one, 2, clock(), 0.5, 404, Decision.FAILED, Rule.EXHAUSTED, 1)
    journal.ended(make_event("x"), one, clock(), 0.0, 0, Decision.DROPPED, Rule.OVERFLOW)
    event = make_event("y")
    event.receipt = receipts[1]
    journal.ended(event, one, clock(), 0.0, 200, Decision.DEAD_LETTERED, Rule.EXHAUSTED)
    stands = ask(journal, situation(one))
    counts = stands.counts
    assert (counts.accepted, counts.attempts, counts.delivered, counts.retrying) == (3, 3, 1, 1)
    assert counts.statuses == {"200": 1, "Timeout": 1, "404": 1}
    assert (counts.dropped, counts.dead_lettered, counts.complete) == ({"Overflow": 1}, {"Exhausted": 1}, True)
    assert stands.last_failure is not None
    assert (stands.last_failure.attempt.status, stands.last_failure.receipt) == (404, journal.receipt_text(receipts[1]))
    assert stands.subscriber == "http://s/?a=***"
    assert ask(journal, situation(one), window_s=500).counts.attempts == 4


def test_figures_of_a_journal_that_was_overwritten_say_so() -> None:
    clock = VirtualClock()
    journal = Journal(clock=clock, wall=clock.wall, attempts=4)
    one = journal.subscriber("default/one", "u", "http://s/")
    for number in range(6):
        journal.attempted(number + 1, one, 1, clock(), 0.0, 200, Decision.DELIVERED, Rule.ACCEPTED)
        clock.advance(10)
    stands = ask(journal, situation(one))
    assert (stands.counts.delivered, stands.counts.complete) == (4, False)
    assert ask(journal, situation(one), window_s=25).counts.complete


def counts(**options: Any) -> Counts:
    values: dict[str, Any] = {
        "window_s": 300.0, "accepted": 5, "attempts": 5, "delivered": 5, "retrying": 0, "dead_lettered": {}, "dropped": {},
        "statuses": {}, "complete": True,
    }  # fmt: skip
    return Counts(**values | options)


def failed(error: str = "", status: int = 0, rule: str = "Exponential") -> Attempt:
    return Attempt(
        number=1, started="", duration_ms=1.0, status=status, error=error, outcome="retrying", rule=rule, retries=5, wait_s=1.0,
        decision="",
    )  # fmt: skip


def advice(given: Counts, failure: Attempt | None = None, **options: Any) -> list[tuple[str, str, str]]:
    values: dict[str, Any] = {
        "subscriber": "http://s/", "channel": "shop/orders", "pending": 0, "oldest_s": 0.0, "in_flight": 0, "concurrency": 10,
        "retry": 5, "timeout_s": 30.0, "dead_letter_sink": "",
    }  # fmt: skip
    found = findings(counts=given, failure=failure, **values | options)
    return [(each.severity, each.finding, each.action) for each in found]


def test_where_all_is_well_there_is_nothing_to_do() -> None:
    assert advice(counts()) == [("ok", "events are delivered", "nothing to do")]


@pytest.mark.parametrize("kind", FAILURES[1:])
def test_every_kind_of_failure_has_advice(kind: str) -> None:
    ((severity, finding, action),) = advice(counts(delivered=0), failed(f"{kind}: whatever"))
    assert severity == "error"
    assert "5 of 5 attempts failed" in finding
    assert "it does not answer (" not in finding, "the advice for what nothing is known of"
    assert "{" not in finding + action


@pytest.mark.parametrize(
    ("status", "told"),
    [(301, "redirects"), (308, "redirects"), (400, "request is wrong"), (403, "credentials"), (404, "nothing at that path"),
     (418, "is final"), (429, "fewer"), (500, "has failed"), (503, "overloaded"), (504, "overloaded")],
)  # fmt: skip
def test_every_status_has_advice(status: int, told: str) -> None:
    ((severity, finding, _),) = advice(counts(delivered=1), failed("busy", status))
    assert severity == "warning", "some are delivered"
    assert f"answers {status}" in finding
    assert told in finding


def test_the_most_serious_comes_first() -> None:
    found = advice(
        counts(delivered=1, dead_lettered={"Exhausted": 2}, dropped={"Overflow": 3}),
        failed("", 503),
        dead_letter_sink="http://d/",
    )
    assert [severity for severity, _, _ in found] == ["error", "warning", "warning"]
    assert "behind by the channel's bound (3)" in found[0][1]


def test_a_subscriber_that_is_too_slow() -> None:
    ((severity, finding, action),) = advice(counts(), pending=50, in_flight=10, oldest_s=100.0)
    assert severity == "warning"
    assert "50 events wait" in finding
    assert "concurrency" in action


def test_a_channel_to_which_nobody_sends() -> None:
    ((severity, finding, action),) = advice(counts(accepted=0, attempts=0, delivered=0))
    assert severity == "note"
    assert "has accepted no event in the last 5 minutes" in finding
    assert "eventing send -n shop --channel orders" in action


@pytest.mark.parametrize("rule", [Rule.REPLY_FAILED, Rule.LOOP])
def test_replies_that_lead_nowhere(rule: Rule) -> None:
    ((_, finding, _),) = advice(counts(delivered=0), failed("", 200, rule.reason))
    assert "repl" in finding
