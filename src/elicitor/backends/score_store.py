"""Answers on disk, in one SQLite file that processes share: bounded, checked, and dropped where they are damaged."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from elicitor.backends.gguf import cache_folder

Answer = NDArray[np.float64]

Result = TypeVar("Result")

_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""Codes of a file that is not ours any more; our own statements fail with the last only on another schema."""

_LOCK_SECONDS = 30.0
"""How long another process is waited for."""
_AT_ONCE = 500
_FREED = 10
"""When the bound is passed, a tenth of the rows goes, so that not every write has to make room."""
_STILL_FRESH = 60
"""Seconds after which a row that is read counts as used anew: reading need not write each time."""


def score_file() -> Path:
    """Where scores are kept, in the user's cache folder."""
    return cache_folder() / "scores.sqlite"


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What a store holds.

    Attributes:
        file: Its database.
        answers: Number of answers.
        bytes: Size on disk, with the write-ahead log.
    """

    file: Path
    answers: int
    bytes: int


class ScoreStore:
    """Answers by key in an SQLite file that processes share.

    Args:
        file: The database; made if missing.
        max_bytes: Bytes of it at most; the least recently used answers go first.
    """

    def __init__(self, file: Path, *, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    def get(self, keys: Sequence[bytes], *, size: int) -> dict[bytes, Answer]:
        """Answers that are there and whole.

        Args:
            keys: What to look for.
            size: Numbers of each answer.

        Returns:
            Answers by key, each of shape (size,), finite.
        """
        found: dict[bytes, Answer] = {}
        damaged: list[bytes] = []

        def look_up(database: sqlite3.Connection) -> None:
            for part in _parts(keys):
                marks = ",".join("?" * len(part))
                rows = database.execute(f"SELECT key, value, sum FROM scores WHERE key IN ({marks})", part)
                for key, value, checksum in rows.fetchall():
                    answer = _read(key, value, checksum, size)
                    if answer is None:
                        damaged.append(key)
                    else:
                        found[key] = answer
            now = int(time.time())
            for part in _parts([*found]):
                marks = ",".join("?" * len(part))
                old = now - _STILL_FRESH
                database.execute(f"UPDATE scores SET used = {now} WHERE used < {old} AND key IN ({marks})", part)
            if damaged:
                database.executemany("DELETE FROM scores WHERE key = ?", [(key,) for key in damaged])
            self._make_room(database)

        self._transact(look_up)
        if damaged:
            warnings.warn(f"{len(damaged)} damaged scores in {self._file} are computed again", stacklevel=3)
        return found

    def put(self, answers: Mapping[bytes, Answer]) -> None:
        """Keep answers, dropping the least recently used ones if there are too many."""
        now = int(time.time())
        rows = [(key, value.tobytes(), _checksum(key, value.tobytes()), now) for key, value in answers.items()]

        def insert(database: sqlite3.Connection) -> None:
            database.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", rows)
            self._make_room(database)

        self._transact(insert)

    def info(self) -> StoreInfo:
        """What is held."""
        answers = (self._transact(_count) or 0) if self._file.exists() else 0
        return StoreInfo(self._file, answers, sum(file.stat().st_size for file in self._files() if file.exists()))

    def clear(self) -> None:
        """Drop everything. The file stays: another process may be writing to it."""
        if self._file.exists():

            def delete(database: sqlite3.Connection) -> None:
                database.execute("DELETE FROM scores")
                self._make_room(database)

            self._transact(delete)
            self._transact(lambda database: database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())

    def close(self) -> None:
        """Close the file; it opens again when it is needed."""
        with self._lock:
            self._close()

    def _make_room(self, database: sqlite3.Connection) -> None:
        """Drop the least recently used rows while there is too much; noting what was used can take room as well."""
        while (used := _bytes_used(database)) > self._max_bytes and (count := _count(database)):
            freed = max(1, count // _FREED, count - count * self._max_bytes // used)
            oldest = "SELECT key FROM scores ORDER BY used, rowid LIMIT ?"
            database.execute(f"DELETE FROM scores WHERE key IN ({oldest})", (freed,))
        # Python steps through this pragma once, and each step gives back one page.
        for _ in range(_pragma(database, "freelist_count")):
            database.execute("PRAGMA incremental_vacuum")

    def _transact(self, work: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """One transaction; None, with a warning, if it fails. A broken file is dropped and begins anew."""
        with self._lock:
            try:
                if self._database is None:
                    self._database = self._connect()
                with self._database:
                    return work(self._database)
            except (sqlite3.Error, OSError) as error:  # the latter where the folder cannot be made
                self._close()
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT:
                    for file in self._files():
                        file.unlink(missing_ok=True)
                    warnings.warn(f"{self._file} was damaged and begins anew: {error}", stacklevel=4)
                else:
                    warnings.warn(f"{self._file} cannot be used now: {error}", stacklevel=4)
                return None

    def _connect(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        # A transaction that begins by reading cannot wait for another writer once it writes itself: it fails at once.
        database = sqlite3.connect(
            self._file, timeout=_LOCK_SECONDS, check_same_thread=False, isolation_level="IMMEDIATE"
        )
        database.text_factory = bytes
        try:
            # Takes effect in a new file alone: pages that are freed can be given back.
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            _write_ahead(database)
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, value BLOB, sum BLOB, used INTEGER)"
            )
            database.execute("CREATE INDEX IF NOT EXISTS by_use ON scores (used)")
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _files(self) -> list[Path]:
        return [self._file.with_name(self._file.name + end) for end in ("", "-wal", "-shm")]


def _write_ahead(database: sqlite3.Connection) -> None:
    """Keep a write-ahead log; SQLite itself waits for no other process here, and several may open a new file at once."""
    last = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > last:
                raise
            time.sleep(0.01)
        else:
            return


def _checksum(key: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(key + value, digest_size=16).digest()


def _read(key: object, value: object, checksum: object, size: int) -> Answer | None:
    if not isinstance(key, bytes) or not isinstance(value, bytes) or _checksum(key, value) != checksum:
        return None
    if len(value) != 8 * size:
        return None
    answer = np.frombuffer(value, dtype=np.float64)
    return answer if np.isfinite(answer).all() else None


def _count(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT count(*) FROM scores").fetchone()[0])


def _bytes_used(database: sqlite3.Connection) -> int:
    pages = _pragma(database, "page_count") - _pragma(database, "freelist_count")
    return pages * _pragma(database, "page_size")


def _pragma(database: sqlite3.Connection, what: str) -> int:
    return int(database.execute(f"PRAGMA {what}").fetchone()[0])


def _parts(keys: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    return (keys[begin : begin + _AT_ONCE] for begin in range(0, len(keys), _AT_ONCE))
