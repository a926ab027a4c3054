"""What subscribers, reply addresses and dead-letter sinks answered, as the journal tells it; and no secrets in it."""

import gc
from pathlib import Path
from typing import Any

from eventing.journal import Journal
from eventing.runtime.mesh import Mesh
from eventing.testing.sinks import Answer, Sink
from tests.support.questions import REPLY, SECRET, Eventing, applied, dead_letter, ended, manifest, post


def test_the_decision_names_its_rule_and_the_answer_is_kept(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    answer = Answer(503, (("content-type", "text/plain"), ("retry-after", "1"), ("set-cookie", SECRET)), b"so \x1b[2J busy")
    sink.script("/ruled", answer, Answer(503, body=b"late"))
    applied(eventing, tmp_path, "ruled", manifest("ruled", f"{sink.url}/ruled", retry=3, backoffPolicy="linear"))
    post(mesh, "ruled", "ruled-1")
    first, second, third = ended(eventing, "ruled-1").attempts
    assert first.decision == "503 → retry 1 of 3 in 1.0 s: the subscriber asked for it by Retry-After"
    assert first.response is not None
    assert first.response.headers == {
        "content-type": "text/plain", "retry-after": "1", "set-cookie": "***", "content-length": "12",
    }  # fmt: skip
    assert first.response.body == "so  [2J busy"
    assert second.decision.startswith("503 → retry 2 of 3 in 0.02")
    assert second.decision.endswith(" s: linear PT0.01S, jitter")
    assert (second.rule, second.retries, second.outcome) == ("Linear", 3, "retrying")
    assert (third.decision, third.response) == ("delivered: 200", None)
    shown = eventing("trace", "ruled-1")
    assert "answered text/plain, retry-after: 1, set-cookie: ***, “so  [2J busy”" in shown
    assert "\x1b" not in shown


MAINTENANCE = (
    ("X-Reason", "maintenance"), ("Server", "shop/7"), ("Date", "Wed, 25 Nov 2026 16:00:00 GMT"), ("Retry-After", "0"),
    ("WWW-Authenticate", f'Bearer realm="{SECRET}"'), ("X-Evil", "\x9b2J"),
)  # fmt: skip
TOLD = {
    "x-reason": "maintenance", "server": "shop/7", "date": "Wed, 25 Nov 2026 16:00:00 GMT", "retry-after": "0",
    "www-authenticate": "***", "x-evil": "\\x9b2J",
}  # fmt: skip


def test_the_whole_head_of_an_answer_that_did_not_succeed(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    """With a body, which is parsed each time, and without, which is recognised from the second on; in memory and on disk."""
    sink.always("/head", Answer(503, MAINTENANCE, b"back at five"))
    sink.always("/bodiless", Answer(503, MAINTENANCE))
    for name, length in (("head", "12"), ("bodiless", "0")):
        applied(eventing, tmp_path, name, manifest(name, f"{sink.url}/{name}", retry=2))
        post(mesh, name, f"{name}-1")
        attempts = ended(eventing, f"{name}-1").attempts[:3]
        assert [attempt.response and attempt.response.headers for attempt in attempts] == [TOLD | {"content-length": length}] * 3
        assert [attempt.response and attempt.response.headers_cut for attempt in attempts] == [0] * 3
    shown = (
        "answered retry-after: 0, x-reason: maintenance, server: shop/7, www-authenticate: ***, x-evil: \\x9b2J, “back at five”"
    )
    assert eventing("trace", "head-1").count(shown) == 3
    assert shown in eventing("why", "head")
    (on_disk,) = [path.read_bytes() for path in (mesh.data_dir / "journal").glob("*")]
    assert on_disk.count(b'"x-reason":"maintenance"') == 6


def test_a_head_without_end_is_cut_and_says_so(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    many = tuple((f"X-{number}", "v" * 300) for number in range(30))
    sink.always("/many", Answer(400, (*many, ("x-last", "small"))))
    sink.always("/huge", Answer(400, (("x-reason", "talkative"),), b"x" * 2_000_000))
    applied(eventing, tmp_path, "many", manifest("many", f"{sink.url}/many"))
    applied(eventing, tmp_path, "huge", manifest("huge", f"{sink.url}/huge"))
    post(mesh, "many", "many-1")
    post(mesh, "huge", "huge-1")
    response = ended(eventing, "many-1").attempts[0].response
    assert response is not None
    assert (response.headers["x-0"], response.headers["x-last"]) == ("v" * 256 + "…", "small")
    assert response.headers_cut == 30, "seven are shortened, the others left out"
    assert " more headers" in eventing("trace", "many-1")
    attempt = ended(eventing, "huge-1").attempts[0]
    assert attempt.error.startswith("BodyTooLarge")
    assert attempt.response is not None
    assert attempt.response.headers["x-reason"] == "talkative"


def test_a_redirect_is_not_followed_and_says_where_to(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    sink.always("/moved", Answer(301, (("location", f"/there?token={SECRET}"),)))
    applied(eventing, tmp_path, "moved", manifest("moved", f"{sink.url}/moved"))
    post(mesh, "moved", "moved-1")
    assert ended(eventing, "moved-1").state == "dropped"
    assert "answered location: /there?token=***" in eventing("trace", "moved-1")
    assert "give the address to which it redirects" in eventing("why", "moved")


def test_each_attempt_at_the_dead_letter_sink_and_the_reply_address(
    mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path
) -> None:
    sink.always("/patient", Answer(200, REPLY, b"answer"))
    sink.script("/patient-reply", Answer(503), *[Answer(404)] * 2)
    sink.always("/patient-reply", Answer(400))
    sink.script("/patient-dls", Answer(429, body=b"not now"))
    letters = dead_letter(sink, "/patient-dls")
    text = manifest("patient", f"{sink.url}/patient", reply=f"{sink.url}/patient-reply", retry=1, **letters)
    applied(eventing, tmp_path, "patient", text)
    post(mesh, "patient", "patient-1")
    found = ended(eventing, "patient-1")
    told = [(attempt.outcome, attempt.number, attempt.status) for attempt in found.attempts]
    assert told == [
        ("replying", 1, 503), ("retrying", 1, 200), ("replying", 1, 404), ("failed", 2, 200),
        ("burying", 1, 429), ("dead-lettered", 0, 200),
    ]  # fmt: skip
    assert found.attempts[4].decision.startswith("dead-letter sink: 429 → retry 1 of 1 in 0.01")
    assert found.attempts[4].error == "not now"
    assert "reply: 503 → retry 1 of 1 in 0.01" in eventing("trace", "patient-1")


def test_what_a_reply_address_and_a_dead_letter_sink_refused_with(
    mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path
) -> None:
    sink.always("/turned-down", Answer(200, REPLY, b"answer"))
    sink.always("/turned-down-reply", Answer(400, (("x-reason", "no replies"),), b"thanks"))
    sink.always("/turned-down-dls", Answer(422, (("x-reason", "full"),), b"no more"))
    letters = dead_letter(sink, "/turned-down-dls")
    text = manifest("turned-down", f"{sink.url}/turned-down", reply=f"{sink.url}/turned-down-reply", retry=0, **letters)
    applied(eventing, tmp_path, "turned-down", text)
    post(mesh, "turned-down", "turned-down-1")
    found = ended(eventing, "turned-down-1")
    assert (found.state, found.reason) == ("dropped", "DeadLetterFailed")
    first, last = found.attempts
    assert (first.outcome, first.status) == ("failed", 200)
    assert first.error == f"ReplyFailed: {sink.url}/turned-down-reply: 400"
    assert first.response is not None
    assert (first.response.headers["x-reason"], first.response.body) == ("no replies", "thanks")
    assert last.response is not None
    assert (last.response.headers["x-reason"], last.response.body) == ("full", "no more")
    shown = eventing("trace", "turned-down-1")
    assert f"(http://127.0.0.1:{sink.url.rpartition(':')[2]}/turned-down-dls: 422)" in shown
    assert "answered x-reason: no replies, “thanks”" in shown
    assert "answered x-reason: full, “no more”" in shown


def test_no_secret_is_kept_or_told(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    """Not in what is answered, and not on disk: credentials of requests, of addresses, and what a subscriber says of them."""
    echo = f'POST /secret?token={SECRET} refused: Authorization: Bearer {SECRET} {{"password": "{SECRET}"}}'.encode()
    sink.always(
        "/secret", Answer(401, (("www-authenticate", SECRET), ("set-cookie", SECRET), ("content-type", "text/plain")), echo)
    )
    url = f"{sink.url}/secret?token={SECRET}"
    applied(eventing, tmp_path, "secrets", manifest("secrets", url, retry=0, **dead_letter(sink, f"/dls?key={SECRET}")))
    headers: dict[str, Any] = {"authorization": f"Bearer {SECRET}", "cookie": f"session={SECRET}", "proxy_authorization": SECRET}
    assert post(mesh, "secrets", "secrets-1", **headers) == 202
    assert post(mesh, f"secrets?token={SECRET}", None, **headers) == 400
    assert post(mesh, f"nothing?token={SECRET}", "secrets-2", **headers) == 404
    assert ended(eventing, "secrets-1").state == "dead-lettered"
    told = eventing("trace", "secrets-1") + eventing("trace", "secrets-1", "-o", "json", "--data")
    told += eventing("trace", "secrets-2", code=3) + eventing("why", "secrets") + eventing("why", "secrets", "-o", "json")
    assert SECRET not in told
    assert "token=***" in told
    assert SECRET not in _memory(), "in the memory of a journal of this process"
    on_disk = b"".join(path.read_bytes() for path in (mesh.data_dir / "journal").glob("*"))
    assert b"secrets-1" in on_disk
    assert SECRET.encode() not in on_disk


def _memory() -> str:
    """All that the journals in this process hold."""
    held = []
    for journal in (each for each in gc.get_objects() if isinstance(each, Journal)):
        held += [bytes(ring).decode("latin-1") for ring in (journal._bytes, journal._details._ring)]
        held += [str(journal.refusals), str(list(journal.places.entries())), str(journal.places._places)]
    assert any("secrets-1" in each for each in held)
    return "".join(held)
