"""What pytest-xdist asks for which test goes where; apart, since only runs with several processes need it."""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.workers import share_of

__all__ = ["Scheduler"]


class Scheduler(LoadScopeScheduling):
    """Gives a worker a share at a time, in the order of the collection."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # the shares with most tests are not those that take longest

    def _split_scope(self, nodeid: str) -> str:
        return share_of(nodeid)
