"""The plugin is loaded in every pytest of whoever installs the mesh: it must be light and keep out of the way."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("eventing.testing.sinks", "eventing.testing.clock", "eventing.testing.channels", "asyncio", "pydantic", "aiohttp",
         "httptools", "uvloop", "msgspec")  # fmt: skip


def test_loading_it_imports_next_to_nothing() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); sys.modules['pytest_asyncio'] = pytest; import eventing.testing.plugin; "
        f"print([name for name in {HEAVY!r} if name in set(sys.modules) - before])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found == "[]\n"


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_its_fixtures_work_in_both_modes_of_pytest_asyncio(tmp_path: Path, mode: str) -> None:
    (tmp_path / "test_user.py").write_text(
        "import asyncio, pytest\n"
        "@pytest.mark.asyncio\n"
        "async def test_sink(sink, tcp_proxy):\n"
        "    proxy = await tcp_proxy(sink.host, sink.port)\n"
        "    reader, writer = await asyncio.open_connection('127.0.0.1', proxy.port)\n"
        "    writer.write(b'GET /x HTTP/1.1\\r\\nhost: s\\r\\n\\r\\n')\n"
        "    (got,) = await sink.received(1, '/x')\n"
        "    writer.close()\n"
        "def test_clock(virtual_clock):\n"
        "    virtual_clock.run(asyncio.sleep(60))\n"
        "    assert virtual_clock.elapsed == 60\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    options = ["-o", f"asyncio_mode={mode}", "-o", "asyncio_default_fixture_loop_scope=function", "-c", "/dev/null"]
    run = subprocess.run([*command, *options, str(tmp_path)], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert "2 passed" in run.stdout, run.stdout + run.stderr
