"""When a delivery is tried again, when not, and where the last refusal leads. In virtual time."""

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from eventing.testing.sinks import Answer, Received, Sink
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.virtual_plane import run, waits


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, 1, 2, 4, 8]),
        ({"retry": 3, "backoff_delay": "PT1S"}, [1, 2, 4]),
        ({"retry": 3, "backoff_delay": "PT2S", "backoff_policy": "linear"}, [2, 4, 6]),
        ({"retry": 2, "backoff_delay": "PT0S"}, [0, 0]),
        ({"retry": 0}, []),
        ({"retry": 1, "backoff_delay": "PT10M"}, [600]),
    ],
)
def test_when_it_is_tried_again(options: dict[str, Any], expected: list[float]) -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", **options))
        sink.otherwise(Answer(500, (), b"no\x1b[31m luck"))
        receipt = await mesh.accepted(make_event())
        assert await mesh.ended(receipt, within=10_000, step=0.5) == ("dropped", "NoDeadLetterSink")
        assert waits(sink.requests) == expected
        assert {received.event_id for received in sink.requests} == {"1"}
        attempts = (await mesh.deliveries(receipt))["s"]["attempts"]
        assert [attempt["number"] for attempt in attempts] == [*range(1, len(expected) + 2), 0]
        assert [attempt["status"] for attempt in attempts[:-1]] == [500] * (len(expected) + 1)
        assert attempts[0]["error"] == "no [31m luck"
        assert mesh.worker("s").metrics.drops == {"NoDeadLetterSink": 1}

    run(test)


def test_jitter_lengthens_the_waits_and_never_shortens_them() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", backoff_delay="PT10S"))
        sink.otherwise(Answer(500))
        await mesh.ended(await mesh.accepted(make_event()), within=10_000, step=1)
        for wait, least in zip(waits(sink.requests), (10, 20, 40, 80, 160), strict=True):
            assert wait == pytest.approx(least * 1.1)

    run(test, rand=lambda: 0.5)


@pytest.mark.parametrize("status", [404, 408, 409, 429, 500, 502, 503, 504])
def test_it_is_tried_again_and_delivered(status: int) -> None:
    """CDP-31."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", retry=1))
        sink.script("/", Answer(status))
        assert await mesh.ended(await mesh.accepted(make_event())) == ("delivered", "")
        assert len(sink.requests) == 2

    run(test)


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 405, 410, 413, 415, 422])
def test_a_final_answer_is_final_and_redirects_are_not_followed(status: int) -> None:
    """A3."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", dead_letter=sink.url + "/dead"))
        sink.script("/", Answer(status, (("location", sink.url + "/elsewhere"),)))
        assert await mesh.ended(await mesh.accepted(make_event())) == ("dead-lettered", "NotRetriable")
        assert [received.path for received in sink.requests] == ["/", "/dead"]
        await mesh.accepted(make_event("2"))
        assert await mesh.ended("2") == ("delivered", ""), "410 disables nothing"

    run(test)


@pytest.mark.parametrize(
    ("value", "options", "expected"),
    [
        ("7", {}, 7),
        ("315360000", {}, 300),
        ("315360000", {"retry_after_max": "PT10M"}, 600),
        ("7", {"retry_after_max": "PT0S"}, 0.5),
        ("0", {}, 0.5),
        ("soon", {}, 0.5),
        (format_datetime(datetime(2026, 1, 1, 0, 1, tzinfo=UTC), usegmt=True), {}, 60),
        (format_datetime(datetime(2036, 1, 1, tzinfo=UTC), usegmt=True), {}, 300),
        (format_datetime(datetime(2016, 1, 1, tzinfo=UTC), usegmt=True), {}, 0.5),
    ],
)
def test_retry_after_is_honoured_and_capped(value: str, options: dict[str, Any], expected: float) -> None:
    """F17. The calendar of virtual time begins at 2026-01-01T00:00:00Z."""

    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", **options))
        for id_, answer in (("1", Answer.retry_after(503, value)), ("2", Answer.retry_after(429, value))):
            sink.requests.clear()
            sink.script("/", answer)
            assert await mesh.ended(await mesh.accepted(make_event(id_)), within=10_000, step=0.5) == ("delivered", "")
            (wait,) = waits(sink.requests)
            assert wait == pytest.approx(expected, abs=1.0)
            assert wait >= expected or "GMT" in value
            if expected == 60:
                break

    run(test)


def test_more_retries_than_a_small_number_holds() -> None:
    async def test(mesh: DataPlaneRig, sink: Sink) -> None:
        mesh.channel("orders", subscriber("s", sink.url + "/", retry=70_000, backoff_delay="PT0S"))
        answered = 0

        def answer(_received: Received) -> Answer:
            nonlocal answered
            answered += 1
            sink.requests.clear()
            return Answer(500 if answered < 3 else 200)

        sink.otherwise(answer)
        worker = mesh.worker("s")
        receipt = await mesh.accepted(make_event())
        assert await mesh.ended(receipt) == ("delivered", "")
        from eventing.delivery.worker import _NOTE, attempts_made

        lease: Any = type("Lease", (), {"note": _NOTE.pack(70_000, 1)})()
        assert attempts_made(lease) == 70_000
        mesh.journal.attempted(1, worker.number, 65_536, 0.0, 0.0, 500, 2, 2, limit=65_535)

    run(test)
