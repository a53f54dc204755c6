"""Files that no kill can break: whole ones appear by atomic replacement, and one writer at a time holds a folder's lock."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from elicitor.errors import DataError, DiskError, RunLockedError
from elicitor.shapes import check

_LOCK_SECONDS = 0.2
"""How long a lock is waited for: whoever only looks whether it is held has it for an instant."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM}
_BY_OTHERS = (
    *(f"(os error {code})" for code in (*_FULL, errno.EROFS)),
    "PytorchStreamWriter failed",
    "inline_container.cc",
    "iostream error",
)
"""How libraries that write themselves, such as safetensors and torch, say that a disk is full or read-only."""


def disk_error(error: BaseException, place: Path | None = None) -> DiskError | None:
    """What to tell of an error that means that a disk is full or a folder read-only; None for any other error.

    Args:
        error: What was raised, by whatever library.
        place: What was being written, where the error itself does not name it.
    """
    code, said = None, " ".join(str(error).split())[:200]
    if isinstance(error, OSError):
        code, said = error.errno, error.strerror or said
        place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else place
        if code not in {*_FULL, *_DENIED, errno.EROFS}:
            return None
    elif not any(words in said for words in _BY_OTHERS):
        return None
    elif f"(os error {errno.EROFS})" in said:
        code = errno.EROFS
    what = f"{place or 'a file'} cannot be written: {said}"
    if code in _DENIED:
        return DiskError(f"{place or 'a file'}: {said}", fix="check the permissions of its folder, or choose another")
    if code == errno.EROFS:
        return DiskError(what, fix="make the folder writable and go on with --resume, or choose another --output-dir")
    return DiskError(what, fix="free some space, then give the same command again, with --resume if it takes that")


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Say in our own words that a disk is full or a folder read-only.

    Args:
        place: What is being written.

    Raises:
        DiskError: If so; other errors stay what they are.
    """
    try:
        yield
    except Exception as error:  # safetensors and torch have errors of their own for it
        told = disk_error(error, place)
        if told is None:
            raise
        raise told from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there yet.

    Raises:
        DiskError: If the disk is full or the folder above read-only.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replace a file as a whole: what is written to the place that is given takes the file's when the block ends.

    Args:
        path: File to replace.

    Yields:
        A file beside it, which goes if the block fails.

    Raises:
        DiskError: If the disk is full or the folder read-only.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            yield temporary
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def stray_entry(folder: Path, *, known: Iterable[str] = ()) -> str | None:
    """Name of something in a folder that is not what a kill before the beginning may have left there.

    Args:
        folder: The folder; it need not exist.
        known: Names that may be there.

    Returns:
        The first such name; None if the folder is as good as empty.
    """
    if not folder.is_dir():
        return None
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.endswith(".tmp"))
    return next((name for name in names if name not in known), None)


def changed_key(before: Mapping[str, Any], now: Mapping[str, Any], *, growing: Iterable[str]) -> str | None:
    """The first setting that is not what it was when a folder was begun.

    Args:
        before: Settings that the folder was begun with, as JSON values.
        now: Those it is to go on with.
        growing: Keys of lists to which something may have been added since.

    Returns:
        Its key; None if the folder can go on.
    """
    for key, value in now.items():
        old = before.get(key)
        more = key in growing and isinstance(old, list) and isinstance(value, list) and all(one in value for one in old)
        if old != value and not more:
            return key
    return None


class Record(dict[str, Any]):
    """A JSON object out of a file: an entry that is missing is an error that names the file.

    Attributes:
        place: The file, and the line where there are several.
    """

    place = ""

    def __missing__(self, key: str) -> Any:
        """Say what is missing."""
        raise DataError(
            f"{self.place}: {key!r} is missing", fix="it was written by another version of elicitor, or changed"
        )


def parse_json(text: str | bytes, *, place: str) -> Any:
    """JSON values as this package writes them: numbers are finite, texts are whole, and objects are `Record`s.

    Args:
        text: The text, UTF-8.
        place: Where it stands.

    Raises:
        ValueError: If it is anything else.
    """

    def record(values: dict[str, Any]) -> Record:
        made = Record(values)
        made.place = place
        return made

    if isinstance(text, bytes):
        text = text.decode()
    try:
        values = json.loads(text, object_hook=record, parse_constant=_number, parse_float=_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if "\\u" in text:
        # Half of a surrogate pair can only be written as an escape; nothing could write it out again.
        json.dumps(values, ensure_ascii=False).encode()
    return values


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def write_atomic(path: Path, text: str | Iterable[str]) -> None:
    """Replace a file as a whole: a reader sees the old or the new content, never a part.

    Args:
        path: File to write.
        text: New content, or its parts, which are written as they come.

    Raises:
        DiskError: If the disk is full or the folder read-only; the old content stays.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.writelines([text] if isinstance(text, str) else text)
        stream.flush()
        os.fsync(stream.fileno())


