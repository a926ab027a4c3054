"""Would a real cluster take our CustomResourceDefinitions? Asked of Kubernetes' own code, as its API server runs it."""

import copy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from eventing.resources.crds import crd
from eventing.resources.messaging import SUBSCRIPTION

pytestmark = pytest.mark.crdcheck

CRDS = sorted((Path(__file__).parents[3] / "deploy" / "crds").glob("*.yaml"))
Change = Callable[[dict[str, Any]], object]


def check(program: Path, *files: Path) -> tuple[int, str]:
    ran = subprocess.run([program, *files], capture_output=True, text=True, timeout=50, check=False)
    assert not ran.stderr
    return ran.returncode, ran.stdout


def test_every_definition_of_ours_is_taken(crdcheck: Path) -> None:
    assert len(CRDS) >= 4
    assert check(crdcheck, *CRDS) == (0, "")


def version(definition: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = definition["spec"]["versions"][0]
    return found


def root(definition: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = version(definition)["schema"]["openAPIV3Schema"]
    return found


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d["metadata"].update(name="subs.messaging.knative.dev"), "metadata.name"),
        (lambda d: d["spec"]["names"].update(plural="Subscriptions"), "spec.names.plural"),
        (lambda d: version(d).update(storage=False), "storage version"),
        (lambda d: version(d)["additionalPrinterColumns"][0].update(jsonPath="status.x"), "simple json path"),
        (lambda d: root(d)["properties"]["spec"].pop("type"), "must not be empty for specified object fields"),
        (lambda d: root(d)["properties"].update(x={"anyOf": [{"type": "string"}], "title": "t", "type": "strin"}), "strin"),
        (lambda d: root(d).update(served=True), 'unknown field "served"'),
    ],
)
def test_what_a_cluster_refuses_is_found(crdcheck: Path, tmp_path: Path, change: Change, text: str) -> None:
    definition = copy.deepcopy(crd(SUBSCRIPTION))
    change(definition)
    file = tmp_path / "broken.yaml"
    file.write_text(yaml.safe_dump(definition))
    code, said = check(crdcheck, file)
    assert (code, text in said) == (1, True), said


def test_a_file_without_a_definition_is_no_success(crdcheck: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert check(crdcheck, tmp_path / "empty.yaml")[0] == 1
    (tmp_path / "other.yaml").write_text("apiVersion: v1\nkind: ConfigMap\n")
    assert check(crdcheck, tmp_path / "other.yaml")[0] == 1
