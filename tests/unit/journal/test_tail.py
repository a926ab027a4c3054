"""The feed: everything once and in order, filtered, bounded, and open about what was missed."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.journal import Decision, Journal, Rule
from eventing.journal.documents import Entry, Feed
from eventing.journal.tail import BEHIND_MAX, ENTRIES_MAX, Wanted, feed
from eventing.testing.clock import VirtualClock
from tests.support.data_plane import make_event


class Mesh:
    """A journal, and what would write into it."""

    def __init__(self, **options: Any) -> None:
        self.clock = VirtualClock()
        self.journal = Journal(clock=self.clock, wall=self.clock.wall, **options)
        self.subscribers = {name: self.journal.subscriber(f"default/{name}", name, f"http://{name}/") for name in ("a", "b")}
        due = tuple(self.subscribers.values())
        self.places = {
            name: self.journal.place(f"default/{name}", due if name == "orders" else ()) for name in ("orders", "other")
        }

    def accept(self, id_: str, channel: str = "orders", type_: str = "t", data: bytes = b"") -> int:
        self.clock.advance(0.001)
        event = make_event(id_, data, type=type_)
        event.receipt = self.journal.next_receipt()
        self.journal.accepted(event, self.places[channel], b"127.0.0.1:1")
        return event.receipt

    def attempt(self, receipt: int, name: str = "a", *, failed: bool = False) -> None:
        self.clock.advance(0.001)
        decision, rule = (Decision.RETRYING, Rule.EXPONENTIAL) if failed else (Decision.DELIVERED, Rule.ACCEPTED)
        status, note = (503, "busy") if failed else (200, "")
        number = self.subscribers[name]
        self.journal.attempted(receipt, number, 1, self.clock(), 0.0, status, decision, rule, 5, 0.5, note=note)

    def refuse(self, channel: str = "orders") -> None:
        self.clock.advance(0.001)
        self.journal.refused("127.0.0.1:1", f"default/{channel}", "", 400, "ce-id: required attribute is missing")

    def feed(self, after: str, **wanted: Any) -> Feed:
        return asyncio.run(feed(self.journal, after, Wanted(**wanted)))


def told(entry: Entry) -> tuple[str, str, str]:
    return entry.kind, entry.id, entry.subscription


def test_it_begins_now_and_tells_everything_once_and_in_order() -> None:
    mesh = Mesh()
    mesh.attempt(mesh.accept("before"))
    start = mesh.feed("")
    assert start.entries == []
    first = mesh.accept("1", data=b"\x1b[2J\n{}")
    mesh.attempt(first, "a", failed=True)
    mesh.refuse()
    mesh.attempt(first, "b")
    second = mesh.accept("2", channel="other")
    news = mesh.feed(start.next)
    assert [told(entry) for entry in news.entries] == [
        ("accepted", "1", ""),
        ("attempt", "1", "default/a"),
        ("refused", "", ""),
        ("attempt", "1", "default/b"),
        ("accepted", "2", ""),
    ]
    assert news.entries[0].data is not None
    assert news.entries[0].data.text == "\\x1b[2J\n{}"
    assert news.entries[1].attempt is not None
    assert (news.entries[1].attempt.outcome, news.entries[1].attempt.error) == ("retrying", "busy")
    assert news.entries[4].receipt == mesh.journal.receipt_text(second)
    assert mesh.feed(news.next).entries == []
    assert not news.restarted
    assert news.missed == 0


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"channel": "default/other"}, [("accepted", "2", "")]),
        ({"subscription": "default/b"}, [("attempt", "1", "default/b")]),
        ({"type": "u"}, [("accepted", "2", "")]),
        ({"type": "t"}, [("accepted", "1", ""), ("attempt", "1", "default/a"), ("attempt", "1", "default/b")]),
        ({"failed": True}, [("attempt", "1", "default/a"), ("refused", "", "")]),
        ({"failed": True, "subscription": "default/b"}, []),
        ({"channel": "default/nothing"}, []),
    ],
)
def test_filters(wanted: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    mesh = Mesh()
    start = mesh.feed("").next
    first = mesh.accept("1")
    mesh.attempt(first, "a", failed=True)
    mesh.attempt(first, "b")
    mesh.accept("2", channel="other", type_="u")
    mesh.refuse()
    assert [told(entry) for entry in mesh.feed(start, **wanted).entries] == expected


@given(st.lists(st.sampled_from(["accept", "attempt", "fail", "refuse", "look"]), max_size=700))
def test_a_reader_that_keeps_up_gets_each_record_once(steps: list[str]) -> None:
    mesh = Mesh()
    after = mesh.feed("").next
    got: list[tuple[str, str, str]] = []
    expected: list[tuple[str, str, str]] = []
    receipt = mesh.accept("0")
    expected.append(("accepted", "0", ""))

    def look() -> bool:
        nonlocal after
        news = mesh.feed(after)
        assert len(news.entries) <= ENTRIES_MAX
        assert news.missed == 0
        got.extend(told(entry) for entry in news.entries)
        after = news.next
        return bool(news.entries)

    for number, step in enumerate(steps, 1):
        if step == "accept":
            receipt = mesh.accept(str(number))
            expected.append(("accepted", str(number), ""))
        elif step == "refuse":
            mesh.refuse()
            expected.append(("refused", "", ""))
        elif step == "look":
            look()
        else:
            mesh.attempt(receipt, failed=step == "fail")
            expected.append(("attempt", got_id(mesh, receipt), "default/a"))
    while look():
        pass
    assert got == expected


def got_id(mesh: Mesh, receipt: int) -> str:
    acceptance = mesh.journal.find(receipt)
    assert acceptance is not None
    return acceptance.event.id


def test_a_slow_reader_is_told_how_much_it_has_missed() -> None:
    mesh = Mesh(attempts=64, acceptances=64)
    start = mesh.feed("").next
    receipt = mesh.accept("1")
    for _ in range(100):
        mesh.attempt(receipt)
    news = mesh.feed(start)
    assert news.missed == 36
    assert len(news.entries) == 65


def test_a_reader_far_behind_is_put_near_the_present() -> None:
    mesh = Mesh()
    start = mesh.feed("").next
    receipt = mesh.accept("1")
    for _ in range(BEHIND_MAX + 1000):
        mesh.attempt(receipt)
    missed = read = 0
    while (news := mesh.feed(start)).entries:
        missed, read, start = missed + news.missed, read + len(news.entries), news.next
    assert missed + read == BEHIND_MAX + 1001
    assert read < 2000


def test_a_position_of_another_process_begins_anew() -> None:
    mesh, other = Mesh(), Mesh()
    other.accept("1")
    news = mesh.feed(other.feed("").next)
    assert (news.restarted, news.entries) == (True, [])
    assert news.next.startswith(mesh.journal.prefix)
    for nonsense in (
        "x",
        "a.b.c.d",
        f"{mesh.journal.prefix}.1.2",
        f"{mesh.journal.prefix}.1.2.-3",
        f"{mesh.journal.prefix}.\u0661.2.3",
    ):
        with pytest.raises(ValueError, match="is no position"):
            mesh.feed(nonsense)
    ahead = mesh.feed(f"{mesh.journal.prefix}.999.999.999")
    assert ahead.entries == []


async def test_it_waits_for_something_to_happen() -> None:
    mesh = Mesh()
    start = (await feed(mesh.journal, "", Wanted())).next
    waiting = asyncio.create_task(feed(mesh.journal, start, Wanted(type="u"), wait_s=20.0))
    mesh.accept("other")
    await asyncio.sleep(0.1)
    assert not waiting.done(), "what is not wanted does not end the wait"
    mesh.accept("1", type_="u")
    async with asyncio.timeout(10):
        news = await waiting
    assert [told(entry) for entry in news.entries] == [("accepted", "1", "")]
