"""How a subscription stands, and what happens as it happens."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import msgspec
import pytest

from eventing.cli.app import run
from eventing.journal.documents import Why
from eventing.runtime.mesh import Mesh
from eventing.runtime.way import TIMES
from eventing.testing.sinks import Answer, Sink
from tests.support.questions import SECRET, Eventing, applied, ended, manifest, post
from tests.support.waiting import eventually


def test_why_says_in_one_screen_how_a_subscription_stands(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    sink.script("/screen", Answer(503, body=b"busy"), Answer(503, body=b"busy"))
    sink.always("/screen", Answer(200))
    applied(eventing, tmp_path, "screen", manifest("screen", f"{sink.url}/screen?key={SECRET}", retry=0))
    assert "All is well" not in eventing("why", "screen"), "nothing was sent"
    assert "has accepted no event in the last 5 minutes" in eventing("why", "screen")
    for number in range(3):
        post(mesh, "screen", f"screen-{number}")
        ended(eventing, f"screen-{number}")
    shown = eventing("why", "default/screen")
    assert len(shown.splitlines()) <= 24, "one screen"
    assert "Ready since " in shown
    assert f"channel default/screen → {sink.url}/screen?key=***" in shown
    assert "3 accepted by the channel, 1 delivered, 2 dropped (NoDeadLetterSink)" in shown
    assert f"2 {TIMES} 503, 1 {TIMES} 200" in shown
    assert ", event screen-1, 503 → no more attempts" in shown
    assert "→ set spec.delivery.deadLetterSink" in shown
    document = msgspec.json.decode(eventing("why", "screen", "-o", "json"), type=Why)
    assert document.ready == "True"
    assert document.standing is not None
    assert (document.standing.pending, document.standing.counts.delivered) == (0, 1)
    assert [finding.severity for finding in document.findings] == ["error", "warning"]


def test_why_of_what_is_not_there(mesh: Mesh, eventing: Eventing, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why", "scren"]) == 3
    assert 'subscriptions.messaging.knative.dev "scren" not found' in capsys.readouterr().err
    assert run(["why", "a/b/c"]) == 2


def test_tail_follows_until_it_is_interrupted(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    sink.always("/tailed", lambda received: Answer(503, (("x-reason", "odd"),)) if received.number % 2 else Answer(200))
    applied(eventing, tmp_path, "tailed", manifest("tailed", f"{sink.url}/tailed"))
    with _tailing(mesh, tmp_path, "--channel", "tailed") as follow:
        follow(lambda: post(mesh, "tailed", "tailed-1", b'{"escape": "\x1b[2J"}'), "accepted ", "retrying ", "delivered ")
        code, out = follow.interrupted()
    lines = [line.split() for line in out.splitlines()]
    assert {line[1] for line in lines} == {"accepted", "retrying", "delivered"}
    assert "tailed-1" in out
    assert '{"escape": "\\x1b[2J"}' in out
    assert "503 → retry 1 of 5 in" in out
    assert "answered x-reason: odd" in out
    assert "\x1b" not in out
    assert code == 130


def test_tail_for_programs_is_an_object_a_line(mesh: Mesh, sink: Sink, eventing: Eventing, tmp_path: Path) -> None:
    applied(eventing, tmp_path, "lines", manifest("lines", f"{sink.url}/lines"))
    with _tailing(mesh, tmp_path, "-s", "lines", "-o", "json") as follow:
        follow(lambda: post(mesh, "lines", "lines-1"), "lines-1")
        _, out = follow.interrupted()
    entries = [json.loads(line) for line in out.splitlines()]
    assert {entry["subscription"] for entry in entries} == {"default/lines"}
    assert entries[0]["attempt"]["outcome"] == "delivered"


class _tailing:  # noqa: N801 - reads as a function
    """`eventing tail` in a process of its own."""

    def __init__(self, mesh: Mesh, directory: Path, *arguments: str) -> None:
        self._out = directory / "tail.out"
        command = [sys.executable, "-m", "eventing", "tail", "--data-dir", str(mesh.data_dir), *arguments]
        with self._out.open("wb") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __call__(self, act: Callable[[], object], *expected: str) -> None:
        """Act, again and again until the follower, which begins at a moment of its own, has told of it."""

        def probe() -> bool:
            act()
            time.sleep(0.3)
            out = self._out.read_text()
            return all(text in out for text in expected)

        eventually(probe, f"tail tells of {expected}")

    def interrupted(self) -> tuple[int, str]:
        self._process.send_signal(2)
        _, errors = self._process.communicate(timeout=20)
        assert errors == b""
        return self._process.returncode, self._out.read_text()

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
