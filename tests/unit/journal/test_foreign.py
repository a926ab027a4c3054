"""Events of durable channels in the journal: met without having been accepted here, or confirmed late."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.journal import Decision, Journal, Rule
from eventing.journal.documents import Match, Trace
from eventing.journal.foreign import Foreign
from eventing.journal.story import trace
from eventing.testing.clock import VirtualClock
from tests.support.data_plane import make_event

ORIGIN = "0123abcd-7"


def journal(**options: Any) -> tuple[Journal, list[int], VirtualClock]:
    """A journal, the numbers of five subscribers of one channel, and its clock."""
    clock = VirtualClock()
    made = Journal(clock=clock, wall=clock.wall, **options)
    numbers = [made.subscriber(f"default/s{n}", f"uid-{n}", f"http://s{n}/") for n in range(5)]
    made.place("default/orders", tuple(numbers))
    return made, numbers, clock


def asked(of: Journal, query: str) -> Trace:
    return asyncio.run(trace(of, query, with_data=True))


def only(of: Journal, query: str) -> Match:
    (match,) = asked(of, query).matches
    return match


def deliver(into: Journal, receipt: int, number: int, clock: VirtualClock) -> None:
    into.attempted(receipt, number, 1, clock(), 0.0, 200, Decision.DELIVERED, Rule.ACCEPTED)


def test_several_subscriptions_meet_one_event_and_make_one_story() -> None:
    kept, numbers, clock = journal()
    receipts = {kept.adopted(make_event("1", b"data"), number, ORIGIN) for number in numbers}
    (receipt,) = receipts
    deliver(kept, receipt, numbers[0], clock)
    for query in ("1", ORIGIN, f"{kept.prefix}-{receipt}"):
        match = only(kept, query)
        assert (match.receipt, match.acceptance, match.channel, match.from_) == (ORIGIN, "elsewhere", "default/orders", "")
        assert (match.type, match.data.text) == ("com.example.order", "data")
        assert [each.state for each in match.deliveries] == ["delivered", *["pending"] * 4]
    assert kept.accepted_events == 1


def test_who_meets_it_much_later_makes_no_second_story() -> None:
    kept, numbers, clock = journal()
    kept._foreign = Foreign(20)
    early = kept.adopted(make_event("1"), numbers[0], ORIGIN)
    deliver(kept, early, numbers[0], clock)
    for number in range(21):
        kept.adopted(make_event(f"other-{number}"), numbers[0], f"0123abcd-{number + 1000}")
    late = kept.adopted(make_event("1"), numbers[1], ORIGIN)
    assert early != late
    deliver(kept, late, numbers[1], clock)
    match = only(kept, ORIGIN)
    assert {each.uid: each.state for each in match.deliveries} == {"uid-0": "delivered", "uid-1": "delivered"}
    assert kept.receipt_text(early) == kept.receipt_text(late) == ORIGIN


@pytest.mark.parametrize("reason", ["SubscriptionDeleted", "ChannelDeleted"])
def test_what_waits_in_a_back_end_is_dropped_with_who_it_waits_for(reason: str) -> None:
    """Nobody reads it any more, so that nobody records it event by event."""
    kept, numbers, clock = journal()
    place = kept.place("default/orders", tuple(numbers))
    events = [make_event(str(number)) for number in range(2)]
    for event in events:
        event.receipt = kept.next_receipt()
        kept.accepted(event, place, b"127.0.0.1:1")
    deliver(kept, events[0].receipt, numbers[0], clock)
    clock.advance(1.0)
    if reason == "ChannelDeleted":
        kept.close_place(place)
    else:
        kept.forget_place(place)
        kept.place("default/orders", tuple(numbers[1:]))
    first, second = (only(kept, event.id).deliveries for event in events)
    assert (first[0].state, first[0].reason) == ("delivered", "")
    assert (second[0].state, second[0].reason) == ("dropped", reason)
    others = {(each.state, each.reason) for each in (*first[1:], *second[1:])}
    assert others == ({("dropped", reason)} if reason == "ChannelDeleted" else {("pending", "")})


def test_what_is_remembered_of_them_is_bounded() -> None:
    foreign = Foreign(10)
    for receipt in range(1, 100):
        origin = f"0123abcd-{receipt}"
        assert foreign.met(origin, 1) is None
        foreign.add(receipt, origin, 1)
    assert len(foreign._known) == len(foreign._receipts) == 10
    assert foreign.met("0123abcd-99", 2) == 99
    assert (foreign.subscribers(99), foreign.subscribers(89)) == ((1, 2), ())


@pytest.mark.parametrize(
    "origin", ["", "nonsense", "\x1b[2J-1", "0123abcd-0", "0123ABCD-1", "0123abcd-" + "9" * 20, "0123abcd-1 "]
)
def test_what_came_past_the_mesh_has_a_receipt_of_this_process(origin: str) -> None:
    """A back end may be written to by others: no word of theirs is taken for a receipt."""
    kept, numbers, _ = journal()
    first, second = (kept.adopted(make_event("1"), number, origin) for number in numbers[:2])
    match = only(kept, "1")
    assert (match.acceptance, match.receipt) == ("outside", f"{kept.prefix}-{first}")
    assert [each.uid for each in match.deliveries] == ["uid-0", "uid-1"], "one event that two have met"
    third = kept.adopted(make_event("1"), numbers[0], origin)
    assert len({first, second, third}) == 3
    assert len(asked(kept, "1").matches) == 2, "one that the same subscription meets again is another"


def test_a_channel_that_wants_no_data_kept_gets_it() -> None:
    kept, numbers, _ = journal()
    kept.place("default/orders", tuple(numbers), data=False)
    kept.adopted(make_event("1", b"s3cret"), numbers[0], ORIGIN)
    match = only(kept, "1")
    assert not match.data.kept
    assert b"s3cret" not in bytes(kept._bytes)


def test_what_this_process_accepted_keeps_its_receipt_for_as_long_as_it_is_known() -> None:
    kept, numbers, clock = journal(acceptances=16, event_bytes=1 << 16)
    event = make_event("1")
    event.receipt = kept.next_receipt()
    origin = kept.receipt_text(event.receipt)
    assert kept.adopted(make_event("1"), numbers[0], origin) == event.receipt, "before its channel has confirmed it"
    kept.accepted(event, kept.places.place_of(1), b"127.0.0.1:1")
    assert kept.adopted(make_event("1"), numbers[0], origin) == event.receipt
    for number in range(20):
        other = make_event(f"other-{number}")
        other.receipt = kept.next_receipt()
        kept.accepted(other, kept.places.place_of(1), b"127.0.0.1:1")
    assert not kept.knows(event.receipt)
    again = kept.adopted(make_event("1"), numbers[0], origin)
    assert again != event.receipt, "its record is overwritten: it is recorded anew"
    deliver(kept, again, numbers[0], clock)
    match = only(kept, origin)
    assert (match.acceptance, match.receipt, match.deliveries[0].state) == ("elsewhere", origin, "delivered")


def test_a_journal_that_keeps_nothing_gives_receipts_all_the_same() -> None:
    kept, numbers, _ = journal(enabled=False)
    first, second = kept.adopted(make_event("1"), numbers[0], ORIGIN), kept.adopted(make_event("2"), numbers[0], "")
    assert first != second
    assert kept.adopted(make_event("3"), numbers[0], f"{kept.prefix}-77") == 77
    assert (kept.accepted_events, asked(kept, "1").matches) == (0, [])


@given(st.permutations(range(1, 60)), st.lists(st.booleans(), min_size=60, max_size=60))
def test_receipts_recorded_in_any_order_are_found(order: list[int], sync: list[bool]) -> None:
    """Where storing takes time, confirmations overtake each other; in-memory channels of the same process do not wait for them."""
    kept, _, clock = journal()
    place = kept.place("default/memory", ())
    waiting = []
    for number in range(60):
        event = make_event(str(number))
        event.receipt = kept.next_receipt()
        clock.advance(0.01)
        if sync[number]:
            kept.accepted(event, place, b"p")
        else:
            waiting.append((event, clock()))
    for event, began in sorted(waiting, key=lambda each: order.index(each[0].receipt) if each[0].receipt in order else -1):
        kept.accepted(event, place, b"p")
        kept.stored_after(1, clock() - began)
    for receipt in range(1, 61):
        found = kept.find(receipt)
        assert found is not None
        assert (found.event.id, round(found.stored - 0.01 * receipt, 6)) == (str(receipt - 1), round(clock() - 0.6, 6))


def test_an_event_is_attempted_before_it_is_confirmed_and_the_story_holds_both() -> None:
    kept, numbers, clock = journal()
    event = make_event("1")
    event.receipt, began = kept.next_receipt(), clock()
    clock.advance(0.1)
    deliver(kept, event.receipt, numbers[0], clock)
    clock.advance(9.0)
    kept.accepted(event, kept.places.place_of(1), b"127.0.0.1:1")
    kept.stored_after(1, clock() - began)
    match = only(kept, "1")
    assert (match.acceptance, match.from_) == ("here", "127.0.0.1:1")
    assert match.deliveries[0].state == "delivered"
    assert match.received < match.deliveries[0].attempts[0].started
