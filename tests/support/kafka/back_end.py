"""Where the tests' Kafka comes from: an image, or files and Java."""

import os
import shutil
from pathlib import Path
from typing import Final

from tests.support.back_ends import BackEndFinder

__all__ = ["KAFKA"]

_BUILD: Final = "tests/support/kafka/build.sh"
_OFFICIAL: Final = "apache/kafka:3.9.1"  # the version of pom.xml


def _runs(home: Path) -> bool:
    return home.is_dir() and bool(shutil.which("java") or os.environ.get("JAVA_HOME"))


KAFKA: Final = BackEndFinder(
    name="kafka",
    build=Path(__file__).with_name("build.sh"),
    official=_OFFICIAL,
    remedy=f"docker pull {_OFFICIAL}; or with Java 17 and Maven, without Docker: bash {_BUILD} home",
    runs=_runs,
)
