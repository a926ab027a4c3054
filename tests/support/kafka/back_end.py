"""Where the tests' Kafka brokers come from on this machine: a Docker engine and an image, or files and Java.

`$EVENTING_TEST_KAFKA` is `docker`, `process`, or empty: Docker if it is here, else a process. `$EVENTING_TEST_KAFKA_IMAGE` names an
image that is laid out like apache/kafka and may be pulled; without it, only what is here already is used, so that a run of the tests
never downloads anything by itself.
"""

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.services import Engine

__all__ = ["BUILD", "REMEDY", "BackEnd", "find_back_end"]

BUILD: Final = "tests/support/kafka/build.sh"
_OFFICIAL: Final = "apache/kafka:3.9.1"  # the version of pom.xml
REMEDY: Final = f"docker pull {_OFFICIAL}; or with Java 17 and Maven, without Docker: bash {BUILD} home"


@dataclass(frozen=True)
class BackEnd:
    """`engine` and `image`, or `home`: the folder with bin and libs."""

    engine: Engine | None = None
    image: str = ""
    home: str = ""

    def __str__(self) -> str:
        return f"in Docker ({self.image})" if self.engine else "as a process"


@functools.cache
def find_back_end() -> BackEnd | None:
    """None where there is neither."""
    wanted = os.environ.get("EVENTING_TEST_KAFKA", "")
    if wanted not in {"", "docker", "process"}:
        raise pytest.UsageError(f"$EVENTING_TEST_KAFKA is docker or process, not {wanted!r}")
    script = Path(__file__).with_name("build.sh")
    told = subprocess.run(["bash", str(script), "where"], capture_output=True, text=True, check=True, timeout=20).stdout
    home, built = told.splitlines()
    if wanted != "process" and (engine := Engine.find()):
        if named := os.environ.get("EVENTING_TEST_KAFKA_IMAGE"):
            return BackEnd(engine, named)
        for image in (built, _OFFICIAL):
            if engine.has(image):
                return BackEnd(engine, image)
    if wanted != "docker" and Path(home).is_dir() and (shutil.which("java") or os.environ.get("JAVA_HOME")):
        return BackEnd(home=home)
    return None
