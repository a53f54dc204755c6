"""The run folder: settings, manifest, events, checkpoint and labels on disk, written so that no kill can break them.

Whole files appear by atomic replacement. ``events.jsonl`` only grows; the checkpoint remembers how many of its bytes it
stands for, and resuming cuts off whatever was written after. One writer at a time holds the lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from elicitor.config import RunConfig, deciding_settings, read_config
from elicitor.errors import ConfigError, DataError, ResumeMismatchError, RunLockedError

CONFIG = "config.yaml"
MANIFEST = "manifest.json"
EVENTS = "events.jsonl"
CHECKPOINT = "checkpoint.json"
LABELS = "labels.jsonl"
METRICS = "metrics.json"
LOCK = ".lock"
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
    write_atomic(path, (_line(row) for row in rows))


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


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run stands; batches may finish in any order.

    Attributes:
        done: Finished batches as (first, last) of each unbroken row of them, ascending: what is written after every step must
            not grow with the run.
        batch: Batch that was begun and is not finished, if there is one.
        state: Its search's state as JSON values, or None before the batch has begun.
        rng: State of its generator.
        meter: Its cost so far.
        event_bytes: Length of ``events.jsonl`` that belongs to this state.
    """

    done: tuple[tuple[int, int], ...] = ()
    batch: int | None = None
    state: dict[str, Any] | None = None
    rng: dict[str, Any] | None = None
    meter: Mapping[str, Any] | None = None
    event_bytes: int = 0

    def left(self, batches: int) -> list[int]:
        """Batches that are not finished, of so many."""
        left: list[int] = []
        begin = 0
        for first, last in (*self.done, (batches, batches)):
            left.extend(range(begin, min(first, batches)))
            begin = last + 1
        return left

    def with_done(self, batch: int) -> Checkpoint:
        """After a batch has finished; if it is the one that was begun, none is begun now."""
        before = [pair for pair in self.done if pair[1] < batch]
        after = [pair for pair in self.done if pair[0] > batch]
        first = last = batch
        for low, high in self.done:
            if low <= batch <= high:
                first, last = low, high
        if before and before[-1][1] == first - 1:
            first = before.pop()[0]
        if after and after[0][0] == last + 1:
            last = after.pop(0)[1]
        done = (*before, (first, last), *after)
        return Checkpoint(done) if self.batch == batch else replace(self, done=done)


