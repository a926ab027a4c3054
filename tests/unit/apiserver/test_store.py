"""The store keeps what it acknowledged, through kill -9, full disks and damaged files."""

import asyncio
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from eventing.apiserver import database as database_module
from eventing.apiserver.database import Database, Row
from eventing.apiserver.store import Store
from eventing.errors import ApiUnavailableError, StartError
from tests.unit.apiserver.client import SHAPES, Client, shape
from tests.unit.apiserver.conftest import Serving

ROOT = Path(__file__).parents[3]


def test_kill_9_at_any_moment_loses_no_acknowledged_write(tmp_path: Path) -> None:
    path = tmp_path / "db"
    known: dict[str, int] = {}  # name → version of what must be there
    moments = random.Random(7)
    for _ in range(5):
        command = [sys.executable, "-m", "tests.unit.apiserver.ledger", str(path)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(9)]  # more than one write of some writer
        time.sleep(moments.uniform(0.0, 0.2))  # the moment is what is random here, nothing is waited for
        process.kill()
        lines += process.communicate()[0].splitlines(keepends=True)
        told = [(word, key, int(version)) for word, key, version in (line.split() for line in lines if line.endswith("\n"))]
        for word, key, version in told:
            if word == "put":
                known[key] = version
            else:
                known.pop(key, None)
        database = Database(path, stamp="test")
        newest, rows = database.load()
        found = {row.name: row.version for row in rows}
        database.close()
        assert newest >= max(version for _, _, version in told), "a version will be given twice"
        # Each writer may have stored one more write of which nobody was told: nothing else differs.
        differing = [key for key in known.keys() | found.keys() if known.get(key) != found.get(key)]
        assert len({key.partition("-")[0] for key in differing}) == len(differing), "more than one write of a writer is not known"
        assert all(key not in found or found[key] > known.get(key, 0) for key in differing)
        known = found


async def test_versions_never_go_back_over_restarts(serving: Serving, tmp_path: Path) -> None:
    async with serving(tmp_path / "db") as api:
        await api.create(SHAPES, shape("a"))
        await api.create(SHAPES, shape("b"))
        await api.ask("DELETE", f"{SHAPES}/b")
        version = (await api.get(SHAPES))["metadata"]["resourceVersion"]
    async with serving(tmp_path / "db") as api:
        listing = await api.get(SHAPES)
        assert [obj["metadata"]["name"] for obj in listing["items"]] == ["a"]
        assert int(listing["metadata"]["resourceVersion"]) >= int(version)
        async with api.watch(SHAPES, resourceVersion=listing["metadata"]["resourceVersion"]) as watch:
            await api.create(SHAPES, shape("c"))
            assert await watch.take(1) == [("ADDED", "c")]


async def test_a_write_that_cannot_be_stored_is_nowhere_and_the_next_one_is(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.create(SHAPES, shape("a", color="red"))
    write = Database.write

    def full(_self: Database, _rows: Sequence[Row], _version: int) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Database, "write", full)
    refused = await asyncio.gather(*(api.ask("POST", SHAPES, shape(f"s{index}")) for index in range(5)))
    assert {(code, body["reason"]) for code, body in refused} == {(503, "ServiceUnavailable")}
    assert "disk is full" in refused[0][1]["message"]
    code, _ = await api.ask("DELETE", f"{SHAPES}/a")
    assert code == 503
    monkeypatch.setattr(Database, "write", write)
    assert [obj["metadata"]["name"] for obj in (await api.get(SHAPES))["items"]] == ["a"]
    await api.create(SHAPES, shape("s0"))
    assert (await api.patch(f"{SHAPES}/a", {"spec": {"color": "blue"}}))["spec"]["color"] == "blue"


async def test_readers_see_only_what_is_stored(tmp_path: Path) -> None:
    store = Store(tmp_path / "db", stamp="test")
    writing = asyncio.create_task(store.put("things", ("", "a"), lambda version: b'{"metadata":{"name":"a"},"v":%d}' % version))
    while store.latest("things", ("", "a")) is None:
        await asyncio.sleep(0)
    assert store.collection("things").records == {}
    await writing
    assert ("", "a") in store.collection("things").records
    await store.aclose()
    with pytest.raises(ApiUnavailableError):
        await store.put("things", ("", "b"), lambda _version: b"{}")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"no database at all" * 100,
        lambda data: data[:100] + b"\xff" * 4000 + data[4100:],
        lambda data: data[: len(data) // 2],
    ],
    ids=["another file", "overwritten", "cut short"],
)
def test_a_damaged_file_is_named_and_kept_aside(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "api.sqlite3"
    database = Database(path, stamp="x")
    rows = [Row("things", "", f"t{index}", index + 1, b"x" * 1000) for index in range(200)]
    database.write(rows, 200)
    database.close()
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(StartError) as caught:
        Database(path, stamp="20260101T000000Z")
    aside = tmp_path / "api.sqlite3.damaged-20260101T000000Z"
    assert str(path) in str(caught.value)
    assert str(aside) in str(caught.value)
    assert aside.read_bytes() == damaged
    assert not path.exists()
    Database(path, stamp="x").close()


def test_an_older_schema_is_migrated_step_by_step_and_all_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "api.sqlite3"
    database = Database(path, stamp="x")
    database.write([Row("things", "", "t", 7, b"{}")], 7)
    database.close()
    monkeypatch.setattr(database_module, "_SCHEMA_VERSION", 3)
    steps = {1: "ALTER TABLE counter ADD COLUMN note TEXT", 2: "UPDATE counter SET note='migrated'"}
    monkeypatch.setattr(database_module, "_MIGRATIONS", steps)
    for _ in range(2):
        database = Database(path, stamp="x")
        version, rows = database.load()
        assert (version, [row.name for row in rows]) == (7, ["t"])
        assert database._connection.execute("SELECT note FROM counter").fetchall() == [("migrated",)]
        assert database._connection.execute("PRAGMA user_version").fetchone() == (3,)
        database.close()
    monkeypatch.setattr(database_module, "_SCHEMA_VERSION", 4)
    monkeypatch.setattr(database_module, "_MIGRATIONS", {**steps, 3: "UPDATE counter SET note='half'; UPDATE nothing SET a=1"})
    with pytest.raises(StartError):
        Database(path, stamp="x")
    kept = next(file for file in (path, *tmp_path.glob("*damaged*")) if file.exists())
    with sqlite3.connect(kept) as connection:
        assert connection.execute("SELECT note FROM counter").fetchall() == [("migrated",)]
    connection.close()


def test_a_newer_schema_and_foreign_databases_are_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "api.sqlite3"
    Database(path, stamp="x").close()
    assert path.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StartError, match="newer eventing-mesh"):
        Database(path, stamp="x")
    assert path.read_bytes() == before
    other = tmp_path / "other"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    before = other.read_bytes()
    with pytest.raises(StartError, match="not a store of the mesh"):
        Database(other, stamp="x")
    assert other.read_bytes() == before
    with pytest.raises(StartError, match="cannot open"):
        Database(tmp_path, stamp="x")
