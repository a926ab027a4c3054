"""The log lines of events that are lost or dead-lettered: one each, up to a rate, and a sum of the rest."""

import asyncio
import logging
from typing import Any

import pytest

from eventing.delivery.failure_lines import FailureLines
from eventing.observe.lines import render
from eventing.observe.logs import LineFormatter


def fields(record: logging.LogRecord, *names: str) -> dict[str, Any]:
    return {name: vars(record)[name] for name in names if name in vars(record)}


def test_a_line_has_receipt_subscription_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    lines = FailureLines(lambda number: f"ab-{number}", clock=lambda: 0.0)
    lines.dropped(7, "default/printer", "DeadLetterFailed", status=503, detail="http://u:hunter2@dead/?key=hunter2: 503")
    lines.dead_lettered(8, "default/printer", "Exhausted", sink="http://dead/?key=hunter2")
    assert [record.getMessage() for record in caplog.records] == ["event dropped", "event dead-lettered"]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert fields(caplog.records[0], "receipt", "subscription", "reason", "status") == {
        "receipt": "ab-7",
        "subscription": "default/printer",
        "reason": "DeadLetterFailed",
        "status": 503,
    }
    assert fields(caplog.records[1], "receipt", "reason", "status") == {"receipt": "ab-8", "reason": "Exhausted"}
    assert "hunter2" not in "".join(LineFormatter("json", "dataplane").format(record) for record in caplog.records)


async def test_a_flood_is_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    lines = FailureLines(str, clock=lambda: now, per_second=10, burst=5)
    for number in range(1000):
        lines.dropped(number, "default/printer", "Overflow" if number % 2 else "Shutdown")
    assert len(caplog.records) == 5
    assert lines.unlisted == 995
    lines.flush()
    assert caplog.records[-1].getMessage() == "more events failed than are listed"
    assert fields(caplog.records[-1], "unlisted", "by_reason") == {
        "unlisted": 995,
        "by_reason": {"Overflow": 498, "Shutdown": 497},
    }
    lines.flush()
    assert len(caplog.records) == 6
    now = 0.35  # three more are allowed by then
    for number in range(10):
        lines.dropped(number, "default/printer", "Overflow")
    assert len(caplog.records) == 9
    lines.flush()
    assert vars(caplog.records[-1])["unlisted"] == 7


async def test_the_sum_comes_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    lines = FailureLines(str, clock=lambda: 0.0, burst=1)
    lines.dropped(1, "default/a", "Overflow")
    lines.dropped(2, "default/a", "Overflow")
    async with asyncio.timeout(20):
        while len(caplog.records) < 2:
            await asyncio.sleep(0.02)
    assert vars(caplog.records[1])["unlisted"] == 1
    assert render("json", moment=0.0, level="warning", process="p", message="m", fields=vars(caplog.records[1])["by_reason"])