class RunFolder:
    """A run folder opened for writing; use it as a context manager, which holds the lock.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        self._events: IO[bytes] | None = None

    @classmethod
    def create(cls, path: Path, config: RunConfig, manifest: Mapping[str, Any]) -> RunFolder:
        """Start a new run.

        Args:
            path: Folder to make; it may exist if it is empty or holds a run that was killed before it began.
            config: Resolved settings.
            manifest: What the run depends on; see `build_manifest`.

        Returns:
            The folder, its lock held.

        Raises:
            ConfigError: If the folder holds anything else or cannot be written.
            RunLockedError: If another process is starting a run there.
        """
        refuse_used(path)
        folder = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder._acquire()
            write_atomic(path / CONFIG, config.to_yaml())
            write_json(path / MANIFEST, manifest)
        except OSError as error:
            folder.close()
            raise ConfigError(
                f"{path} cannot be written: {error.strerror}", fix="choose another --output-dir"
            ) from error
        return folder

    @classmethod
    def resume(cls, path: Path, config: RunConfig, manifest: Mapping[str, Any]) -> RunFolder:
        """Go on with a run, or start it if it never began.

        Args:
            path: Folder of the run.
            config: Settings it must have been made with; only those that cannot change a result may differ, such as the
                data's path, whose content is compared, or a server's address.
            manifest: What it must have been made from: data, model and package version are compared.

        Returns:
            The folder, its lock held, events cut back to the checkpoint.

        Raises:
            ConfigError: If the folder holds something that is not a run.
            ResumeMismatchError: If settings, data or model differ.
            RunLockedError: If another process writes to it.
        """
        if not has_run(path):
            return cls.create(path, config, manifest)
        folder = cls(path)
        folder._acquire()
        try:
            made_with = load_run_config(path)
            _compare("setting", deciding_settings(made_with), deciding_settings(config))
            before = read_json(path / MANIFEST)
            _compare("manifest entry", before["identity"], manifest["identity"])
            for leftover in path.glob(".*.tmp"):
                leftover.unlink()
            if config != made_with:
                # What may differ, such as a server's address, is from now on as it was given last.
                write_atomic(path / CONFIG, config.to_yaml())
            if (path / EVENTS).exists():
                os.truncate(path / EVENTS, folder.checkpoint().event_bytes)
        except BaseException:
            folder.close()
            raise
        return folder

    def __enter__(self) -> RunFolder:
        """Keep the lock until the block ends."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock."""
        self.close()

    def close(self) -> None:
        """Close the files and release the lock."""
        for stream in (self._events, self._lock):
            if stream:
                stream.close()
        self._events = self._lock = None

    def append(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Add events; they count once a checkpoint has been saved after them."""
        if self._events is None:
            self._events = (self.path / EVENTS).open("ab")
        self._events.write("".join(_line(event) for event in events).encode())

    def save(self, checkpoint: Checkpoint) -> None:
        """Make everything up to here survive a kill.

        Args:
            checkpoint: Where the run stands; the length of ``events.jsonl`` is filled in.
        """
        if self._events is not None:
            self._events.flush()
            os.fsync(self._events.fileno())
        events = self.path / EVENTS
        length = events.stat().st_size if events.exists() else 0
        # One line: it is rewritten after every step and read by nobody but `resume`.
        write_atomic(self.path / CHECKPOINT, _line(asdict(replace(checkpoint, event_bytes=length))))

    def checkpoint(self) -> Checkpoint:
        """The newest checkpoint, or the start of a run that was killed before its first."""
        path = self.path / CHECKPOINT
        if not path.exists():
            return Checkpoint()
        values = read_json(path)
        return Checkpoint(**{**values, "done": tuple((first, last) for first, last in values["done"])})

    def finish_batch(
        self,
        batch: int,
        *,
        events: Iterable[Mapping[str, Any]],
        labels: Sequence[Mapping[str, Any]],
        metrics: Mapping[str, Any],
    ) -> None:
        """Keep a finished batch; it counts from the last write on, which is the checkpoint's.

        Args:
            batch: Its number.
            events: Its events that are not in ``events.jsonl`` yet.
            labels: Its labels.
            metrics: Its metrics and cost.
        """
        self.append(events)
        write_rows(self.batch_labels(batch), labels)
        write_json(self.batch_metrics(batch), metrics)
        self.save(self.checkpoint().with_done(batch))

    def batch_labels(self, batch: int) -> Path:
        """File that keeps the labels of one finished batch until all are done."""
        return self.path / f"labels-{batch:05d}.jsonl"

    def batch_metrics(self, batch: int) -> Path:
        """File that keeps the metrics of one finished batch until all are done."""
        return self.path / f"metrics-{batch:05d}.json"

    def _acquire(self) -> None:
        self._lock = hold(self.path / LOCK)


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


def has_run(path: Path) -> bool:
    """Whether a run has begun in a folder: the manifest is the last file that starting writes."""
    return (path / MANIFEST).is_file()


def refuse_used(path: Path) -> None:
    """Refuse an output folder that holds more than the traces of a run killed before it began.

    Raises:
        ConfigError: If the folder is not empty, or is a file.
    """
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file", fix="choose another --output-dir")
    if has_run(path):
        raise ConfigError(f"{path} holds a run", fix="add --resume to go on with it, or choose another --output-dir")
    if path.is_dir():
        strange = [e.name for e in path.iterdir() if e.name not in (LOCK, CONFIG) and not e.name.endswith(".tmp")]
        if strange:
            raise ConfigError(f"{path} is not empty, it holds {strange[0]!r}", fix="choose another --output-dir")


def load_run_config(path: Path) -> RunConfig:
    """Settings of a run.

    Raises:
        ConfigError: If the folder is not a run.
    """
    if not has_run(path):
        raise ConfigError(f"{path} is not a run folder", fix="give the --output-dir of an earlier 'elicitor label'")
    return read_config(path / CONFIG)


def _compare(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise ResumeMismatchError(
                f"the run was made with {what} {name} = {before.get(name)!r}, now it is {now.get(name)!r}",
                fix="give the same again, or start a new run in another --output-dir",
            )


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"
