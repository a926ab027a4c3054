"""The delivery in force, as people are told it; and the documentation's table, which is the same."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.delivery.effective import Row, effective_delivery
from eventing.resources.subscribers import read_subscribers

DOCS = Path(__file__).parents[3] / "docs" / "delivery.md"


def subscription(annotations: dict[str, str] | None = None, **delivery: Any) -> dict[str, Any]:
    return {"metadata": {"annotations": annotations or {}}, "spec": {"delivery": delivery} if delivery else {}}


def channel(**delivery: Any) -> dict[str, Any]:
    return {"metadata": {}, "spec": {"delivery": delivery}}


def told(rows: tuple[Row, ...], what: str) -> tuple[str, str]:
    (row,) = (row for row in rows if row.what.startswith(what))
    return row.value, row.source


def test_the_documented_defaults_are_those_of_the_code() -> None:
    lines = DOCS.read_text().partition("| what | default | set by |\n")[2].splitlines()[1:]
    table = lines[: lines.index("")]
    rows = effective_delivery()
    assert {row.source for row in rows} == {"default"}
    assert table == [
        f"| {row.what} | {row.value} | {', '.join(f'`{field}`' for field in row.field.split(', '))} |" for row in rows
    ]


@pytest.mark.parametrize(
    ("delivery", "what", "value"),
    [
        ({"retry": 0}, "retries", "none"),
        ({"retry": 0}, "wait", "none"),
        ({"retry": 12}, "wait", "exponential: 0.5, 1, 2, 4, 8, 16 … s, each up to 20% longer"),
        ({"backoffPolicy": "linear", "backoffDelay": "PT2S", "retry": 3}, "wait", "linear: 2, 4, 6 s, each up to 20% longer"),
        ({"backoffDelay": "PT40M", "retry": 2}, "wait", "exponential: 2400, 3600 s, each up to 20% longer"),
        ({"backoffDelay": "PT0S"}, "wait", "none: at once"),
        ({"timeout": "PT1M30S"}, "time", "90 s"),
        ({"timeout": "PT2H"}, "time", "2 h"),
        ({"retryAfterMax": "PT0S"}, "Retry-After", "ignored"),
        ({"retryAfterMax": "PT10M"}, "Retry-After", "honoured up to 10 min"),
        ({"format": "json"}, "content", "structured (json)"),
        ({"deadLetterSink": {"uri": "http://dead/"}}, "after", "to http://dead/"),
        ({"deadLetterSink": {"ref": {"kind": "Service", "name": "dead"}}}, "after", "to Service dead, not resolved yet"),
    ],
)
def test_what_is_said_is_shown_with_who_said_it(delivery: dict[str, Any], what: str, value: str) -> None:
    assert told(effective_delivery(subscription(**delivery)), what)[0] == value
    assert told(effective_delivery(subscription(), channel(**delivery)), what)[0] == value
    assert "channel" in {row.source for row in effective_delivery(subscription(), channel(**delivery))}
    assert "subscription" in {row.source for row in effective_delivery(subscription(**delivery), channel(retry=9))}


def test_the_subscriptions_delivery_replaces_the_channels_but_for_the_dead_letter_sink() -> None:
    of_channel = channel(retry=9, timeout="PT1S", deadLetterSink={"ref": {"kind": "Service", "name": "dead"}})
    of_channel["status"] = {"deadLetterSinkUri": "http://dead.example/"}
    rows = effective_delivery(subscription(retry=2), of_channel)
    assert told(rows, "retries") == ("2", "subscription")
    assert told(rows, "time") == ("30 s", "default")
    assert told(rows, "after") == ("to http://dead.example/", "channel")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1", ("1, in order", "subscription")),
        ("5000", ("1000, in no order", "subscription")),
        ("many", ("10, in no order", "default")),
    ],
)
def test_concurrency(text: str, shown: tuple[str, str]) -> None:
    assert told(effective_delivery(subscription({"eventing-mesh.dev/concurrency": text})), "attempts") == shown


@pytest.mark.parametrize(
    ("channel", "shown"),
    [
        ({"kind": "InMemoryChannel"}, "10, in no order"),
        ({"kind": "KafkaChannel"}, "10, in the order that the KafkaChannel keeps"),
        (
            {"kind": "Channel", "spec": {"channelTemplate": {"kind": "KafkaChannel"}}},
            "10, in the order that the KafkaChannel keeps",
        ),
    ],
)
def test_the_order_is_the_channels(channel: dict[str, Any], shown: str) -> None:
    assert told(effective_delivery(subscription(), channel), "attempts")[0] == shown


retries = st.fixed_dictionaries({}, optional={"retry": st.integers(0, 9), "timeout": st.just("PT7S"), "format": st.just("json")})


@given(retries, retries)
def test_what_is_told_is_what_the_data_plane_reads(own: dict[str, Any], channels: dict[str, Any]) -> None:
    """The control plane writes the entry as the Subscription or else its channel has it; this is what deliveries go by."""
    (entry,) = read_subscribers({"metadata": {}, "spec": {"subscribers": [{"uid": "u", "delivery": own or channels}]}})
    rows = effective_delivery(subscription(**own), channel(**channels))
    assert told(rows, "retries")[0] == str(entry.delivery.retry or "none")
    assert told(rows, "time")[0] == f"{entry.delivery.timeout_s:g} s"
    assert told(rows, "content")[0] == ("structured (json)" if entry.delivery.format else "as it came")
