"""What a killed test session leaves behind is ended for it."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.support.reaper import Reaper
from tests.support.waiting import alive, eventually

_SESSION = """
import subprocess, sys
from tests.support.reaper import Reaper
reaper = Reaper()
started = [subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(2)]
for each in started:
    reaper.process(each.pid)
reaper.directory(sys.argv[1])
started[0].kill()
started[0].wait()
reaper.forget("process", started[0].pid)
print(started[1].pid, flush=True)
sys.stdin.read()
"""


def test_a_killed_session(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", _SESSION, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as session:
        assert session.stdout is not None
        left = int(session.stdout.readline())
        assert alive(left)
        session.send_signal(signal.SIGKILL)
    eventually(lambda: not alive(left), "the end of what it had started")
    eventually(lambda: not directory.exists(), "the end of its directory")


def test_an_orderly_end_ends_what_was_forgotten_about(tmp_path: Path) -> None:
    reaper = Reaper()
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as left:
        reaper.process(left.pid)
        reaper.directory(str(tmp_path / "never made"))
        reaper.close()
        assert left.wait() == -signal.SIGKILL
