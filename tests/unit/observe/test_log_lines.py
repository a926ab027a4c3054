"""Log lines: one line each whatever is in them, fields in both formats, no secrets, nothing a terminal obeys."""

import io
import json
import logging
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventing.observe.lines import LogFormat, printable, render
from eventing.observe.logs import LineFormatter

FORMATS: tuple[LogFormat, ...] = ("text", "json")


def logged(log_format: LogFormat, message: str, *, name: str = "eventing.delivery", error: bool = False, **fields: Any) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(log_format, "dataplane"))
    logger = logging.getLogger(name)
    logger.propagate = False
    logger.addHandler(handler)
    if error:
        try:
            raise ValueError("planted\x1b[2J")
        except ValueError:
            logger.exception(message, extra=fields)
    else:
        logger.warning(message, extra=fields)
    logger.removeHandler(handler)
    logger.propagate = True
    return stream.getvalue()


def test_text_has_time_level_process_message_fields() -> None:
    line = logged("text", "subscriber refused", subscription="default/a", status=503, why="no room")
    time, level, process, rest = line.split(maxsplit=3)
    assert (len(time), level, process) == (12, "WARNING", "dataplane")
    assert rest == "subscriber refused  subscription=default/a  status=503  why='no room'\n"


def test_json_has_the_same_as_members() -> None:
    record = json.loads(logged("json", "subscriber refused", status=503))
    assert record.pop("time").endswith("Z")
    assert record == {"level": "warning", "process": "dataplane", "message": "subscriber refused", "status": 503}


@pytest.mark.parametrize("name", ["token", "Authorization", "api_secret", "db_password"])
def test_what_is_named_like_a_secret_is_masked(name: str) -> None:
    for log_format in FORMATS:
        assert "hunter2" not in logged(log_format, "connected", **dict[str, Any]({name: "hunter2"}))


def test_a_library_is_named() -> None:
    assert "logger=aiohttp.client" in logged("text", "slow", name="aiohttp.client")


def test_a_traceback_is_indented_text_or_a_member() -> None:
    below = logged("text", "failed", error=True).splitlines()[1:]
    assert below
    assert all(line.startswith("    ") for line in below)
    assert "\x1b" not in "".join(below)
    assert "ValueError: planted" in json.loads(logged("json", "failed", error=True))["detail"]


@given(st.text())
def test_a_line_stays_one_line(text: str) -> None:
    for log_format in FORMATS:
        line = render(log_format, moment=0.0, level="info", process="p", message="m", fields={"f": text})
        assert line.isprintable() or log_format == "json" or all(character not in line for character in "\n\r\x1b\x07\x9b")
        assert "\n" not in line


def test_printable_shows_escapes_and_keeps_what_is_asked() -> None:
    assert printable("a\x1b[31mb\r\n\u202ec") == r"a\x1b[31mb\x0d\x0a\u202ec"
    assert printable("a\n\tb\x00", keep="\n\t") == "a\n\tb\\x00"
    assert printable("naïve ✓ 注文") == "naïve ✓ 注文"


def test_what_python_prints_itself_is_a_line_too() -> None:
    """In a process of its own: warnings, errors of threads and of finalizers, and the one that ends it."""
    code = """
import threading, warnings
from eventing.observe.logs import configure
configure("json", "control")
warnings.warn("planted warning")
thread = threading.Thread(target=lambda: 1 / 0, name="planted-thread")
thread.start()
thread.join()
class Late:
    def __del__(self): raise ValueError("planted late error")
Late()
raise RuntimeError("planted end")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["process"] for line in lines} == {"control"}
    warning, thread, late, end = lines
    assert "planted warning" in warning["message"]
    assert (thread["message"], thread["ended"]) == ("a thread was ended by an error", "planted-thread")
    assert "ZeroDivisionError" in thread["detail"]
    assert "planted late error" in late["detail"]
    assert end["level"] == "critical"
    assert "planted end" in end["detail"]
