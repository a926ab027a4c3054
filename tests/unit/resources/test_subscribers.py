"""Subscriber entries as the data plane reads them, and durations."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.errors import InvalidObjectError
from eventing.resources.duration import parse_duration
from eventing.resources.kinds import Object
from eventing.resources.subscribers import Delivery, read_subscribers


def channel(*subscribers: Object, **spec: object) -> Object:
    return {
        "metadata": {"name": "c", "namespace": "shop"},
        "spec": {"subscribers": list(subscribers), **spec},
    }


def test_nothing_given_means_the_defaults() -> None:
    (one,) = read_subscribers(channel({"uid": "u", "subscriberUri": "http://s"}))
    assert one.delivery == Delivery(5, 30.0, "exponential", 0.5, 300.0, None, None, None)
    assert (one.namespace, one.concurrency, one.generation) == ("shop", 10, 0)


def test_everything_given() -> None:
    (one,) = read_subscribers(
        channel(
            {
                "uid": "u",
                "name": "sub",
                "generation": 3,
                "subscriberUri": "http://s",
                "subscriberCACerts": "PEM",
                "replyUri": "http://r",
                "replyCACerts": "PEM2",
                "annotations": {"eventing-mesh.dev/concurrency": "1"},
                "delivery": {
                    "retry": 0,
                    "timeout": "PT1M",
                    "backoffPolicy": "linear",
                    "backoffDelay": "PT2S",
                    "retryAfterMax": "PT0S",
                    "format": "json",
                    "deadLetterSink": {"uri": "http://d", "CACerts": "PEM3"},
                },
            }
        )
    )
    assert one.delivery == Delivery(0, 60.0, "linear", 2.0, 0.0, "http://d", "PEM3", "json")
    assert (one.name, one.generation, one.concurrency, one.reply_uri) == ("sub", 3, 1, "http://r")
    assert (one.subscriber_ca_certs, one.reply_ca_certs) == ("PEM", "PEM2")


def test_the_channels_delivery_stands_in_whole_or_not_at_all() -> None:
    first, second = read_subscribers(
        channel({"uid": "1"}, {"uid": "2", "delivery": {"retry": 7}}, delivery={"retry": 1, "timeout": "PT5S"})
    )
    assert (first.delivery.retry, first.delivery.timeout_s) == (1, 5.0)
    assert (second.delivery.retry, second.delivery.timeout_s) == (7, 30.0)


@pytest.mark.parametrize("entry", [{}, {"uid": "u", "delivery": {"timeout": "soon"}}])
def test_an_unreadable_entry_is_named(entry: Object) -> None:
    with pytest.raises(InvalidObjectError, match=r"spec\.subscribers\[1\]"):
        read_subscribers(channel({"uid": "u"}, entry))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT0S", 0),
        ("PT0.5S", 0.5),
        ("PT1M30S", 90),
        ("P1DT1H", 90_000),
        ("P1W", 604_800),
        ("-PT1S", -1),
        ("PT-1S", -1),
        ("PT0,5S", 0.5),
        ("P0", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "P", "PT", "1s", "PT1", "P1S", "PT1H1D", "garbage", "P1DT", "PT1.S", "PTS"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        parse_duration(text)


@given(st.text(alphabet="PTYMWDHS0123456789.,-+ ", max_size=80))
def test_no_text_does_anything_but_parse_or_raise_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_duration(text)