def write_json(path: Path, values: Any) -> None:
    """Write JSON atomically."""
    write_atomic(path, json.dumps(values, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON Lines atomically, one at a time."""
    write_atomic(path, (json_line(row) for row in rows))


def read_json(path: Path, *, shape: Any = None) -> dict[str, Any]:
    """Read a JSON file of a run folder.

    Args:
        path: The file.
        shape: What it must hold, one of `elicitor.shapes`.

    Raises:
        DataError: If the file is missing or broken.
    """
    try:
        values = parse_json(path.read_bytes(), place=str(path))
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:  # neither JSON nor, it may be, UTF-8
        raise DataError(f"{path} is not JSON", fix="start the run again in another --output-dir") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} holds no JSON object", fix="start the run again in another --output-dir")
    if shape is not None:
        check(shape, values, place=str(path))
    return values


def _unreadable(path: Path, error: OSError) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} does not exist", fix="finish the run with --resume, or check the folder")
    return DataError(f"{path} cannot be read: {error.strerror}", fix="check its permissions, and the disk")


def read_rows(path: Path, *, shape: Any = None) -> list[dict[str, Any]]:
    """Read JSON Lines of a run folder; see `iter_rows`.

    Raises:
        DataError: If the file is missing or a line is not a JSON object of the shape.
    """
    return list(iter_rows(path, shape=shape))


def iter_rows(path: Path, *, until: int | None = None, shape: Any = None) -> Iterator[dict[str, Any]]:
    """Read JSON Lines of a run folder one at a time; see `read_rows`.

    Args:
        path: The file.
        until: Read whole lines within so many bytes alone: what a checkpoint of a run in work stands for.
        shape: What each line must hold, one of `elicitor.shapes`.
    """
    try:
        # Bytes, because no other line ends count: an id may hold a line separator of Unicode, which JSON leaves as it is.
        with path.open("rb") as stream:
            read = 0
            for number, line in enumerate(stream, start=1):
                read += len(line)
                if until is not None and read > until:
                    return
                place = f"{path} line {number}"
                try:
                    values = parse_json(line, place=place)
                except ValueError as error:  # neither JSON nor, it may be, UTF-8
                    raise DataError(f"{place} is not JSON", fix="resume the run, which repairs it") from error
                if not isinstance(values, dict):
                    raise DataError(f"{place} is no JSON object", fix="take it out")
                if shape is not None:
                    check(shape, values, place=place)
                yield values
    except OSError as error:
        raise _unreadable(path, error) from error


def hold(file: Path) -> IO[str]:
    """Lock a folder for one writer by a file in it.

    Args:
        file: The lock file.

    Returns:
        The open file; closing it ends the hold, and so does the end of the process.

    Raises:
        RunLockedError: If another process holds it.
        DiskError: If the disk is full or the folder read-only.
        OSError: If it cannot be written for another reason.
    """
    with writing(file):
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
