"""The file in which the objects live: SQLite with a write-ahead log, one fsync per batch of writes."""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from eventing.errors import StartError

__all__ = ["Database", "Row"]

log = logging.getLogger(__name__)

_APPLICATION_ID: Final = 0x65766D73  # "evms": the file is ours
_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE objects (
  resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  version INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (resource, namespace, name)
);
CREATE TABLE counter (version INTEGER NOT NULL);
INSERT INTO counter VALUES (0);
"""
# By the version that they start from: what makes the next of it. Version 1 is the first there was.
_MIGRATIONS: Final[dict[int, str]] = {}
# Updates in place: the index on the key is not touched, and one page less goes through the log.
_PUT: Final = """
INSERT INTO objects VALUES (?,?,?,?,?)
ON CONFLICT (resource, namespace, name) DO UPDATE SET version=excluded.version, data=excluded.data
"""
_CHECKPOINT_PAGES: Final = 4000
_PARTS: Final = ("", "-wal", "-shm")


class Row(NamedTuple):
    """One object as it is stored; `data` is None in a write that removes it."""

    resource: str
    namespace: str
    name: str
    version: int
    data: bytes | None


class Database:
    """The open file. All methods but the constructor may run in any one thread, never in two at once.

    Raises StartError where the file is of a newer version, belongs to something else, cannot be opened, or is damaged; a
    damaged one is first moved aside, with its log, under a name that the message tells.
    """

    def __init__(self, path: Path, *, stamp: str) -> None:
        self.path = path
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2.0)
            try:
                self._open()
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.OperationalError as error:
            raise StartError(f"cannot open the store {path}: {error}") from error
        except sqlite3.DatabaseError as error:
            aside = self._set_aside(stamp)
            raise StartError(
                f"the store {path} is damaged ({error}); it was moved to {aside}, nothing in it was changed. "
                "Put back a copy from a backup, or start again to begin with an empty store"
            ) from error

    def _open(self) -> None:
        run = self._connection.execute
        (application,) = run("PRAGMA application_id").fetchone()
        (version,) = run("PRAGMA user_version").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        if application != _APPLICATION_ID and tables:
            raise StartError(f"{self.path} is an SQLite database, but not a store of the mesh: choose another data directory")
        if version > _SCHEMA_VERSION:
            raise StartError(
                f"the store {self.path} was written by a newer eventing-mesh (schema {version}, this one knows "
                f"{_SCHEMA_VERSION}): use that version, or another data directory"
            )
        faults = run("PRAGMA quick_check(3)").fetchall()
        if faults != [("ok",)]:
            raise sqlite3.DatabaseError("; ".join(str(fault) for (fault,) in faults))
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")
        run(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        if tables:
            for step in range(version, _SCHEMA_VERSION):
                # All of a step or none: a kill in the middle leaves the version before it.
                self._connection.executescript(f"BEGIN IMMEDIATE;{_MIGRATIONS[step]};PRAGMA user_version={step + 1};COMMIT;")
        else:
            self._connection.executescript(
                f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA application_id={_APPLICATION_ID};PRAGMA user_version={_SCHEMA_VERSION};COMMIT;"
            )

    def _set_aside(self, stamp: str) -> Path:
        aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}")
        for part in _PARTS:
            source = Path(f"{self.path}{part}")
            if source.exists():
                source.rename(f"{aside}{part}")
        return aside

    def load(self) -> tuple[int, Iterable[Row]]:
        """The newest resource version ever given out, and all objects, sorted."""
        (version,) = self._connection.execute(
            "SELECT max(version, (SELECT ifnull(max(version), 0) FROM objects)) FROM counter"
        ).fetchone()
        query = "SELECT resource, namespace, name, version, data FROM objects ORDER BY resource, namespace, name"
        return int(version), (Row(*row) for row in self._connection.execute(query))

    def write(self, rows: Sequence[Row], version: int) -> None:
        """Make the rows durable, all or none. Raises sqlite3.Error (disk full, I/O error), after which nothing is stored."""
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            for row in rows:
                if row.data is None:
                    run("DELETE FROM objects WHERE resource=? AND namespace=? AND name=?", row[:3])
                else:
                    run(_PUT, row)
            if any(row.data is None for row in rows):
                run("UPDATE counter SET version=?", (version,))
            run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise

    def close(self) -> None:
        self._connection.close()
