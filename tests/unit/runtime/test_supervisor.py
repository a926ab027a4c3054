"""The supervisor as a real process, with children that do nothing but what a test tells them."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
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
    def endpoints(self) -> dict[str, Any] | None:
        file = self.path / "endpoints.json"
        try:
            document: dict[str, Any] = json.loads(file.read_text())
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


@pytest.fixture
def free_ports() -> int:
    """The first of three ports in a row that nobody listens on, outside the range from which the system gives free ones."""
    for first in random.sample(range(20_000, 30_000, 3), 300):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + 3):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError("no ports are free")


def test_ready_says_where_and_stops_with_zero(up: Callable[..., Up], home: Path) -> None:
    mesh = up().ready()
    endpoints = mesh.endpoints
    assert endpoints is not None
    assert list(endpoints) == ["api", "ingress", "metrics", "data_planes"]
    assert endpoints["data_planes"] == {"embedded": endpoints["metrics"]}
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


def _settings(home: Path, *roles: str) -> list[dict[str, Any]]:
    return [json.loads((home / f"{role}.settings").read_text()) for role in roles]


def test_several_data_planes_share_the_ingress_and_have_names_and_admin_ports_of_their_own(
    up: Callable[..., Up], home: Path
) -> None:
    mesh = up(workers=3).ready()
    endpoints = mesh.endpoints
    assert endpoints is not None
    planes = endpoints["data_planes"]
    assert list(planes) == ["embedded-0", "embedded-1", "embedded-2"]
    assert planes["embedded-0"] == endpoints["metrics"]
    assert len(set(planes.values())) == 3
    settings = _settings(home, "dataplane-0", "dataplane-1", "dataplane-2")
    assert [each["data_plane"] for each in settings] == list(planes)
    assert {each["workers"] for each in (*settings, *_settings(home, "control"))} == {3}
    assert len({each["sockets"]["ingress"] for each in settings}) == 1
    assert len({each["sockets"]["metrics"] for each in settings}) == 3
    assert len({each["loads_fd"] for each in settings}) == 1, "they tell each other how many connections they have"
    assert settings[0]["loads_fd"] >= 0
    code, out, err = mesh.ends(signal.SIGTERM)
    assert code == 0, err
    assert "3 processes" in out
    assert all(url.rpartition(":")[2] in out for url in planes.values())


def test_a_crashed_one_of_several_is_started_again_alone(up: Callable[..., Up]) -> None:
    mesh = up(workers=3).ready()
    roles = ("control", "dataplane-0", "dataplane-1", "dataplane-2")
    before = {role: mesh.pid(role) for role in roles}
    os.kill(before["dataplane-1"], signal.SIGKILL)
    eventually(lambda: mesh.pid("dataplane-1") != before["dataplane-1"], "a new one")
    assert {role: mesh.pid(role) for role in roles if role != "dataplane-1"} == {
        role: pid for role, pid in before.items() if role != "dataplane-1"
    }
    code, _, err = mesh.ends(signal.SIGTERM)
    assert code == 0
    assert "role=dataplane-1" in err
    assert "in-memory" not in err, "several hold nothing in memory that could be lost"


def test_several_data_planes_stop_together_before_control(up: Callable[..., Up], home: Path) -> None:
    for number in range(3):
        (home / f"dataplane-{number}.does").write_text("linger")
    mesh = up(workers=3, drain_s=0.0).ready()
    began = time.monotonic()
    code, _, err = mesh.ends(signal.SIGTERM)
    took_s = time.monotonic() - began
    assert code == 1, "they had to be killed"
    assert err.count("did not stop in time, killed") == 3
    assert took_s < 14, "they had their 5 s at the same time, not one after the other"
    journal = [tuple(json.loads(line)) for line in (home / "journal").read_text().splitlines()]
    assert sorted(journal[:3]) == [(f"dataplane-{number}", "stopping") for number in range(3)]
    assert journal[3:] == [("control", "stopping"), ("control", "stopped")]


def test_the_admin_ports_of_several_follow_the_first(up: Callable[..., Up], free_ports: int) -> None:
    mesh = up(workers=3, metrics_port=free_ports).ready()
    assert mesh.endpoints
    ports = [int(url.rpartition(":")[2]) for url in mesh.endpoints["data_planes"].values()]
    assert ports == [free_ports, free_ports + 1, free_ports + 2]


def test_an_admin_port_of_a_further_one_that_is_in_use_is_named(up: Callable[..., Up], free_ports: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_ports + 1))
        taken.listen()
        code, _, err = up(workers=2, metrics_port=free_ports).ends()
    assert code == 1
    assert f"port {free_ports + 1} on 127.0.0.1, for the metrics endpoint of data-plane process 1, is in use" in err
    assert "--metrics-port" in err


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
