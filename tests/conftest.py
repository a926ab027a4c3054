"""What every test run needs: an installed distribution, a word about tools that are not here, seeds that can be given again."""

import os
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A failing example prints how to run it again; two shared cores are no place for per-example deadlines.
settings.register_profile("mesh", print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mesh")

# Programs that some tests are marked with, by the variable that names each, and how one comes by it.
TOOLS = {
    "kubectl": (os.environ.get("KUBECTL") or shutil.which("kubectl"), "install it, or give its path in $KUBECTL"),
    "crdcheck": (
        os.environ.get("CRDCHECK") or shutil.which("crdcheck"),
        "build it with Go (go build -C tests/support/crdcheck -o PATH) and give PATH in $CRDCHECK",
    ),
}
IN_CI = os.environ.get("CI", "").lower() == "true"
_LEFT_OUT = pytest.StashKey[dict[str, list[str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LEFT_OUT] = {}
    named = {point.name for point in entry_points(group="eventing.channels")}
    if "memory" not in named:
        raise pytest.UsageError("the mesh is not installed here, so its channels are not found: pip install -e .")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for tool, (path, remedy) in TOOLS.items():
        needing = [item for item in items if item.get_closest_marker(tool)]
        if path or not needing:
            continue
        if IN_CI:
            raise pytest.UsageError(f"{len(needing)} tests need {tool}, and in CI all run: {remedy}")
        config.stash[_LEFT_OUT][tool] = [item.nodeid for item in needing]
        for item in needing:
            item.add_marker(pytest.mark.skip(reason=f"needs {tool}, which is not on PATH"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for tool, left_out in config.stash[_LEFT_OUT].items():
        terminalreporter.section(f"left out: no {tool} here; {TOOLS[tool][1]}", yellow=True)
        for node_id in left_out:
            terminalreporter.write_line(node_id)


def _tool(name: str) -> Path:
    path = TOOLS[name][0]
    assert path, f"a test that uses {name} must be marked with pytest.mark.{name}"
    return Path(path)


@pytest.fixture(scope="session")
def kubectl() -> Path:
    """The real kubectl. Tests that use it are marked `kubectl`."""
    return _tool("kubectl")


@pytest.fixture(scope="session")
def crdcheck() -> Path:
    """Kubernetes' own checks of CustomResourceDefinitions (tests/support/crdcheck). Tests that use it are marked `crdcheck`."""
    return _tool("crdcheck")
