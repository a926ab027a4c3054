"""The words of the journal: an attempt, what was decided after it, by which rule."""

from enum import IntEnum
from typing import Final, NamedTuple

__all__ = ["FAILURES", "AttemptRecord", "Decision", "Rule", "failure_code"]


class Decision(IntEnum):
    """What became of the delivery after this record. DELIVERED, DEAD_LETTERED and DROPPED are end states."""

    DELIVERED = 1
    RETRYING = 2
    DEAD_LETTERED = 3
    DROPPED = 4
    FAILED = 5  # no more attempts; what becomes of the event follows in the next record
    REPLIED = 6  # the reply was handed on
    RELEASED = 7  # given back to the channel without an outcome: it comes again
    BURYING = 8  # the dead-letter sink did not take it, and is tried again
    REPLYING = 9  # the reply address did not take the reply, and is tried again


class Rule(IntEnum):
    """Why. The text is what `eventing trace` prints behind the decision."""

    ACCEPTED = 1
    EXPONENTIAL = 2
    LINEAR = 3
    IMMEDIATE = 4
    RETRY_AFTER = 5
    EXHAUSTED = 6
    NOT_RETRIABLE = 7
    NO_DEAD_LETTER_SINK = 8
    DEAD_LETTER_FAILED = 9
    OVERFLOW = 10
    SUBSCRIPTION_DELETED = 11
    CHANNEL_DELETED = 12
    SHUTDOWN = 13
    REPLY_FAILED = 14
    LOOP = 16  # 15 was never given

    @property
    def text(self) -> str:
        return _TEXTS[self]

    @property
    def reason(self) -> str:
        """The reason as it stands in records, metrics and conditions: CamelCase."""
        return _REASONS[self]

    def told(self, delay_s: float) -> str:
        """The text, with the back-off that the policy names (0: not known)."""
        if delay_s <= 0 or self not in _BACK_OFFS:
            return self.text
        return f"{self.name.lower()} PT{delay_s:.6g}S, jitter"


_TEXTS: Final = {
    Rule.ACCEPTED: "the subscriber accepted it",
    Rule.EXPONENTIAL: "exponential back-off with jitter",
    Rule.LINEAR: "linear back-off with jitter",
    Rule.IMMEDIATE: "no back-off configured",
    Rule.RETRY_AFTER: "the subscriber asked for it by Retry-After",
    Rule.EXHAUSTED: "all attempts are used up",
    Rule.NOT_RETRIABLE: "this answer is final",
    Rule.NO_DEAD_LETTER_SINK: "no dead-letter sink is configured",
    Rule.DEAD_LETTER_FAILED: "the dead-letter sink did not take it",
    Rule.OVERFLOW: "the subscription was behind by the channel's bound",
    Rule.SUBSCRIPTION_DELETED: "the subscription was deleted",
    Rule.CHANNEL_DELETED: "the channel was deleted",
    Rule.SHUTDOWN: "the process stopped and its memory with it",
    Rule.REPLY_FAILED: "the reply could not be handed on",
    Rule.LOOP: "it came back too often",
}

_REASONS: Final = {rule: "".join(word.capitalize() for word in rule.name.split("_")) for rule in Rule}
_BACK_OFFS: Final = frozenset({Rule.EXPONENTIAL, Rule.LINEAR})

# Kinds of failed exchanges (eventing.wire.client.ResponseFailure.kind), by the code that a record holds. Append only.
FAILURES: Final = (
    "",
    "Timeout",
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionLost",
    "NameNotResolved",
    "AddressDenied",
    "TLSError",
    "ProtocolError",
    "HeadersTooLarge",
    "BodyTooLarge",
    "InvalidReply",
    "ReplyFailed",
)
_CODES: Final = {kind: code for code, kind in enumerate(FAILURES)}


def failure_code(kind: str) -> int:
    """The code of a failure kind; a kind that is not listed is a fault of the program."""
    return _CODES[kind]


class AttemptRecord(NamedTuple):
    """One record of the ring, unpacked. Attempt 0: no attempt was made, only the decision."""

    receipt: int
    started: float
    duration_s: float
    wait_s: float
    subscriber: int
    detail: int
    status: int
    attempt: int
    limit: int
    decision: Decision
    rule: Rule
    failure: int
