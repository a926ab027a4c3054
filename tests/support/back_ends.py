"""Where the tests' brokers come from on this machine: a Docker engine and an image, or an installed program.

For a broker KAFKA, `$EVENTING_TEST_KAFKA` is `docker`, `process`, or empty: Docker if it is here, else a process.
`$EVENTING_TEST_KAFKA_IMAGE` names an image that may be pulled; without it, only what is here already is used, so that a run of the
tests never downloads anything by itself.
"""

import functools
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.reaper import Reaper
from tests.support.services import Engine

__all__ = ["USED", "BackEnd", "BackEndFinder", "reaper"]

USED = pytest.StashKey[list[str]]()  # what the run had, for its summary


@pytest.fixture(scope="session")
def reaper() -> Iterator[Reaper]:
    """Ends what the session has started, also when the session is killed."""
    made = Reaper()
    yield made
    made.close()


@dataclass(frozen=True)
class BackEnd:
    """`engine` and `image`, or `home`: the folder of the program."""

    engine: Engine | None = None
    image: str = ""
    home: str = ""

    def __str__(self) -> str:
        return f"in Docker ({self.image})" if self.engine else "as a process"


@dataclass(frozen=True)
class BackEndFinder:
    """How one comes by a broker. `build`, called with `where`, prints the home and the name of the image that it would build;
    `official` is an image that serves as well. `runs` says whether what is in a home can be run here. `version` goes to `build` where
    there are several."""

    name: str  # the marker and the fixture
    build: Path
    official: str
    remedy: str
    runs: Callable[[Path], bool] = Path.is_dir
    version: str = ""

    @functools.cached_property
    def found(self) -> BackEnd | None:
        """None where there is neither."""
        variable = f"EVENTING_TEST_{self.name.upper()}"
        wanted = os.environ.get(variable, "")
        if wanted not in {"", "docker", "process"}:
            raise pytest.UsageError(f"${variable} is docker or process, not {wanted!r}")
        command = ["bash", str(self.build), "where", self.version]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        home, built = told.splitlines()
        if wanted != "process" and (engine := Engine.find()):
            if named := os.environ.get(f"{variable}_IMAGE"):
                return BackEnd(engine, named)
            for image in (built, self.official):
                if engine.has(image):
                    return BackEnd(engine, image)
        if wanted != "docker" and home and self.runs(Path(home)):
            return BackEnd(home=home)
        return None

    def get(self) -> BackEnd:
        """The one that tests with the marker have."""
        assert self.found is not None, f"such a test must be marked with pytest.mark.{self.name}; {self.remedy}"
        return self.found
