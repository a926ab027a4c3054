"""What to do after an attempt: a pure function of the outcome, the attempt's number, the policy and a random number.

The table of statuses is that of the Knative data-plane contract (specs/eventing/data-plane.md, "Derived from"): 404, 408, 409,
429 and 5xx are retriable, 2xx is success, all else is final; what no table lists is retriable.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from eventing.journal import Decision, Rule

__all__ = ["BACKOFF_MAX_S", "JITTER", "RETRY_AFTER_DEFAULT_MAX_S", "Policy", "Verdict", "decide", "parse_retry_after"]

RETRIABLE_4XX: Final = frozenset({404, 408, 409, 429})
# A wait grows by up to this share, so that a thousand events that failed together do not come back together. Upwards only:
# nobody is called sooner than they asked.
JITTER: Final = 0.2
# `retry: 30` with an exponential back-off would wait for years; an hour is the longest single wait.
BACKOFF_MAX_S: Final = 3600.0
RETRY_AFTER_DEFAULT_MAX_S: Final = 300.0
RETRY_AFTER_STATUSES: Final = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Policy:
    """How often and when to try: `retry` excludes the first attempt; times in seconds.

    `retry_after_max_s` is how long a Retry-After is honoured; 0 ignores it."""

    retry: int = 5
    timeout_s: float = 30.0
    backoff_policy: str = "exponential"  # exponential | linear
    backoff_delay_s: float = 0.5
    retry_after_max_s: float = RETRY_AFTER_DEFAULT_MAX_S


@dataclass(frozen=True, slots=True)
class Verdict:
    """DELIVERED, RETRYING after `wait_s`, or FAILED; and the rule that says why."""

    decision: Decision
    rule: Rule
    wait_s: float = 0.0


_DELIVERED: Final = Verdict(Decision.DELIVERED, Rule.ACCEPTED)
_FINAL: Final = Verdict(Decision.FAILED, Rule.NOT_RETRIABLE)
_EXHAUSTED: Final = Verdict(Decision.FAILED, Rule.EXHAUSTED)


def retriable(status: int) -> bool:
    """Whether a status asks for another attempt. 0 stands for no answer at all."""
    if status < 100 or status >= 500:
        return True
    return status in RETRIABLE_4XX


def decide(
    status: int, attempt: int, policy: Policy, random: float, *, retry_after_s: float | None = None, permanent: bool = False
) -> Verdict:
    """What follows attempt number `attempt` (from 1). `status` 0: no answer came. `random` is from [0, 1).

    `permanent`: the failure cannot go away by itself (address denied). `retry_after_s`: what the answer's Retry-After asks.
    """
    if 200 <= status < 300:
        return _DELIVERED
    if permanent or not retriable(status):
        return _FINAL
    if attempt > policy.retry:
        return _EXHAUSTED
    wait, rule = backoff(attempt, policy)
    wait *= 1.0 + JITTER * random
    if retry_after_s is not None and status in RETRY_AFTER_STATUSES:
        asked = min(retry_after_s, policy.retry_after_max_s)
        if asked > wait:
            return Verdict(Decision.RETRYING, Rule.RETRY_AFTER, asked)
    return Verdict(Decision.RETRYING, rule, wait)


def backoff(attempt: int, policy: Policy) -> tuple[float, Rule]:
    """The wait after attempt number `attempt`, without jitter: linear d, 2d, 3d…; exponential d, 2d, 4d…"""
    delay = policy.backoff_delay_s
    if delay <= 0:
        return 0.0, Rule.IMMEDIATE
    if policy.backoff_policy == "linear":
        return min(delay * attempt, BACKOFF_MAX_S), Rule.LINEAR
    # 2.0**1023 is the largest power that a float holds; the cap is reached long before.
    return min(delay * 2.0 ** min(attempt - 1, 64), BACKOFF_MAX_S), Rule.EXPONENTIAL


def parse_retry_after(value: bytes, now: float) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 §10.2.3: seconds or a date); None for anything else.

    `now` is the calendar's time in seconds. A date in the past asks for 0."""
    text = value.strip()
    if text.isdigit() and text.isascii():
        return float(text[:12])
    try:
        date = parsedate_to_datetime(text.decode("ascii"))
    except (ValueError, UnicodeDecodeError, IndexError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.fromtimestamp(now, UTC)).total_seconds())
