"""Files that no kill can break: whole ones appear by atomic replacement, and one writer at a time holds a folder's lock."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from elicitor.errors import DataError, RunLockedError

_LOCK_SECONDS = 0.2
"""How long a lock is waited for: whoever only looks whether it is held has it for an instant."""


def write_atomic(path: Path, text: str | Iterable[str]) -> None:
    """Replace a file as a whole: a reader sees the old or the new content, never a part.

    Args:
        path: File to write.
        text: New content, or its parts, which are written as they come.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.writelines([text] if isinstance(text, str) else text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def write_json(path: Path, values: Any) -> None:
    """Write JSON atomically."""
    write_atomic(path, json.dumps(values, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON Lines atomically, one at a time."""
    write_atomic(path, (json_line(row) for row in rows))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run folder.

    Raises:
        DataError: If the file is missing or broken.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", fix="finish the run with --resume, or check the folder") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON", fix="start the run again in another --output-dir") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} holds no JSON object", fix="start the run again in another --output-dir")
    return values


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSON Lines of a run folder.

    Raises:
        DataError: If the file is missing or a line is not JSON.
    """
    return list(iter_rows(path))


def iter_rows(path: Path, *, until: int | None = None) -> Iterator[dict[str, Any]]:
    """Read JSON Lines of a run folder one at a time; see `read_rows`.

    Args:
        path: The file.
        until: Read whole lines within so many bytes alone: what a checkpoint of a run in work stands for.
    """
    try:
        # Bytes, because no other line ends count: an id may hold a line separator of Unicode, which JSON leaves as it is.
        with path.open("rb") as stream:
            read = 0
            for number, line in enumerate(stream, start=1):
                read += len(line)
                if until is not None and read > until:
                    return
                try:
                    yield json.loads(line.decode())
                except ValueError as error:  # neither JSON nor, it may be, UTF-8
                    raise DataError(
                        f"{path} line {number} is not JSON", fix="resume the run, which repairs it"
                    ) from error
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", fix="finish the run with --resume, or check the folder") from error


def hold(file: Path) -> IO[str]:
    """Lock a folder for one writer by a file in it.

    Args:
        file: The lock file.

    Returns:
        The open file; closing it ends the hold, and so does the end of the process.

    Raises:
        RunLockedError: If another process holds it.
        OSError: If it cannot be written.
    """
    stream = file.open("a+", encoding="utf-8")
    last = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < last:
                time.sleep(_LOCK_SECONDS / 10)
                continue
            stream.close()
            raise RunLockedError(
                f"{file.parent} is being written by another process", fix="wait for it, or choose another --output-dir"
            ) from error
        return stream


def is_held(file: Path) -> bool:
    """Whether a process holds a lock file; see `hold`."""
    try:
        with file.open(encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def is_plain_name(text: str) -> bool:
    """Whether a text is a file's name and nothing else: no path, no hidden file, nothing that a file system refuses."""
    return 0 < len(text.encode()) <= 200 and text[0] != "." and not set(text) & {"/", "\\", "\0"}


def json_line(values: Mapping[str, Any]) -> str:
    """One line of a JSON Lines file."""
    return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"
