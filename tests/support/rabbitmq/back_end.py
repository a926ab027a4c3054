"""Where the tests' RabbitMQ comes from: an image, or the installed program."""

from pathlib import Path
from typing import Final

from tests.support.back_ends import BackEndFinder

__all__ = ["RABBITMQ"]

_BUILD: Final = "tests/support/rabbitmq/build.sh"
_OFFICIAL: Final = "rabbitmq:3.13"


def _runs(home: Path) -> bool:
    return (home / "rabbitmq-server").exists()


RABBITMQ: Final = BackEndFinder(
    name="rabbitmq",
    build=Path(__file__).with_name("build.sh"),
    official=_OFFICIAL,
    remedy=f"docker pull {_OFFICIAL}; or install RabbitMQ (apt install rabbitmq-server); or, as root: bash {_BUILD} image",
    runs=_runs,
)
