"""The supervisor as a real process, with children that do nothing but what a test tells them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eventing.runtime.data_directory import DataDirectory
from eventing.runtime.settings import UpSettings
from tests.support.waiting import DEADLINE_S, alive, eventually

HERE = Path(__file__).parent


class Up:
    """A supervisor on a data directory."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        given = {"api_port": 0, "ingress_port": 0, "metrics_port": 0, "drain_s": 1.0} | settings
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "supervised.py"), UpSettings(data_dir=str(path), **given).to_json()],
            env={**os.environ, "PYTHONPATH": str(HERE)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def endpoints(self) -> dict[str, str] | None:
        file = self.path / "endpoints.json"
        try:
            document: dict[str, str] = json.loads(file.read_text())
        except FileNotFoundError:
            return None
        return document

    def ready(self) -> "Up":
        eventually(lambda: self.endpoints or self.process.poll() is not None, "ready")
        assert self.process.poll() is None, self.process.communicate()
        return self

    def pid(self, role: str) -> int:
        return int((self.path / f"{role}.pid").read_text())

    def ends(self, number: int | None = None) -> tuple[int, str, str]:
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out, err


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    directory = DataDirectory(path)
    directory.open()
    directory.close()
    return path


@pytest.fixture
def up(home: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(**settings: Any) -> Up:
        mesh = Up(home, **settings)
        started.append(mesh)
        return mesh

    yield start
    for mesh in started:
        mesh.process.kill()
        mesh.process.communicate()


def test_ready_says_where_and_stops_with_zero(up: Callable[..., Up], home: Path) -> None:
    mesh = up().ready()
    endpoints = mesh.endpoints
    assert endpoints is not None
    assert list(endpoints) == ["api", "ingress", "metrics"]
    code, out, err = mesh.ends(signal.SIGTERM)
    assert code == 0, err
    assert endpoints["ingress"] in out
    assert f"export KUBECONFIG={home}/kubeconfig" in out
    assert mesh.endpoints is None
    assert not alive(mesh.pid("control"))
    assert not alive(mesh.pid("dataplane"))


def test_the_data_plane_stops_before_the_control_plane(up: Callable[..., Up], home: Path) -> None:
    up().ready().ends(signal.SIGINT)
    journal = [tuple(json.loads(line)) for line in (home / "journal").read_text().splitlines()]
    assert journal == [
        ("dataplane", "stopping"),
        ("dataplane", "stopped"),
        ("control", "stopping"),
        ("control", "stopped"),
    ]


def test_children_inherit_the_sockets_of_their_role(up: Callable[..., Up], home: Path) -> None:
    up().ready()
    control, data_plane = (json.loads((home / f"{role}.settings").read_text()) for role in ("control", "dataplane"))
    assert list(control["sockets"]) == ["api"]
    assert list(data_plane["sockets"]) == ["ingress", "metrics"]


def test_a_crashed_child_alone_is_started_again(up: Callable[..., Up]) -> None:
    mesh = up().ready()
    control, data_plane = mesh.pid("control"), mesh.pid("dataplane")
    os.kill(data_plane, signal.SIGKILL)
    again = eventually(lambda: pid if (pid := mesh.pid("dataplane")) != data_plane else 0, "a new data plane")
    assert alive(again)
    assert mesh.pid("control") == control
    code, _, err = mesh.ends(signal.SIGTERM)
    assert code == 0
    assert "process ended, starting it again" in err
    assert "SIGKILL" in err


def test_a_child_that_refuses_ends_the_start_and_says_why(up: Callable[..., Up], home: Path) -> None:
    (home / "control.does").write_text("refuse")
    code, out, err = up().ends()
    assert code == 1
    assert "the moon is not right" in err
    assert "Traceback" not in err
    assert out == ""


def test_a_child_that_crashes_during_the_start_ends_it(up: Callable[..., Up], home: Path) -> None:
    (home / "dataplane.does").write_text("crash")
    mesh = up()
    code, _, err = mesh.ends()
    assert code == 1
    assert "RuntimeError: planted" in err
    assert "dataplane process ended with exit code 1 during the start" in err
    assert not alive(mesh.pid("control"))


def test_a_child_that_is_never_ready_ends_the_start(up: Callable[..., Up], home: Path) -> None:
    (home / "dataplane.does").write_text("never ready")
    code, _, err = up(start_s=1.0).ends()
    assert code == 1
    assert "was not ready within 1 s" in err


def test_a_stop_while_starting_is_a_stop(up: Callable[..., Up], home: Path) -> None:
    (home / "dataplane.does").write_text("never ready")
    mesh = up()
    eventually((home / "dataplane.pid").exists, "the data plane at work")
    code, out, err = mesh.ends(signal.SIGTERM)
    assert (code, out) == (0, ""), err


@pytest.mark.parametrize("does", ["linger", "block"])
def test_a_second_interrupt_forces_the_end(up: Callable[..., Up], home: Path, does: str) -> None:
    (home / "dataplane.does").write_text(does)
    mesh = up(drain_s=60.0).ready()
    mesh.process.send_signal(signal.SIGINT)
    eventually((home / "journal").exists, "stopping")
    code, _, err = mesh.ends(signal.SIGINT)
    assert code == 130
    assert "stopped at once" in err
    assert not alive(mesh.pid("dataplane"))


@pytest.mark.parametrize("does", ["", "linger", "block"])
def test_children_end_when_the_supervisor_is_killed(up: Callable[..., Up], home: Path, does: str) -> None:
    (home / "dataplane.does").write_text(does)
    mesh = up(drain_s=0.5).ready()
    pids = [mesh.pid(role) for role in ("control", "dataplane")]
    mesh.process.kill()
    mesh.process.wait()
    eventually(lambda: not any(map(alive, pids)), "children gone")
    assert mesh.endpoints is None
    # What the killed one left behind is no obstacle, nor is it mistaken for a mesh that runs.
    (home / "dataplane.does").unlink()
    again = up().ready()
    assert again.ends(signal.SIGTERM)[0] == 0


def test_a_second_start_waits_for_the_children_of_a_killed_supervisor(up: Callable[..., Up], home: Path) -> None:
    (home / "dataplane.does").write_text("block")
    mesh = up(drain_s=1.0).ready()
    mesh.process.kill()
    mesh.process.wait()
    orphan = mesh.pid("dataplane")
    eventually(lambda: mesh.endpoints is None, "endpoints.json removed by the children")
    (home / "dataplane.does").unlink()
    up().ready()
    assert not alive(orphan)


def test_a_second_start_beside_a_running_one_says_so(up: Callable[..., Up]) -> None:
    mesh = up().ready()
    code, _, err = up().ends()
    assert code == 1
    assert f"already running on {mesh.path}, process {mesh.process.pid}" in err
    assert mesh.endpoints, "the running one is not disturbed"


def test_a_port_in_use_is_named_with_its_flag(up: Callable[..., Up], tmp_path: Path) -> None:
    mesh = up().ready()
    assert mesh.endpoints
    port = int(mesh.endpoints["ingress"].rpartition(":")[2])
    other = Up(tmp_path / "other", ingress_port=port)
    code, _, err = other.ends()
    assert code == 1
    assert f"port {port} on 127.0.0.1" in err
    assert "in use" in err
    assert "--ingress-port" in err


def test_log_lines_of_the_supervisor_are_json_when_asked(up: Callable[..., Up]) -> None:
    code, _, err = up(log_format="json").ready().ends(signal.SIGTERM)
    assert code == 0
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["message"] for line in lines] == ["ready", "ready", "stopping", "stopped"]
    assert {line["process"] for line in lines} == {"supervisor"}


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from Linux's /proc")
def test_the_supervisor_is_small(up: Callable[..., Up]) -> None:
    mesh = up().ready()
    status = Path(f"/proc/{mesh.process.pid}/status").read_text()
    rss_kib = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
    assert rss_kib <= 16 * 1024


def test_a_child_whose_loop_is_stuck_says_where_and_is_started_again(home: Path, up: Callable[..., Up]) -> None:
    (home / "dataplane.does").write_text("hang")
    mesh = up(stall_s=0.8)
    first = eventually(lambda: (home / "dataplane.pid").exists() and mesh.pid("dataplane"), "a data plane")
    eventually(lambda: mesh.pid("dataplane") != first, "another one")
    mesh.ready()
    code, _, err = mesh.ends(signal.SIGTERM)
    assert code == 0
    assert "event loop is stuck" in err
    assert "roles.py" in err, "the place where it hangs"
    assert "was stuck, and ended itself" in err
    assert not alive(first)


def test_what_a_child_has_at_its_start_is_left_out_of_collections(up: Callable[..., Up], home: Path) -> None:
    mesh = up().ready()
    eventually((home / "dataplane.frozen").exists, "the child's figures")
    assert int((home / "dataplane.frozen").read_text()) > 10_000
    assert mesh.ends(signal.SIGTERM)[0] == 0
