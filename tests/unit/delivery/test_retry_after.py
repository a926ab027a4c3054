"""Retry-After: what is read, and when it is heeded."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.delivery.policy import BACKOFF_MAX_S, Policy, backoff, decide, parse_retry_after
from eventing.journal import Rule


def test_the_longest_wait_is_an_hour_however_many_attempts_there_were() -> None:
    assert backoff(10**9, Policy(retry=2**31 - 1)) == (BACKOFF_MAX_S, Rule.EXPONENTIAL)
    assert backoff(10**9, Policy(retry=2**31 - 1, backoff_policy="linear")) == (BACKOFF_MAX_S, Rule.LINEAR)


@pytest.mark.parametrize(
    ("status", "asked", "maximum", "wait", "rule"),
    [
        (503, 10, 300, 10, Rule.RETRY_AFTER),
        (429, 10, 300, 10, Rule.RETRY_AFTER),
        (503, 3650 * 86400, 300, 300, Rule.RETRY_AFTER),
        (503, 0.1, 300, 0.5, Rule.EXPONENTIAL),
        (503, 10, 0, 0.5, Rule.EXPONENTIAL),
        (500, 10, 300, 0.5, Rule.EXPONENTIAL),
        (404, 10, 300, 0.5, Rule.EXPONENTIAL),
        (503, None, 300, 0.5, Rule.EXPONENTIAL),
    ],
)
def test_retry_after(status: int, asked: float | None, maximum: float, wait: float, rule: Rule) -> None:
    verdict = decide(status, 1, Policy(retry_after_max_s=maximum), 0.0, retry_after_s=asked)
    assert (verdict.wait_s, verdict.rule) == (wait, rule)


NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0),
        (b"120", 120),
        (b" 120 ", 120),
        (b"9" * 400, 999_999_999_999),
        (b"Sat, 31 Jan 2026 12:00:30 GMT", 30),
        (b"Saturday, 31-Jan-26 12:00:30 GMT", 30),
        (b"Sat Jan 31 12:00:30 2026", 30),
        (b"Sat, 31 Jan 2026 11:00:00 GMT", 0),
        (b"Sat, 31 Jan 2026 14:00:30 +0200", 30),
        (b"", None),
        (b"soon", None),
        (b"-5", None),
        (b"1.5", None),
        (b"1e3", None),
        ("١٢".encode(), None),
        (b"\xff", None),
        (b"Sat, 31 Jan 99999 12:00:30 GMT", None),
        (b"Sat, 99 Jan 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_read(value: bytes, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW.timestamp()) == seconds


@given(st.integers(0, 10**9))
def test_every_date_is_read(seconds: int) -> None:
    value = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(value.encode(), NOW.timestamp()) == seconds


@given(st.one_of(st.binary(max_size=60), st.text("0123456789 :,-+GMTJanSatFeb", max_size=40).map(str.encode)), st.floats(0, 4e9))
def test_anything_else_is_seconds_or_nothing(value: bytes, now: float) -> None:
    asked = parse_retry_after(value, now)
    assert asked is None or asked >= 0
