"""The data directory: its modes, its lock, its version, its atomic files."""

import os
import stat
from pathlib import Path

import pytest

from eventing.errors import StartError
from eventing.runtime.data_directory import DataDirectory, default_data_dir
from eventing.runtime.settings import Endpoints

ENDPOINTS = Endpoints("https://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3")


def test_a_new_one_is_private_and_says_its_version(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "a" / "b")
    directory.open()
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    assert directory.version.read_text() == "1\n"
    assert directory.lock.read_text() == f"{os.getpid()}\n"
    directory.close()


def test_it_opens_again(tmp_path: Path) -> None:
    for _ in range(2):
        directory = DataDirectory(tmp_path / "data")
        directory.open()
        directory.close()


def test_one_mesh_at_a_time(tmp_path: Path) -> None:
    first, second = DataDirectory(tmp_path / "data"), DataDirectory(tmp_path / "data")
    first.open()
    with pytest.raises(StartError, match=f"already running on .*, process {os.getpid()}"):
        second.open()
    first.close()
    second.open()
    second.close()


def test_orphans_of_a_dead_supervisor_are_waited_for(tmp_path: Path) -> None:
    first, second = DataDirectory(tmp_path / "data"), DataDirectory(tmp_path / "data")
    first.open()
    first.lock.write_text("99999999\n")  # no such process; the lock is still held
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            first.close()

    second.open(sleep=sleep)
    assert len(slept) == 3
    second.close()


def test_orphans_are_not_waited_for_for_ever(tmp_path: Path) -> None:
    first, second = DataDirectory(tmp_path / "data"), DataDirectory(tmp_path / "data")
    first.open()
    first.lock.write_text("99999999\n")
    moments = iter([0.0, 5.0, 10.0, 20.0])
    with pytest.raises(StartError, match="already running"):
        second.open(clock=lambda: next(moments), sleep=lambda _: None)
    first.close()


@pytest.mark.parametrize("text", ["2\n", "1.5", "new"])
def test_a_newer_layout_is_refused(tmp_path: Path, text: str) -> None:
    directory = DataDirectory(tmp_path / "data")
    directory.open()
    directory.close()
    directory.version.write_text(text)
    with pytest.raises(StartError, match="newer eventing-mesh"):
        directory.open()
    assert directory.lock_fd == -1
    assert directory.version.read_text() == text


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    before = tmp_path.stat().st_mode
    with pytest.raises(StartError, match="choose an empty or a new one with --data-dir"):
        DataDirectory(tmp_path).open()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert tmp_path.stat().st_mode == before


def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(StartError, match="cannot be used: File exists"):
        DataDirectory(tmp_path / "data").open()


def test_endpoints_are_written_whole_read_and_removed(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data")
    directory.open()
    assert directory.read_endpoints() is None
    directory.write_endpoints(ENDPOINTS)
    assert directory.read_endpoints() == ENDPOINTS
    directory.remove_endpoints()
    directory.remove_endpoints()
    assert directory.read_endpoints() is None
    assert not [path for path in directory.path.iterdir() if path.name.startswith(".")]
    directory.close()


def test_damaged_endpoints_are_named(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.endpoints.write_text("{")
    with pytest.raises(StartError, match=r"endpoints\.json is damaged"):
        directory.read_endpoints()


def test_what_a_killed_mesh_left_is_removed(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data")
    directory.open()
    directory.write_endpoints(ENDPOINTS)
    directory.close()
    directory.open()
    assert directory.read_endpoints() is None
    directory.close()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"EVENTING_DATA_DIR": "/srv/mesh", "XDG_DATA_HOME": "/x"}, "/srv/mesh"),
        ({"XDG_DATA_HOME": "/x"}, "/x/eventing-mesh"),
        ({"XDG_DATA_HOME": "", "EVENTING_DATA_DIR": ""}, "~/.local/share/eventing-mesh"),
        ({}, "~/.local/share/eventing-mesh"),
    ],
)
def test_the_default_place(environment: dict[str, str], expected: str) -> None:
    assert default_data_dir(environment) == Path(expected).expanduser()
