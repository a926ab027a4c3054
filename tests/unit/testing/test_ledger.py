"""The ledger finds what is missing, and says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.testing.ledger import Ledger, LedgerError

SUBSCRIPTIONS = ("a", "b")


def test_books_that_balance() -> None:
    ledger = Ledger()
    for number in range(4):
        ledger.send(str(number), SUBSCRIPTIONS)
    for event_id in "012":
        ledger.acknowledge(event_id)
        ledger.deliver("a", event_id)
    ledger.deliver("a", "3")  # its answer was lost on the way: not acknowledged, and delivered all the same
    ledger.deliver("a", "1")
    ledger.deliver("b", "0")
    ledger.dead_letter("b", "1")
    ledger.drop("b", "2", "Overflow")
    ledger.check(drops=["Overflow"], duplicates_at_most=1)
    assert ledger.acknowledged == {"0", "1", "2"}
    assert ledger.duplicates == 1


@given(
    st.dictionaries(st.integers(0, 50).map(str), st.booleans(), min_size=1),
    st.data(),
)
def test_it_balances_exactly_when_every_acknowledged_event_is_accounted_for(sent: dict[str, bool], data: st.DataObject) -> None:
    ledger = Ledger()
    lost = False
    for event_id, acknowledged in sent.items():
        ledger.send(event_id, SUBSCRIPTIONS)
        if acknowledged:
            ledger.acknowledge(event_id)
        for name in SUBSCRIPTIONS:
            fate = data.draw(st.sampled_from(["delivered", "dead", "dropped", "pending", "nowhere"]))
            if fate == "delivered":
                ledger.deliver(name, event_id)
            elif fate == "dead":
                ledger.dead_letter(name, event_id)
            elif fate == "dropped":
                ledger.drop(name, event_id, "Overflow")
            elif fate == "pending":
                ledger.pend(name, event_id)
            else:
                lost = lost or acknowledged
    if lost:
        with pytest.raises(LedgerError, match="lost: at "):
            ledger.check(drops=["Overflow"], pending=True)
    else:
        ledger.check(drops=["Overflow"], pending=True)


def test_each_fault_is_named_with_its_subscription_and_events() -> None:
    ledger = Ledger()
    for number in range(9):
        ledger.send(str(number), ["a"])
        ledger.acknowledge(str(number))
    ledger.deliver("a", "0")
    ledger.deliver("a", "0")
    ledger.drop("a", "1", "Rejected")
    ledger.pend("a", "2")
    ledger.deliver("b", "0")
    with pytest.raises(LedgerError) as caught:
        ledger.check(duplicates_at_most=0)
    first, *complaints = str(caught.value).splitlines()
    counts = "9 sent, 9 acknowledged, 2 delivered and 1 of them again, 0 dead-lettered, 1 dropped, 1 pending"
    assert first == f"the ledger does not balance ({counts}):"
    assert complaints == [
        "lost: at a, 6 were acknowledged and are nowhere: 3, 4, 5, 6, 7 and 1 more",
        "foreign: at b, 1 arrived where they were not due: 0",
        "dropped: at a, 1 were dropped for a reason that is not expected (expected: none): 1 (Rejected)",
        "pending: at a, 1 are still held at the end: 2",
        "duplicates: 1, expected at most 0",
    ]


def test_misuse_is_refused() -> None:
    ledger = Ledger()
    ledger.send("1", ["a"])
    with pytest.raises(ValueError, match="sent before"):
        ledger.send("1", ["a"])
    with pytest.raises(ValueError, match="never sent"):
        ledger.acknowledge("2")
    with pytest.raises(ValueError, match="is a loss"):
        ledger.drop("a", "1", "")
