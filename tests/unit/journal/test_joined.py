"""The answers of several data-plane processes put together."""

from typing import Any

import pytest

from eventing.journal.documents import (
    Attempt,
    Counts,
    Data,
    Delivery,
    Failure,
    JournalState,
    Match,
    NotDue,
    Refused,
    RefusedGroup,
    Standing,
    Trace,
)
from eventing.journal.joined import joined_standing, joined_trace


def attempt(number: int = 1, outcome: Any = "delivered", status: int = 200, error: str = "") -> Attempt:
    return Attempt(
        number=number, started="2026-01-01T00:00:00.000Z", duration_ms=1.0, status=status, error=error, outcome=outcome,
        rule="", retries=5, wait_s=0.0, decision="",
    )  # fmt: skip


def delivery(uid: str = "u", state: Any = "delivered", *attempts: Attempt) -> Delivery:
    return Delivery(
        subscription=f"default/{uid}", uid=uid, subscriber="", state=state, reason="", explanation="", attempts=list(attempts)
    )


def match(receipt: str, *deliveries: Delivery, received: str = "2026-01-01", kept: Any = "memory", not_due: Any = ()) -> Match:
    return Match(
        receipt=receipt, id="1", source="/s", type="t", channel="default/orders", received=received, from_="", attributes={},
        data=Data(size=0, kept=True, text=""), deliveries=list(deliveries), not_due=list(not_due), kept=kept,
    )  # fmt: skip


def trace(process: str, *matches: Match, **members: Any) -> Trace:
    state = JournalState(
        process=process, since=members.pop("since", "2026"), events=2, overwritten_events=1, overwritten_attempts=3,
        failures_written=4, failures_lost=5,
    )  # fmt: skip
    usual: dict[str, Any] = {"refused": [], "refused_groups": [], "refused_window_s": 60.0}
    return Trace(query="1", matches=list(matches), journal=state, **(usual | members))


def test_acceptances_by_different_processes_are_told_in_the_order_of_time() -> None:
    told = joined_trace([
        trace("a", match("a-1", received="2026-01-02"), match("a-2", received="2026-01-04")),
        trace("b", match("b-1", received="2026-01-03")),
    ])  # fmt: skip
    assert [each.receipt for each in told.matches] == ["a-1", "b-1", "a-2"]


def test_acceptances_of_one_moment_are_told_in_the_order_of_their_numbers() -> None:
    receipts = [f"a-{number}" for number in range(1, 12)]
    told = joined_trace([trace("a", *(match(receipt) for receipt in receipts)), trace("b")])
    assert [each.receipt for each in told.matches] == receipts


def test_what_all_read_from_the_disk_is_told_once_and_memory_knows_more() -> None:
    on_disk = match("a-1", delivery("dropped", "dropped", attempt(1, "failed"), attempt(0, "dropped")), kept="disk")
    in_memory = match("a-1", delivery("dropped", "dropped", attempt(1, "failed"), attempt(0, "dropped")), delivery("other"))
    for order in ([on_disk, in_memory, on_disk], [in_memory, on_disk, on_disk]):
        (told,) = joined_trace([trace(str(number), each) for number, each in enumerate(order)]).matches
        assert told.kept == "memory"
        assert sorted(each.uid for each in told.deliveries) == ["dropped", "other"]


def test_an_end_that_one_knows_of_beats_what_is_pending_elsewhere() -> None:
    pending, ended = match("a-1", delivery("u", "pending")), match("a-1", delivery("u", "delivered", attempt()))
    late = NotDue(subscription="default/u", uid="u", reason="AddedLater", explanation="")
    other = NotDue(subscription="default/v", uid="v", reason="NotReady", explanation="")
    for order in ([pending, ended], [ended, pending]):
        (told,) = joined_trace(
            [trace("a", order[0]), trace("b", match("a-1", not_due=[late, other])), trace("c", order[1])]
        ).matches
        assert [each.state for each in told.deliveries] == ["delivered"]
        assert [each.uid for each in told.not_due] == ["v"], "what was delivered was due"


def test_how_far_the_answer_reaches() -> None:
    told = joined_trace([trace("a", since="2026-01-01"), trace("b", since="2026-01-02")]).journal
    assert (told.process, told.since) == ("a, b", "2026-01-02"), "in whole only from where all know everything"
    assert (told.events, told.overwritten_events, told.failures_lost) == (4, 2, 10)


