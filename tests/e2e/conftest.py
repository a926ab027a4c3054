"""What these tests share: a subscriber; for those with the real kubectl, one API server for a module, a namespace for a test."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api_server import Kubectl, serving
from tests.support.up import Subscriber


@pytest.fixture
def subscriber() -> Iterator[Subscriber]:
    with Subscriber() as taking:
        yield taking


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with serving(tmp_path_factory.mktemp("api")) as path:
        yield path


@pytest.fixture
def k(kubectl: Path, kubeconfig: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """kubectl, with a fresh namespace as its own."""
    namespace = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[-50:].strip("-")
    own = tmp_path / "kubeconfig"
    own.write_text(kubeconfig.read_text().replace("namespace: default", f"namespace: {namespace}"))
    run = Kubectl(kubectl, own, tmp_path, namespace=namespace)
    run("create", "namespace", namespace)
    yield run
    run.close()
    run("delete", "namespace", namespace, "--wait=false")
