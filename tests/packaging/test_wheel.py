"""The wheel as users get it: what is in it, and that it works where the source tree is not."""

import os
import signal
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the build back end itself where it is installed: no isolated environment, so no network."""
    target = str(tmp_path_factory.mktemp("dist"))
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", target]
    if find_spec("hatchling") is None:
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", target, "."]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, text=True)
    (built,) = Path(target).glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and, from the one that runs the tests, its dependencies; the `bin` of it."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=True, symlinks=True)
    python = home / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "install", "--no-index", "--no-deps", "--disable-pip-version-check", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    (site,) = home.glob("lib/python*/site-packages")
    # Only a place to look in: the .pth files there, the editable install of this tree among them, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


def run(installed: Path, *arguments: str, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EVENTING"))}
    done = subprocess.run(
        [installed / arguments[0], *arguments[1:]], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_top_level_names(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "eventing",
        "eventing_kafka",
        "eventing_memory",
        "eventing_rabbitmq",
    }
    assert "eventing/py.typed" in names
    assert "eventing/runtime/quickstart.yaml" in names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)


def test_it_is_the_wheel_that_runs(installed: Path, tmp_path: Path) -> None:
    where = run(installed, "python", "-c", "import eventing; print(eventing.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(installed.parent)
    assert run(installed, "eventing", "version", cwd=tmp_path).startswith("eventing-mesh ")


def test_every_entry_point_loads(installed: Path, tmp_path: Path) -> None:
    loading = (
        "from importlib.metadata import distribution\n"
        "for point in distribution('eventing-mesh').entry_points: point.load(); print(point.group, point.name)\n"
    )
    loaded = run(installed, "python", "-c", loading, cwd=tmp_path).splitlines()
    assert set(loaded) == {
        "console_scripts eventing",
        "eventing.channels kafka",
        "eventing.channels memory",
        "eventing.channels rabbitmq",
        "pytest11 eventing",
    }


def test_the_quickstart_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    ports = [f"--{name}-port=0" for name in ("api", "ingress", "metrics")]
    process = subprocess.Popen(
        [installed / "eventing", "up", "--quickstart", f"--data-dir={tmp_path / 'data'}", *ports],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        seen = []
        for line in process.stdout:  # bounded by the test's time-out
            seen.append(line)
            if "The mesh stays up" in line:
                break
        assert any("received com.example.order" in line for line in seen), "".join(seen)
        assert any("delivered" in line for line in seen), "".join(seen)
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)
        assert process.returncode == 0, rest
    finally:
        process.kill()
        process.communicate()
