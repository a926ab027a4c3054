"""What every test run needs: an installed distribution, a word about kubectl, seeds that can be given again."""

import os
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A failing example prints how to run it again; two shared cores are no place for per-example deadlines.
settings.register_profile("mesh", print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mesh")

KUBECTL = os.environ.get("KUBECTL") or shutil.which("kubectl")
IN_CI = os.environ.get("CI", "").lower() == "true"
_LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LEFT_OUT] = []
    named = {point.name for point in entry_points(group="eventing.channels")}
    if "memory" not in named:
        raise pytest.UsageError("the mesh is not installed here, so its channels are not found: pip install -e .")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    needing = [item for item in items if item.get_closest_marker("kubectl")]
    if KUBECTL or not needing:
        return
    if IN_CI:
        raise pytest.UsageError(f"{len(needing)} tests need kubectl, and in CI all run: put it on PATH or into $KUBECTL")
    config.stash[_LEFT_OUT] = [item.nodeid for item in needing]
    for item in needing:
        item.add_marker(pytest.mark.skip(reason="needs kubectl, which is not on PATH"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left_out := config.stash[_LEFT_OUT]:
        terminalreporter.section("left out: no kubectl on PATH and none in $KUBECTL", yellow=True)
        for node_id in left_out:
            terminalreporter.write_line(node_id)


@pytest.fixture(scope="session")
def kubectl() -> Path:
    """The real kubectl. Tests that use it are marked `kubectl`."""
    assert KUBECTL, "a test that uses kubectl must be marked with pytest.mark.kubectl"
    return Path(KUBECTL)
