"""The Compose file of deploy/, run by tests under a project name and on ports of their own."""

import functools
import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import yaml

from tests.support.back_ends import BackEnd
from tests.support.kafka.back_end import KAFKA
from tests.support.ports import reserve_ports
from tests.support.rabbitmq.back_end import RABBITMQ, versions

__all__ = ["Compose", "missing"]

_FILE: Final = Path(__file__).resolve().parents[3] / "deploy" / "compose.yaml"
_IMAGE: Final = "EVENTING_TEST_IMAGE"
_UP_S: Final = 180


@functools.cache
def compose_command() -> list[str]:
    """`docker compose`, else `docker-compose`, unless `$EVENTING_TEST_COMPOSE` names another; [] where there is none."""
    named = os.environ.get("EVENTING_TEST_COMPOSE")
    for command in [[named]] if named else [["docker", "compose"], ["docker-compose"]]:
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version", "--short"], capture_output=True, check=False, timeout=20)
            if done.returncode == 0:
                return command
    return []


def missing() -> str:
    """What must be done before the stack of deploy/ can run here; "" where nothing is.

    Neither image is made by the tests: they download nothing.
    """
    if not compose_command():
        return "install Docker Compose"
    if KAFKA.found is None or not KAFKA.found.image:
        return KAFKA.remedy
    if not versions() or not all(each.image for each in versions().values()):
        return RABBITMQ.remedy
    if not os.environ.get(_IMAGE):
        return f"build the mesh's image and give its name: {_IMAGE}=$(bash tests/support/docker/mesh.sh)"
    return ""


class Compose:
    """One project of the Compose file, with the images that are here. What is left of it at the end is removed, volumes too."""

    def __init__(self, rabbitmq: BackEnd | None = None) -> None:
        """`rabbitmq` is one of the versions that are here, by default the oldest."""
        self.ingress_port, self.api_port, self.metrics_port, kafka_port = reserve_ports(4)
        self.project = f"eventing-mesh-test-{uuid.uuid4().hex[:12]}"
        assert not missing(), f"a test that uses Compose must be marked with pytest.mark.docker; {missing()}"
        kafka, rabbitmq = KAFKA.get(), rabbitmq or next(iter(versions().values()))
        self._command = [*compose_command(), "-f", str(_FILE)]
        self._environment = os.environ | {
            "COMPOSE_PROJECT_NAME": self.project,
            "KAFKA_IMAGE": kafka.image,
            "RABBITMQ_IMAGE": rabbitmq.image,
            "EVENTING_IMAGE": os.environ[_IMAGE],
            "EVENTING_INGRESS_PORT": str(self.ingress_port),
            "EVENTING_API_PORT": str(self.api_port),
            "EVENTING_METRICS_PORT": str(self.metrics_port),
            "KAFKA_PORT": str(kafka_port),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            print(self.run("logs", "--no-color", "--tail", "200"))
        self.run("--profile", "rabbitmq", "down", "--volumes", "--timeout", "1")

    def run(self, *arguments: str, stdin: str = "") -> str:
        """`docker compose ARGUMENTS`; its standard output. Fails where it does."""
        done = subprocess.run(
            [*self._command, *arguments],
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=_UP_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def config(self) -> dict[str, dict[str, object]]:
        """The file as Compose understands it."""
        understood: dict[str, dict[str, object]] = yaml.safe_load(self.run("config"))
        return understood

    def stop(self, service: str) -> tuple[int, float]:
        """Stop it as Compose does; its exit code, and how many seconds that took."""
        begin = time.monotonic()
        self.run("stop", service)
        took_s = time.monotonic() - begin
        every = () if self.run("version", "--short").startswith("1.") else ("--all",)  # version 2 leaves out what does not run
        container = self.run("ps", "--quiet", *every, service).strip()
        told = ["docker", "inspect", "--format", "{{.State.ExitCode}}", container]
        return int(subprocess.run(told, check=True, capture_output=True, text=True, timeout=60).stdout), took_s
