"""Roles without work, for the supervisor's tests: what each does is said by files in its data directory."""

import asyncio
import gc
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from eventing.errors import StartError
from eventing.runtime.settings import ChildSettings


class Idle:
    """Writes its pid, answers what it is told to by the file ROLE.does, ends when stopped."""

    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings
        self._directory = Path(settings.data_dir)
        self._role = settings.role

    async def run(self, *, started: Callable[[], None], stop: asyncio.Event) -> None:
        does = self._does()
        self._note("pid", str(os.getpid()))
        self._note("settings", self._settings.to_json())
        if does == "refuse":
            raise StartError("the moon is not right")
        if does == "crash":
            raise RuntimeError("planted")
        if does != "never ready":
            started()
            self._note("frozen", str(gc.get_freeze_count()))
        if does == "hang":
            (self._directory / f"{self._role}.does").unlink()
            time.sleep(3600)  # noqa: ASYNC251 - a loop that is stuck is the point
        await stop.wait()
        self._journal("stopping")
        if does == "linger":
            await asyncio.sleep(3600)
        if does == "block":
            time.sleep(3600)  # noqa: ASYNC251 - a loop that is stuck is the point
        self._journal("stopped")

    def _does(self) -> str:
        file = self._directory / f"{self._role}.does"
        return file.read_text() if file.exists() else ""

    def _note(self, what: str, text: str) -> None:
        part = self._directory / f".{self._role}.{what}"
        part.write_text(text)
        part.replace(self._directory / f"{self._role}.{what}")

    def _journal(self, what: str) -> None:
        with (self._directory / "journal").open("a") as file:
            file.write(json.dumps([self._role, what]) + "\n")
