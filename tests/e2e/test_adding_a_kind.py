"""docs/guides/adding-a-kind.md, done to the letter on a copy of the sources: a kind costs the two modules that it shows."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.up import Up
from tests.support.waiting import DEADLINE_S, eventually

pytestmark = pytest.mark.kubectl

REPOSITORY = Path(__file__).parents[2]
GUIDE = (REPOSITORY / "docs" / "guides" / "adding-a-kind.md").read_text(encoding="utf-8")
Run = Callable[..., str]


def fences(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def run(*command: str | Path, given: str = "", cwd: Path | None = None, **variables: str) -> str:
    done = subprocess.run(
        command,
        input=given,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        cwd=cwd,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the guide's diff applied."""
    copy = tmp_path_factory.mktemp("sources")
    for name in ("eventing", "adapters"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (diff,) = fences("diff")
    run("git", "apply", "--verbose", "-", given=diff, cwd=copy)
    return copy


@pytest.fixture(scope="module")
def path(sources: Path) -> str:
    return os.pathsep.join(map(str, (sources, sources / "adapters")))


@pytest.fixture
def mesh(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Up]:
    monkeypatch.setenv("PYTHONPATH", path)
    with Up(tmp_path / "data") as running:
        yield running.ready()
        assert running.stop() == 0, running.log


def test_the_diff_adds_two_modules_and_changes_nothing_else() -> None:
    (diff,) = fences("diff")
    assert re.findall(r"^\+\+\+ b/(.*)$", diff, re.MULTILINE) == ["eventing/control/alias.py", "eventing/resources/alias.py"]
    assert diff.count("new file mode") == 2


def test_its_code_is_as_the_house_writes_code(sources: Path) -> None:
    modules = [sources / "eventing/control/alias.py", sources / "eventing/resources/alias.py"]
    ruff, config = Path(sys.executable).with_name("ruff"), f"--config={REPOSITORY / 'pyproject.toml'}"
    run(ruff, "check", "--no-cache", config, *modules)
    run(ruff, "format", "--check", "--no-cache", config, *modules)


def test_its_definition_is_generated(path: str, sources: Path, tmp_path: Path) -> None:
    run(sys.executable, "-P", "-m", "eventing.resources.crds", tmp_path, PYTHONPATH=path, cwd=tmp_path)
    assert "kind: Alias" in (tmp_path / "aliases.eventing-mesh.dev.yaml").read_text()
    generated = {file.name for file in tmp_path.glob("*.yaml")}
    assert generated - {file.name for file in (REPOSITORY / "deploy" / "crds").glob("*")} == {"aliases.eventing-mesh.dev.yaml"}


def test_the_kind_does_what_the_guide_shows(mesh: Up, kubectl: Path, tmp_path: Path) -> None:
    def ask(*arguments: str, given: str = "") -> str:
        return run(kubectl, *arguments, given=given, KUBECONFIG=str(mesh.data_dir / "kubeconfig"), HOME=str(tmp_path))

    (manifest,) = fences("yaml")
    shown = [line.split() for line in fences("console")[1].splitlines()]
    heading, unresolved, resolved = shown[1], shown[2], shown[-1]

    def row() -> list[str]:
        lines = [line.split() for line in ask("get", "aliases").splitlines()]
        assert lines[0] == heading
        return [column for column in lines[1] if not re.fullmatch(r"\d+[smh]", column)]

    def without_age(line: list[str]) -> list[str]:
        return [column for column in line if not re.fullmatch(r"\d+[smh]", column)]

    ask("apply", "-f", "-", given=manifest)
    eventually(lambda: row() == without_age(unresolved), "a target that is not there is said")
    commands = [line[2:].split() for line in fences("console")[1].splitlines() if line.startswith("$ kubectl create")]
    ask(*commands[0][1:])
    ask("wait", "--for=condition=Ready", "alias/billing", "subscription/to-billing", "--timeout=20s")
    assert row() == without_age(resolved)
    uri = "jsonpath={.status.physicalSubscription.subscriberUri}"
    assert ask("get", "subscription", "to-billing", "-o", uri) == "http://invoices.default.svc.cluster.local/events"
    # One edit of the Alias moves who refers to it, and what goes is noticed.
    target = '{"spec": {"target": {"ref": null, "uri": "http://127.0.0.1:9/elsewhere"}}}'
    ask("patch", "alias", "billing", "--type=merge", "-p", target)
    eventually(lambda: ask("get", "subscription", "to-billing", "-o", uri) == "http://127.0.0.1:9/elsewhere", "the edit arrives")
    ask("delete", "alias", "billing")
    ask("wait", "--for=condition=Ready=False", "subscription/to-billing", "--timeout=20s")
    with pytest.raises(AssertionError, match=r"missing field\(s\): spec\.target"):
        ask("apply", "-f", "-", given=manifest.partition("---")[0].partition("spec:")[0] + "spec: {}\n")
    assert "target" in ask("explain", "alias.spec")
