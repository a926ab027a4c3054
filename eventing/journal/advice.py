"""What to do about a subscription that does not get its events: pure functions of the figures."""

from collections.abc import Iterator
from typing import Final

from eventing.journal.documents import Attempt, Counts, Finding

__all__ = ["findings"]

_OLD_S: Final = 60.0
# What a failed exchange means, and what to do; {subscriber} and {timeout} are filled in.
_FAILED: Final = {
    "Timeout": (
        "it does not answer within {timeout}",
        "make it answer sooner (accept with 202, work afterwards), or raise spec.delivery.timeout",
    ),
    "ConnectFailed": (
        "nothing accepts connections at {subscriber}",
        "start the subscriber, or correct its address in spec.subscriber",
    ),
    "ConnectTimeout": (
        "{subscriber} does not answer to a connection",
        "look whether the host is up and a firewall is in between; or correct the address in spec.subscriber",
    ),
    "ConnectionLost": (
        "it closes the connection before it has answered",
        "look into the subscriber's log: it may crash or restart",
    ),
    "NameNotResolved": (
        "the host name of {subscriber} is not known",
        "correct the address in spec.subscriber, or the name service of this machine",
    ),
    "AddressDenied": (
        "{subscriber} is an address to which nothing is sent (link-local, cloud metadata)",
        "give the subscriber another address",
    ),
    "TLSError": (
        "its certificate is not trusted, or it speaks no TLS",
        "give the CA in spec.subscriber.CACerts, or use http:// if it has no certificate",
    ),
    "ProtocolError": ("what answers there does not speak HTTP/1.1", "look whether the port in spec.subscriber is the right one"),
    "HeadersTooLarge": ("its answers have too many or too large headers", "let the subscriber answer with fewer"),
    "BodyTooLarge": ("its answers are too large", "let the subscriber answer with an empty body, or an event"),
    "InvalidReply": (
        "it answers with an event that is broken",
        "correct the event in its answer, or answer without ce- headers if it is not meant as one",
    ),
}
_ANSWERED: Final = {
    301: ("it redirects, and redirects are not followed", "give the address to which it redirects in spec.subscriber"),
    400: ("it says that the request is wrong", "look at what it answered (above) and into its log"),
    401: ("it asks for credentials", "let it accept the mesh's requests, or put a proxy that adds them in between"),
    404: ("there is nothing at that path", "correct the path in spec.subscriber"),
    405: ("it takes no POST at that path", "correct the path in spec.subscriber, or let it take POST"),
    408: ("it says that the request was too slow", "look whether it, or a proxy before it, is overloaded"),
    410: ("it says that it is gone for good", "give another subscriber, or delete the Subscription"),
    413: ("events are too large for it", "raise its limit"),
    415: ("it does not take the events' format", "set spec.delivery.format to json or binary"),
    429: ("it asks for fewer requests", "lower the annotation eventing-mesh.dev/concurrency, or raise its limit"),
    503: ("it is overloaded, or not up yet", "look into its log; give it more instances, or lower eventing-mesh.dev/concurrency"),
}
_SAME: Final = {302: 301, 303: 301, 307: 301, 308: 301, 403: 401, 422: 400, 502: 503, 504: 503}
_RULES: Final = {
    "ReplyFailed": ("its replies could not be handed on", "look at what spec.reply refers to; the last error says how it failed"),
    "Loop": ("its replies go in a circle", "look where replies go: not back to the same channel"),
}
_DROPPED: Final = {
    "NoDeadLetterSink": (
        "events were dropped after their last attempt, since there is no dead-letter sink",
        "set spec.delivery.deadLetterSink, so that they are kept somewhere",
    ),
    "DeadLetterFailed": ("events were dropped, since the dead-letter sink did not take them", "look at the dead-letter sink"),
    "Overflow": (
        "events were dropped, since the subscription was behind by the channel's bound",
        "make the subscriber faster or raise eventing-mesh.dev/concurrency, and set spec.delivery.deadLetterSink",
    ),
    "Loop": (
        "events were dropped, since they went in a circle",
        "look at the replies: they must not lead back to the same channel",
    ),
    "Shutdown": ("events were dropped when the mesh stopped", "use a durable channel, or set spec.delivery.deadLetterSink"),
}


