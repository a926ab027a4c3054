"""Secrets in text that is kept or shown: where they usually are, and what is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.observe.redaction import is_secret, redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pa55@host:80/p", "http://***@host:80/p"),
        ("amqp://guest:guest@mq", "amqp://***@mq"),
        ("http://h/p?token=abc&x=1#f", "http://h/p?token=***&x=***#f"),
        ("Cannot POST /hook?key=abc", "Cannot POST /hook?key=***"),
        ("<a href='/p?sig=abc'>", "<a href='/p?sig=***'>"),
        ("Authorization: Bearer abcdefgh", "Authorization: *** ***"),
        ("got bearer abc.def-ghi=", "got bearer ***"),
        ("Basic dXNlcjpwdw==", "Basic ***"),
        ('{"password": "abc", "n": 1}', '{"password": "***", "n": 1}'),
        ("api_key=abc, next", "api_key=***, next"),
        ("X-Hub-Signature: sha1=abc", "X-Hub-Signature: ***"),
    ],
)
def test_secrets_are_masked(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    ["http://host:8080/path", "503 Service Unavailable", "no complete answer in time", "[Errno 111] Connection refused",
     "retry 2 of 5: exponential PT0.5S, jitter", "ce-source: required attribute is missing", "time 12:00:01", ""],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_a_secret_that_the_cut_would_fall_into_is_masked_whole() -> None:
    text = "x" * 90 + " http://user:" + "s3cret" * 5 + "@host/"
    assert redacted(text, 115) == "x" * 90 + " http://***@host/"


@given(st.text(max_size=300), st.integers(0, 100))
def test_it_is_never_longer_than_asked_for(text: str, most: int) -> None:
    assert len(redacted(text, most)) <= most


@pytest.mark.parametrize(
    "name", ["Authorization", "x-api-key", "Set-Cookie", "client_secret", "accessToken", "PASSWORD", "x-signature"]
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["content-type", "retry-after", "server", "location", "ce-id"])
def test_names_of_others(name: str) -> None:
    assert not is_secret(name)
