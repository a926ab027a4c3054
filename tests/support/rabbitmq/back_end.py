"""Where the tests' RabbitMQ comes from: images, one for each version, or the installed program.

The tests run with every version that is here: the oldest that the mesh supports well, which is Debian 12's, and the newest that is to
be had, Debian 13's. `$EVENTING_TEST_RABBITMQ_IMAGE` is the only one where it is given.
"""

import functools
import os
from pathlib import Path
from typing import Final

from tests.support.back_ends import BackEnd, BackEndFinder

__all__ = ["RABBITMQ", "missing_versions", "versions"]

_BUILD: Final = "tests/support/rabbitmq/build.sh"
_NAMED: Final = "EVENTING_TEST_RABBITMQ_IMAGE"


def _runs(home: Path) -> bool:
    return (home / "rabbitmq-server").exists()


def _finder(version: str, official: str, debian: str) -> BackEndFinder:
    return BackEndFinder(
        name="rabbitmq",
        build=Path(__file__).with_name("build.sh"),
        official=official,
        remedy=f"docker pull {official}; or install RabbitMQ (apt install rabbitmq-server on Debian {debian}); "
        f"or, as root: bash {_BUILD} image {version}",
        runs=_runs,
        version=version,
    )


_FINDERS: Final = (_finder("3", "rabbitmq:3.13", "12"), _finder("4", "rabbitmq:4.0", "13"))
RABBITMQ: Final = _FINDERS[0]
"""The one that tests need which are not about RabbitMQ's versions."""


@functools.cache
def versions() -> dict[str, BackEnd]:
    """What is here, by what the tests call it, the oldest first."""
    if named := os.environ.get(_NAMED):
        return {named.rpartition("/")[2]: found} if (found := RABBITMQ.found) else {}
    return {f"rabbitmq-{each.version}": each.found for each in _FINDERS if each.found}


def missing_versions() -> list[BackEndFinder]:
    """Those that are not here though none was named."""
    return [] if os.environ.get(_NAMED) else [each for each in _FINDERS if each.found is None]