def findings(
    *,
    subscriber: str,
    channel: str,
    counts: Counts,
    failure: Attempt | None,
    pending: int,
    oldest_s: float,
    in_flight: int,
    concurrency: int,
    retry: int,
    timeout_s: float,
    dead_letter_sink: str,
) -> list[Finding]:
    """What is noticed, the most serious first, each with what to do; never empty."""
    found = [
        *_attempts(subscriber, counts, failure, retry, timeout_s),
        *_ends(counts, dead_letter_sink),
        *_lag(counts, pending, oldest_s, in_flight, concurrency),
        *_silence(channel, counts, pending),
    ]
    order = ("error", "warning", "note", "ok")
    found.sort(key=lambda each: order.index(each.severity))
    if not found:
        found.append(Finding(severity="ok", finding="events are delivered", action="nothing to do"))
    return found


def _attempts(subscriber: str, counts: Counts, failure: Attempt | None, retry: int, timeout_s: float) -> Iterator[Finding]:
    if failure is None or counts.attempts == counts.delivered:
        return
    kind = failure.error.partition(":")[0]
    what, action = _RULES.get(failure.rule) or _RULES.get(kind) or _FAILED.get(kind) or _answered(failure.status)
    names = {"subscriber": subscriber or "the subscriber", "timeout": f"{timeout_s:g} s"}
    failed = counts.attempts - counts.delivered
    share = f"{failed} of {counts.attempts} attempts failed"
    finding = f"{what.format(**names)} ({share})"
    if counts.delivered:
        yield Finding(severity="warning", finding=finding, action=action.format(**names))
    else:
        retries = f"; what fails is tried again (retry: {retry})" if counts.retrying and retry else ""
        yield Finding(severity="error", finding=finding, action=action.format(**names) + retries)


def _answered(status: int) -> tuple[str, str]:
    known = _ANSWERED.get(_SAME.get(status, status))
    if known:
        return f"it answers {status}: {known[0]}", known[1]
    if status >= 500:
        return f"it answers {status}: it has failed", "look into its log"
    if status:
        return f"it answers {status}, which is final", "look at what it answered (above) and into its log"
    return "it does not answer", "look whether it is up"


def _ends(counts: Counts, dead_letter_sink: str) -> Iterator[Finding]:
    for reason, count in counts.dropped.items():
        known = _DROPPED.get(reason)
        if known:
            yield Finding(severity="error", finding=f"{known[0]} ({count})", action=known[1])
    if counts.dead_lettered:
        total = sum(counts.dead_lettered.values())
        yield Finding(
            severity="warning",
            finding=f"{total} events went to the dead-letter sink {dead_letter_sink}".rstrip(),
            action="they are safe there; send them again once the subscriber accepts them",
        )


def _lag(counts: Counts, pending: int, oldest_s: float, in_flight: int, concurrency: int) -> Iterator[Finding]:
    failing = counts.attempts > counts.delivered
    if not failing and pending > in_flight >= concurrency:
        yield Finding(
            severity="warning" if oldest_s > _OLD_S else "note",
            finding=f"{pending} events wait, and all {concurrency} places are taken: the subscriber is slower than the events",
            action="raise the annotation eventing-mesh.dev/concurrency, or make the subscriber faster",
        )


def _silence(channel: str, counts: Counts, pending: int) -> Iterator[Finding]:
    if counts.accepted or counts.attempts or pending:
        return
    name = channel.partition("/")[2] or channel
    namespace = channel.partition("/")[0]
    yield Finding(
        severity="note",
        finding=f"the channel {channel} has accepted no event in the last {counts.window_s / 60:g} minutes",
        action=f"send one: eventing send -n {namespace} --channel {name}; `eventing trace ID` tells why one did not come",
    )
