"""What a test session has started and must not leave behind, also when it is killed.

A process of its own holds the list and learns of the session's end by the end of its input; then it ends what is still on the list.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Final

__all__ = ["Reaper"]

Left = tuple[str, str]


class Reaper:
    """`process` takes a process group's number, `container` a container's name, `directory` a path."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def process(self, group: int) -> None:
        self._say("add", "process", str(group))

    def container(self, name: str) -> None:
        self._say("add", "container", name)

    def directory(self, path: str) -> None:
        self._say("add", "directory", path)

    def forget(self, kind: str, name: str | int) -> None:
        """It has ended in an orderly way."""
        self._say("forget", kind, str(name))

    def close(self) -> None:
        """End what is left, and wait for that."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(60)

    def _say(self, *words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()


def _reap(left: list[Left]) -> None:
    for kind, name in reversed(left):  # a directory goes after whoever writes into it
        if kind == "process":
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(int(name), signal.SIGKILL)
        elif kind == "container":
            with suppress(OSError):
                subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)
        else:
            shutil.rmtree(name, ignore_errors=True)


def _main() -> None:
    left: Final[list[Left]] = []
    for line in sys.stdin:
        verb, kind, name = json.loads(line)
        if verb == "add":
            left.append((kind, name))
        elif (kind, name) in left:
            left.remove((kind, name))
    _reap(left)


if __name__ == "__main__":
    _main()
