"""The journal's rings and the stories made of them."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.bindings.http import in_format
from eventing.event import Event
from eventing.journal import Decision, Journal, Rule
from eventing.journal.places import PLACES
from eventing.journal.record import FAILURES, failure_code
from eventing.journal.story import story
from eventing.testing.clock import VirtualClock
from tests.support.data_plane import make_event
from tests.unit.bindings.messages import events


def journal(**options: Any) -> Journal:
    clock = VirtualClock()
    return Journal(clock=clock, wall=clock.wall, **options)


def accept(into: Journal, event: Event, place: int) -> str:
    event.receipt = into.next_receipt()
    into.accepted(event, place, b"127.0.0.1:1")
    return into.receipt_text(event.receipt)


def told(of: Journal, query: str) -> dict[str, Any]:
    return asyncio.run(story(of, query))


@given(st.lists(events, min_size=1, max_size=10), st.booleans())
def test_every_event_is_found_again_by_receipt_and_by_id(given_events: list[Event], structured: bool) -> None:
    kept = journal(acceptances=64, event_bytes=1 << 16)
    place = kept.place("default/orders", ())
    receipts = [accept(kept, in_format(event, "json" if structured else ""), place) for event in given_events]
    for receipt, event in zip(receipts, given_events, strict=True):
        (match,) = told(kept, receipt)["matches"]
        assert (match["id"], match["source"], match["type"]) == (event.id, event.source, event.type)
        assert match["channel"] == "default/orders"
        assert match["from"] == "127.0.0.1:1"
        assert receipt in [match["receipt"] for match in told(kept, event.id)["matches"]]


@given(st.lists(st.integers(0, 3000), max_size=60))
def test_rings_overwrite_the_oldest_and_never_lie(sizes: list[int]) -> None:
    kept = journal(acceptances=8, attempts=8, event_bytes=5000)
    place = kept.place("default/orders", ())
    receipts = [accept(kept, make_event(str(n), bytes([n % 256]) * size), place) for n, size in enumerate(sizes)]
    there, known = True, 0
    for number in reversed(range(len(sizes))):
        found = told(kept, receipts[number])["matches"]
        assert [match["id"] for match in found] in ([], [str(number)])
        there = there and bool(found)
        known += len(found)
        assert bool(found) == there, "what is gone is older than what is there"
    assert not sizes or told(kept, receipts[-1])["matches"], "the newest is there, whatever its size"
    assert kept.acceptances_kept_from == len(sizes) - known
    assert known <= 8


@pytest.mark.parametrize("structured", [False, True])
def test_an_event_larger_than_the_ring_does_no_harm(structured: bool) -> None:
    kept = journal(event_bytes=2000)
    place = kept.place("default/orders", ())
    receipt = accept(kept, in_format(make_event("large", b"x" * 5000), "json" if structured else ""), place)
    assert len(told(kept, receipt)["matches"]) <= 1
    assert [match["id"] for match in told(kept, accept(kept, make_event("small"), place))["matches"]] == ["small"]


def test_a_story_has_every_subscription_its_attempts_and_its_end() -> None:
    kept = journal()
    one, two, three = (kept.subscriber(f"default/s{n}", f"uid{n}", f"http://s{n}/") for n in (1, 2, 3))
    receipt = accept(kept, make_event(), kept.place("default/orders", (one, two, three)))
    number = int(receipt.rpartition("-")[2])
    kept.attempted(number, one, 1, 1000.0, 0.005, 503, Decision.RETRYING, Rule.EXPONENTIAL, limit=5, wait_s=0.5, note="busy")
    kept.attempted(
        number, one, 2, 1000.5, 0.005, 0, Decision.FAILED, Rule.EXHAUSTED, failure=failure_code("Timeout"), note="late"
    )
    kept.attempted(number, one, 0, 1001.0, 0.0, 202, Decision.DEAD_LETTERED, Rule.EXHAUSTED, note="http://dls/")
    kept.attempted(number, two, 1, 1000.0, 0.001, 200, Decision.DELIVERED, Rule.ACCEPTED)
    (match,) = told(kept, receipt)["matches"]
    first, second, third = match["deliveries"]
    assert (first["state"], first["reason"], first["subscriber"]) == ("dead-lettered", "Exhausted", "http://s1/")
    assert [attempt["decision"] for attempt in first["attempts"]] == [
        "503 → retry 1 of 5 in 0.5 s: exponential back-off with jitter",
        "Timeout → no more attempts: all attempts are used up",
        "dead-lettered to http://dls/: all attempts are used up",
    ]
    assert [attempt["error"] for attempt in first["attempts"]] == ["busy", "Timeout: late", ""]
    assert (second["state"], second["attempts"][0]["duration_ms"]) == ("delivered", 1.0)
    assert (third["state"], third["attempts"]) == ("pending", [])
    assert first["attempts"][0]["started"] == match["received"] == "2026-01-01T00:00:00.000Z"


def test_a_channel_may_have_its_events_kept_without_their_data() -> None:
    kept = journal()
    place = kept.place("default/private", (), data=False)
    for event in (make_event("binary", b"planted"), in_format(make_event("structured", b'{"n":"planted"}'), "json")):
        receipt = accept(kept, event, place)
        (match,) = told(kept, receipt)["matches"]
        assert (match["id"], match["source"], match["data"]["kept"], match["data"]["text"]) == (event.id, "/shop", False, "")
    assert b"planted" not in kept._bytes


def test_a_delivery_whose_records_are_overwritten_is_unknown_and_not_pending() -> None:
    kept = journal(attempts=4)
    one = kept.subscriber("default/s", "u", "http://s/")
    place = kept.place("default/orders", (one,))
    old = accept(kept, make_event("old"), place)
    for number in range(1, 7):
        kept._clock.advance(1.0)  # type: ignore[attr-defined]
        kept.attempted(number, one, 1, kept._clock(), 0.0, 200, Decision.DELIVERED, Rule.ACCEPTED)
    new = accept(kept, make_event("new"), place)
    assert told(kept, old)["matches"][0]["deliveries"][0]["state"] == "unknown"
    assert told(kept, new)["matches"][0]["deliveries"][0]["state"] == "pending"
    assert told(kept, "nobody")["journal"]["overwritten_attempts"] == 2


def test_who_came_later_or_had_gone_was_not_due() -> None:
    kept = journal()
    clock: VirtualClock = kept._clock  # type: ignore[assignment]
    stays, goes, comes = (kept.subscriber(f"default/{name}", name, "http://s/") for name in ("stays", "goes", "comes"))
    first = kept.place("default/orders", (stays, goes))
    clock.advance(1.0)
    kept.forget_place(first)
    second = kept.place("default/orders", (stays,))
    kept.place("default/other", (kept.subscriber("default/elsewhere", "e", "http://s/"),))
    clock.advance(1.0)
    receipt = accept(kept, make_event(), second)
    clock.advance(1.0)
    kept.forget_place(second)
    kept.place("default/orders", (stays, comes))
    (match,) = told(kept, receipt)["matches"]
    assert [each["subscription"] for each in match["deliveries"]] == ["default/stays"]
    assert {each["subscription"]: (each["reason"], each["explanation"]) for each in match["not_due"]} == {
        "default/goes": ("Removed", "it was removed from the channel before, at 2026-01-01T00:00:01.000Z"),
        "default/comes": ("AddedLater", "it was added to the channel later, at 2026-01-01T00:00:03.000Z"),
    }


def test_a_calendar_that_is_set_back_hides_no_attempt() -> None:
    kept = journal()
    clock: VirtualClock = kept._clock  # type: ignore[assignment]
    one = kept.subscriber("default/s", "u", "http://s/")
    receipt = accept(kept, make_event(), kept.place("default/orders", (one,)))
    clock.advance(1.0)
    kept.attempted(int(receipt.rpartition("-")[2]), one, 1, clock(), 0.0, 200, Decision.DELIVERED, Rule.ACCEPTED)
    clock.jump_wall(-7200)
    assert told(kept, receipt)["matches"][0]["deliveries"][0]["state"] == "delivered"


def test_places_in_use_are_not_forgotten_and_the_others_are() -> None:
    kept = journal()
    quiet = kept.place("default/quiet", ())
    busy = 0
    for _ in range(PLACES * 2):
        kept.forget_place(busy)
        busy = kept.place("default/busy", ())
    receipt = accept(kept, make_event(), quiet)
    assert told(kept, receipt)["matches"][0]["channel"] == "default/quiet"
    assert len(kept.places) <= PLACES + 2


def test_numbers_at_their_limits() -> None:
    kept = journal()
    for limit, attempt in ((65_534, 65_535), (65_535, 65_536), (2**31, 2**31)):
        kept.attempted(1, 1, attempt, 0.0, 1e9, 999, Decision.FAILED, Rule.EXHAUSTED, limit=limit, wait_s=1e9)
    assert [record.limit for record in kept.attempts(0, 10)] == [65_534, 65_535, 65_535]


def test_what_nobody_knows_is_told_with_what_was_refused() -> None:
    kept = journal()
    kept.refused("peer", "default/orders", "7", 400, "x" * 1000)
    kept.refused("peer", "default/orders", "8", 404, "no")
    assert [refusal["id"] for refusal in told(kept, "8")["refused"]] == ["8"]
    assert len(told(kept, "nobody")["refused"]) == 2
    for query in ("", "-", f"{kept.prefix}-", f"{kept.prefix}-99", f"{kept.prefix}-٣", "x" * 10_000, "\x00"):
        assert told(kept, query)["matches"] == []


def test_switched_off_it_keeps_nothing() -> None:
    kept = journal(enabled=False)
    receipt = accept(kept, make_event(), kept.place("c", ()))
    kept.attempted(1, 1, 1, 0.0, 0.0, 200, Decision.DELIVERED, Rule.ACCEPTED)
    assert told(kept, receipt)["matches"] == []
    assert kept.attempts_written == 0


def test_every_rule_has_a_text_and_every_failure_a_code() -> None:
    for rule in Rule:
        assert rule.text
        assert rule.reason.isidentifier()
    assert [failure_code(kind) for kind in FAILURES] == list(range(len(FAILURES)))
    with pytest.raises(KeyError):
        failure_code("Unheard of")
