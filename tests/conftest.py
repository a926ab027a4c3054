"""What every test run needs: an installed distribution, a word about tools that are not here, seeds that can be given again."""

import functools
import json
import os
import shutil
import signal
import subprocess
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import back_ends, workers
from tests.support.docker import compose
from tests.support.kafka import fixtures as kafka_fixtures
from tests.support.kafka.back_end import KAFKA
from tests.support.rabbitmq import fixtures as rabbitmq_fixtures
from tests.support.rabbitmq.back_end import RABBITMQ, missing_versions, versions
from tests.support.services import Engine

reaper = back_ends.reaper
kafka, private_kafka = kafka_fixtures.kafka, kafka_fixtures.private_kafka
private_kafka_cluster = kafka_fixtures.private_kafka_cluster
rabbitmq, private_rabbitmq = rabbitmq_fixtures.rabbitmq, rabbitmq_fixtures.private_rabbitmq
rabbitmq_back_end, session_rabbitmqs = rabbitmq_fixtures.rabbitmq_back_end, rabbitmq_fixtures.session_rabbitmqs

# A failing example prints how to run it again; two shared cores are no place for per-example deadlines.
settings.register_profile("mesh", print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mesh")


def _named(variable: str, program: str) -> list[Path]:
    """What a variable names, one path or several, separated as in PATH; without it, the program on PATH."""
    return [Path(path) for path in (os.environ.get(variable) or shutil.which(program) or "").split(os.pathsep) if path]


_JS_PEER = Path(__file__).parent / "support" / "cloudevents_js"
# Programs that some tests are marked with, and how one comes by each. With several kubectls, each test runs with each.
TOOLS = {
    "kubectl": (_named("KUBECTL", "kubectl"), "install it, or give its path in $KUBECTL"),
    "crdcheck": (
        _named("CRDCHECK", "crdcheck"),
        "build it with Go (go build -C tests/support/crdcheck -o PATH) and give PATH in $CRDCHECK",
    ),
    "applycheck": (
        _named("APPLYCHECK", "applycheck"),
        "build it with Go (go build -C tests/support/applycheck -o PATH) and give PATH in $APPLYCHECK",
    ),
    "node": (
        _named("NODE", "node") if (_JS_PEER / "node_modules" / "cloudevents").is_dir() else [],
        "install Node.js 20 or newer, then: npm ci --prefix tests/support/cloudevents_js",
    ),
}
IN_CI = os.environ.get("CI", "").lower() == "true"
_LEFT_OUT = pytest.StashKey[list[tuple[str, str, list[str]]]]()  # tool, how one comes by it, tests
_KUBECTL_VERSIONS = pytest.StashKey[list[str]]()
_REFUSED = pytest.StashKey[list[str]]()  # why nothing was run, from a worker


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Run in the background of a script: what the tests start would inherit that, and not end at Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[_LEFT_OUT] = []
    config.stash[_KUBECTL_VERSIONS] = []
    config.stash[_REFUSED] = []
    config.stash[back_ends.USED] = []
    named = {point.name for point in entry_points(group="eventing.channels")}
    if "memory" not in named:
        raise pytest.UsageError("the mesh is not installed here, so its channels are not found: pip install -e .")


_SUMMED_UP: tuple[pytest.StashKey[Any], ...] = (_REFUSED, _KUBECTL_VERSIONS, back_ends.USED, _LEFT_OUT)


@functools.cache
def _version(kubectl: Path) -> str:
    command = [str(kubectl), "version", "--client", "--output=json"]
    try:
        told = subprocess.run(command, capture_output=True, check=True, timeout=20).stdout
    except OSError as error:
        raise pytest.UsageError(f"$KUBECTL names {kubectl}, which cannot be run: {error}") from None
    return str(json.loads(told)["clientVersion"]["gitVersion"])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kubectl" in metafunc.fixturenames:
        paths, _ = TOOLS["kubectl"]
        names = [_version(path) for path in paths] or ["none"]
        metafunc.parametrize("kubectl", paths or [None], ids=names, indirect=True, scope="module")
    rabbitmq_fixtures.with_each_version(metafunc)


@pytest.hookimpl(trylast=True)  # after -k and -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not workers.in_worker(config):
        return _see_to_tools(config, items)
    workers.longest_first(items)
    try:
        _see_to_tools(config, items)
    except pytest.UsageError as error:  # which would end a worker, and xdist with it, in a trace of its own
        config.stash[_REFUSED].extend(error.args)
        items.clear()


def _see_to_tools(config: pytest.Config, items: list[pytest.Item]) -> None:
    for tool, (paths, remedy) in TOOLS.items():
        needing = [item for item in items if item.get_closest_marker(tool)]
        if needing and tool == "kubectl":
            config.stash[_KUBECTL_VERSIONS] = [_version(path) for path in paths]
        if needing and not paths:
            _leave_out(config, needing, tool, remedy)
    needing = [item for item in items if item.get_closest_marker("kafka")]
    if needing and KAFKA.found is None:  # only asked for where it is needed: it takes a moment
        _leave_out(config, needing, "kafka", KAFKA.remedy)
    needing = [item for item in items if item.get_closest_marker("rabbitmq")]
    if needing and not versions():
        _leave_out(config, needing, "rabbitmq", RABBITMQ.remedy)
    elif needing:
        for version in missing_versions():
            _without(config, f"RabbitMQ {version.version}", version.remedy)
    needing = [item for item in items if item.get_closest_marker("docker")]
    if needing and (remedy := compose.missing()):
        _leave_out(config, needing, "docker", remedy, must=IN_CI and Engine.find() is not None)


def _leave_out(config: pytest.Config, needing: list[pytest.Item], tool: str, remedy: str, *, must: bool = IN_CI) -> None:
    if must:
        raise pytest.UsageError(f"{len(needing)} tests need {tool}, and in CI all run: {remedy}")
    config.stash[_LEFT_OUT].append((tool, remedy, [item.nodeid for item in needing]))
    for item in needing:
        item.add_marker(pytest.mark.skip(reason=f"needs {tool}, which is not here"))


def _without(config: pytest.Config, what: str, remedy: str) -> None:
    """What tests run with is not all here; each runs with the rest. Without an engine CI has one version, the machine's own."""
    if IN_CI and Engine.find() is not None:
        raise pytest.UsageError(f"there is no {what} here, and in CI the tests run with it: {remedy}")
    config.stash[_LEFT_OUT].append((what, remedy, ["the tests ran without it"]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    return workers.worker_count()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.support.scheduler import Scheduler  # only runs with several processes need it

    return Scheduler(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if workers.in_worker(config):
        workers.hand_over(config, [config.stash[key] for key in _SUMMED_UP])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended: what it had and what it has left out belongs into the summary, once."""
    for key, told in zip(_SUMMED_UP, workers.handed_over(node), strict=False):
        known = node.config.stash[key]
        known.extend(each for each in told if each not in known)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for refused in config.stash[_REFUSED]:
        terminalreporter.write_line(f"ERROR: {refused}", red=True)
    if versions := config.stash[_KUBECTL_VERSIONS]:
        terminalreporter.write_line(f"with kubectl {', '.join(versions)}")
    for used in config.stash[back_ends.USED]:
        terminalreporter.write_line(used)
    for tool, remedy, left_out in config.stash[_LEFT_OUT]:
        terminalreporter.section(f"left out: no {tool} here; {remedy}", yellow=True)
        for node_id in left_out:
            terminalreporter.write_line(node_id)


@pytest.fixture(scope="module")
def kubectl(request: pytest.FixtureRequest) -> Path:
    """The real kubectl, each of those that are given. Tests that use it are marked `kubectl`."""
    assert isinstance(request.param, Path), "a test that uses kubectl must be marked with pytest.mark.kubectl"
    return request.param


@pytest.fixture(scope="session")
def crdcheck() -> Path:
    """Kubernetes' own checks of CustomResourceDefinitions (tests/support/crdcheck). Tests that use it are marked `crdcheck`."""
    return _tool("crdcheck")


@pytest.fixture(scope="session")
def applycheck() -> Path:
    """Kubernetes' own server-side apply (tests/support/applycheck). Tests that use it are marked `applycheck`."""
    return _tool("applycheck")


def _tool(name: str) -> Path:
    paths, _ = TOOLS[name]
    assert paths, f"a test that uses {name} must be marked with pytest.mark.{name}"
    return paths[0]
