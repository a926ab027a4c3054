"""The retry policy as a table and as properties."""

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.delivery.policy import BACKOFF_MAX_S, JITTER, Policy, backoff, decide, parse_retry_after
from eventing.journal import Decision, Rule

policies = st.builds(
    Policy,
    retry=st.integers(0, 20),
    timeout_s=st.floats(0.1, 600),
    backoff_policy=st.sampled_from(["exponential", "linear"]),
    backoff_delay_s=st.floats(0, 100),
    retry_after_max_s=st.floats(0, 600),
)
randoms = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("statuses", "decision"),
    [
        ((200, 201, 202, 204, 299), Decision.DELIVERED),
        ((404, 408, 409, 429, 500, 502, 503, 504, 599, 0, 600), Decision.RETRYING),
        ((100, 301, 302, 307, 400, 401, 403, 405, 406, 410, 413, 415, 422), Decision.FAILED),
    ],
)
def test_the_table_of_statuses(statuses: tuple[int, ...], decision: Decision) -> None:
    assert {status: decide(status, 1, Policy(), 0.0).decision for status in statuses} == dict.fromkeys(statuses, decision)


@given(st.integers(0, 700), policies, randoms)
def test_attempts_are_at_most_retry_plus_one_and_waits_are_bounded(status: int, policy: Policy, random: float) -> None:
    attempt, total = 1, 0.0
    while (verdict := decide(status, attempt, policy, random)).decision is Decision.RETRYING:
        total += verdict.wait_s
        attempt += 1
    assert attempt <= policy.retry + 1
    assert total <= policy.retry * BACKOFF_MAX_S * (1 + JITTER)


@given(policies, randoms, st.integers(1, 5))
def test_jitter_only_ever_adds(policy: Policy, random: float, attempt: int) -> None:
    plain, jittered = decide(503, attempt, policy, 0.0), decide(503, attempt, policy, random)
    assert plain.wait_s <= jittered.wait_s <= plain.wait_s * (1 + JITTER)


@given(policies, randoms, st.floats(0, 1e9))
def test_never_before_retry_after_and_never_later_for_it_than_its_limit(policy: Policy, random: float, asked: float) -> None:
    without = decide(429, 1, policy, random)
    verdict = decide(429, 1, policy, random, retry_after_s=asked)
    assert verdict.decision is without.decision
    if verdict.decision is Decision.RETRYING:
        assert verdict.wait_s >= min(asked, policy.retry_after_max_s)
        assert verdict.wait_s <= max(without.wait_s, policy.retry_after_max_s)


answers = st.lists(
    st.tuples(st.sampled_from([0, 404, 429, 500, 503]), st.one_of(st.none(), st.floats(0, 1e12)), randoms),
    min_size=21,
    max_size=21,
)


@given(policies, answers)
def test_whatever_is_answered_the_whole_time_of_a_delivery_is_bounded(
    policy: Policy, asked: list[tuple[int, float | None, float]]
) -> None:
    """By what the policy says alone: attempts that each use up their time, and waits of which none is longer than its back-off with
    jitter or the limit for Retry-After."""
    spent, bound, attempt = policy.timeout_s, policy.timeout_s, 1
    for status, retry_after_s, random in asked:
        verdict = decide(status, attempt, policy, random, retry_after_s=retry_after_s)
        if verdict.decision is not Decision.RETRYING:
            break
        spent += verdict.wait_s + policy.timeout_s
        bound += max(backoff(attempt, policy)[0] * (1 + JITTER), policy.retry_after_max_s) + policy.timeout_s
        attempt += 1
    assert attempt == policy.retry + 1, "all of them are retriable"
    assert spent <= bound * (1 + 1e-9)
    assert bound <= (policy.retry + 1) * policy.timeout_s + policy.retry * max(
        BACKOFF_MAX_S * (1 + JITTER), policy.retry_after_max_s
    )


def test_back_off_grows_as_named() -> None:
    exponential = Policy(retry=5, backoff_delay_s=0.5)
    assert [decide(500, n, exponential, 0.0).wait_s for n in range(1, 6)] == [0.5, 1, 2, 4, 8]
    linear = Policy(retry=3, backoff_policy="linear", backoff_delay_s=2)
    assert [decide(500, n, linear, 0.0).wait_s for n in range(1, 4)] == [2, 4, 6]
    assert decide(500, 1, Policy(backoff_delay_s=0), 0.9).rule is Rule.IMMEDIATE
    assert decide(500, 6, exponential, 0.0).rule is Rule.EXHAUSTED
    assert decide(0, 1, exponential, 0.0, permanent=True).rule is Rule.NOT_RETRIABLE
    assert decide(503, 1, exponential, 0.0, retry_after_s=7).rule is Rule.RETRY_AFTER
    assert decide(500, 1, exponential, 0.0, retry_after_s=7).wait_s == 0.5


@given(st.binary(max_size=60))
def test_garbage_in_retry_after_is_none_or_a_finite_wait(value: bytes) -> None:
    wait = parse_retry_after(value, 1e9)
    assert wait is None or (wait >= 0 and math.isfinite(wait))


def test_retry_after_in_seconds_and_as_a_date() -> None:
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    date = format_datetime(now + timedelta(seconds=90), usegmt=True).encode()
    assert parse_retry_after(b" 120 ", now.timestamp()) == 120
    assert parse_retry_after(date, now.timestamp()) == 90
    assert parse_retry_after(date, now.timestamp() + 1000) == 0
    assert parse_retry_after(b"soon", now.timestamp()) is None
    assert parse_retry_after(b"-5", now.timestamp()) is None
