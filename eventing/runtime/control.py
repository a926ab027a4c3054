"""The role `control`: the embedded API server, and the controllers as its client."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from eventing.channels import channel_factories
from eventing.runtime.data_directory import DataDirectory
from eventing.runtime.settings import ChildSettings
from eventing.runtime.tokens import Tokens

__all__ = ["Control"]


class Control:
    """Serves the API, applies the manifests of the start, and reconciles."""

    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings

    async def run(self, *, started: Callable[[], None], stop: asyncio.Event) -> None:
        settings = self._settings
        directory = DataDirectory(Path(settings.data_dir))
        tokens = Tokens.of(directory)
        factories = channel_factories()
        raise NotImplementedError