def refused(id_: str, received: str) -> Refused:
    return Refused(received=received, channel="default/orders", from_="", id=id_, status=400, reason="r")


def group(count: int, last: str, reason: str = "r") -> RefusedGroup:
    return RefusedGroup(channel="default/orders", status=400, reason=reason, count=count, last=last)


def test_refusals_are_counted_together_and_told_where_nothing_matches() -> None:
    one = trace("a", refused=[refused("other", "2026-01-03")], refused_groups=[group(2, "2026-01-03")])
    two = trace("b", refused=[refused("1", "2026-01-02")], refused_groups=[group(3, "2026-01-02"), group(1, "2026-01-01", "x")])
    told = joined_trace([one, two])
    assert [each.id for each in told.refused] == ["1"], "one of them knows of this id"
    assert [(each.reason, each.count, each.last) for each in told.refused_groups] == [
        ("r", 5, "2026-01-03"),
        ("x", 1, "2026-01-01"),
    ]
    assert [each.id for each in joined_trace([one, one]).refused] == ["other", "other"], "else the last ones"
    assert joined_trace([one, trace("c", match("c-1"))]).refused == []


def counts(**members: Any) -> Counts:
    usual: dict[str, Any] = {"window_s": 300.0, "accepted": 0, "attempts": 0, "delivered": 0, "retrying": 0, "complete": True}
    return Counts(**(usual | {"dead_lettered": {}, "dropped": {}, "statuses": {}} | members))


def standing(counts: Counts, last_failure: Failure | None = None, **members: Any) -> Standing:
    usual: dict[str, Any] = {
        "subscription": "default/printer", "uid": "u", "channel": "default/orders", "subscriber": "http://s/",
        "since": "2026-01-01", "pending": 1, "pending_bytes": 10, "oldest_s": 1.0, "in_flight": 1, "concurrency": 10,
        "dead_letter_sink": "", "retry": 5, "timeout_s": 30.0, "findings": [],
    }  # fmt: skip
    return Standing(counts=counts, last_failure=last_failure, **(usual | members))


def test_lag_places_and_counts_are_summed() -> None:
    told = joined_standing([
        standing(counts(accepted=3, attempts=2, delivered=1, retrying=1, statuses={"200": 1, "503": 1}), oldest_s=7.5),
        standing(counts(accepted=4, attempts=1, delivered=1, statuses={"200": 1}, complete=False), since="2026-01-05"),
        standing(counts(dropped={"Overflow": 2}), pending=0, pending_bytes=None, oldest_s=None, in_flight=0),
    ])  # fmt: skip
    assert (told.pending, told.pending_bytes, told.oldest_s) == (2, 20, 7.5)
    assert (told.in_flight, told.concurrency, told.since) == (2, 30, "2026-01-05")
    assert (told.counts.accepted, told.counts.attempts, told.counts.delivered) == (7, 3, 2)
    assert told.counts.statuses == {"200": 2, "503": 1}
    assert told.counts.dropped == {"Overflow": 2}
    assert told.counts.complete is False


def test_what_to_do_is_worked_out_from_the_figures_of_all() -> None:
    def failed(time: str, status: int) -> Failure:
        return Failure(time=time, receipt="r", id="1", attempt=attempt(1, "retrying", status))

    told = joined_standing([
        standing(counts(accepted=5, attempts=5, delivered=5)),
        standing(counts(attempts=3, retrying=3), failed("2026-01-01", 404)),
        standing(counts(attempts=2, retrying=2), failed("2026-01-02", 503)),
    ])  # fmt: skip
    assert told.last_failure is not None
    assert told.last_failure.attempt.status == 503
    (finding,) = told.findings
    assert finding.severity == "warning", "some are delivered, by another process"
    assert "503" in finding.finding
    assert "5 of 10 attempts failed" in finding.finding


@pytest.mark.parametrize("absent", [[], ["embedded-2"]])
def test_a_process_in_which_it_is_not_in_force_is_named(absent: list[str]) -> None:
    found = joined_standing([standing(counts(accepted=1, attempts=1, delivered=1))] * 2, absent).findings
    assert [each.severity for each in found] == ["warning"] * len(absent) + ["ok"]
    assert all("in 2 of 3 data-plane processes, and not in embedded-2" in each.finding for each in found[:-1])
