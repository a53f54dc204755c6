"""The run folder: settings, manifest, events, checkpoint and labels on disk, written so that no kill can break them.

``events.jsonl`` only grows; the checkpoint remembers how many of its bytes it
stands for, and resuming cuts off whatever was written after. One writer at a time holds the lock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from elicitor.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from elicitor.config import RunConfig, deciding_settings, read_config
from elicitor.errors import ConfigError, DataError, DiskError, ElicitorError, ResumeMismatchError
from elicitor.files import (
    hold,
    json_line,
    make_folder,
    read_json,
    stray_entry,
    write_atomic,
    write_json,
    write_rows,
    writing,
)
from elicitor.manifest import SCHEMA
from elicitor.shapes import Manifest, check

CONFIG = "config.yaml"
MANIFEST = "manifest.json"
EVENTS = "events.jsonl"
CHECKPOINT = "checkpoint.json"
LABELS = "labels.jsonl"
METRICS = "metrics.json"
LOCK = ".lock"
_SAVE_SECONDS = 0.5
"""Between two saved steps: saving waits for the disk, on which a fast model's step must not depend."""


class RunFolder:
    """A run folder opened for writing; use it as a context manager, which holds the lock.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        self._events: IO[bytes] | None = None
        self._kept: Checkpoint | None = None
        self._saved = float("-inf")

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
            ConfigError: If the folder holds anything else or cannot be made.
            DiskError: If the disk is full or the folder read-only.
            RunLockedError: If another process is starting a run there.
        """
        refuse_used(path)
        folder = cls(path)
        try:
            make_folder(path)
            folder._acquire()
            write_atomic(path / CONFIG, config.to_yaml())
            write_json(path / MANIFEST, manifest)
        except ElicitorError:
            folder.close()
            raise
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
            manifest: What it must have been made from: data, model and what searches decide are compared, not the version
                of the package. Another version that goes on is named in the manifest of the run.

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
            before = read_manifest(path)
            made_with = read_config(path / CONFIG)
            _compare("setting", deciding_settings(made_with), deciding_settings(config))
            began = {
                "search": "use the version of elicitor that began it",
                "batches": "serve the model with the window that it had",
            }
            # Labels that are there are what they are, however they would be found today.
            found = ("search", "batches") if folder.is_joined() else ()
            was, now = (
                {name: value for name, value in made["identity"].items() if name not in found}
                for made in (before, manifest)
            )
            _compare("manifest entry", was, now, ways_out=began)
            if named := _other_version(before, manifest):
                write_json(path / MANIFEST, {**before, "resumed_with": named})
            with writing(path):
                for leftover in path.glob(".*.tmp"):
                    leftover.unlink()
            if config != made_with:
                # What may differ, such as a server's address, is from now on as it was given last.
                write_atomic(path / CONFIG, config.to_yaml())
            if (path / EVENTS).exists():
                with writing(path / EVENTS):
                    _cut(path / EVENTS, folder.checkpoint().event_bytes)
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
        """Save what was kept last, close the files and release the lock."""
        # Whatever ended the run is the error to tell of; it goes on from the checkpoint before.
        with suppress(DiskError, OSError):
            self.save_kept()
        if self._events:
            # What is not on disk by now belongs to no checkpoint; a full disk would refuse it once more.
            with suppress(OSError):
                self._events.close()
        if self._lock:
            self._lock.close()
        self._events = self._lock = None

    def append(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Add events; they count once a checkpoint that was made after them has been saved."""
        with writing(self.path / EVENTS):
            if self._events is None:
                self._events = (self.path / EVENTS).open("ab")
            self._events.write("".join(json_line(event) for event in events).encode())

    def keep(self, checkpoint: Checkpoint) -> None:
        """Save, unless that was done less than half a second ago: then the next one may, or `save_kept`, or `close`.

        A kill in between costs so much finished work at most, which is done again to the same end.

        Args:
            checkpoint: Where the run stands; the length of ``events.jsonl`` is filled in.

        Raises:
            DiskError: If the disk is full or the folder read-only; the run can be resumed from the checkpoint before.
        """
        # Events that come later, or in part, are not this checkpoint's, whenever it is saved.
        self._kept = replace(checkpoint, event_bytes=self._written())
        if time.monotonic() - self._saved >= _SAVE_SECONDS:
            self._save(self._kept)

    def save_kept(self) -> None:
        """Save the checkpoint that was kept last, if that has not been done.

        Raises:
            DiskError: If the disk is full or the folder read-only; the run can be resumed from the checkpoint before.
        """
        if self._kept:
            self._save(self._kept)

    def save(self, checkpoint: Checkpoint) -> None:
        """Make everything up to here survive a kill.

        Args:
            checkpoint: Where the run stands; the length of ``events.jsonl`` is filled in.

        Raises:
            DiskError: If the disk is full or the folder read-only; the run can be resumed from the checkpoint before.
        """
        self._save(replace(checkpoint, event_bytes=self._written()))

    def _written(self) -> int:
        if self._events is not None:
            return self._events.tell()
        events = self.path / EVENTS
        return events.stat().st_size if events.exists() else 0

    def _save(self, checkpoint: Checkpoint) -> None:
        self._kept = None
        if self._events is not None:
            with writing(self.path / EVENTS):
                self._events.flush()
                os.fsync(self._events.fileno())
        write_checkpoint(self.path / CHECKPOINT, checkpoint)
        self._saved = time.monotonic()

    def checkpoint(self) -> Checkpoint:
        """The newest checkpoint, or the start of a run that was killed before its first."""
        return read_checkpoint(self.path / CHECKPOINT)

    def is_joined(self) -> bool:
        """Whether all batches have been joined to the run's labels."""
        return (self.path / METRICS).exists()

    def left(self, batches: int) -> list[int]:
        """Batches that are still to be searched, of so many."""
        return [] if self.is_joined() else self.checkpoint().left(batches)

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
    if strange := stray_entry(path, known=(LOCK, CONFIG)):
        raise ConfigError(f"{path} is not empty, it holds {strange!r}", fix="choose another --output-dir")


def read_manifest(path: Path) -> dict[str, Any]:
    """What a run was made from; see `build_manifest`.

    Raises:
        DataError: If it is missing, broken, or written in another schema than this version's.
    """
    manifest = read_json(path / MANIFEST)
    schema = manifest.get("schema", 0)
    if schema != SCHEMA:
        # Nothing before schema 1 was ever released.
        way_out = "use the version of elicitor that wrote it, or a newer one"
        if not isinstance(schema, int) or schema < SCHEMA:
            way_out = f"search again: elicitor label --config {path / CONFIG} --output-dir NEW"
        raise DataError(f"{path} has schema {schema!r} of run folders, this version reads {SCHEMA}", fix=way_out)
    check(Manifest, manifest, place=str(path / MANIFEST))
    identity = manifest.get("identity", {})
    if identity.pop("elicitor", None) is not None:
        # Before searches had a number of their own, the package's version stood for it.
        identity["search"] = 1
    return manifest


def check_same_data(path: Path, fingerprint: str, source: str) -> None:
    """Refuse data that changed since it was labelled: under the same ids, other texts would pass for what the labels are of.

    Args:
        path: Folder of the run.
        fingerprint: Of the data as it is now.
        source: Where that was read from.

    Raises:
        DataError: If it is not what the run labelled.
    """
    if fingerprint != read_manifest(path)["identity"]["data"]:
        raise DataError(
            f"{source} is no longer what {path} labelled: texts, ids, groups or keys have changed",
            fix="put back the data file that the run was made from, or label the new one",
        )


def load_run_config(path: Path) -> RunConfig:
    """Settings of a run.

    Raises:
        ConfigError: If the folder is not a run.
        DataError: If it was written in a schema that this version does not read.
    """
    if not has_run(path):
        raise ConfigError(f"{path} is not a run folder", fix="give the --output-dir of an earlier 'elicitor label'")
    read_manifest(path)
    return read_config(path / CONFIG)


def _cut(events: Path, length: int) -> None:
    """Drop what was written after a checkpoint."""
    if events.stat().st_size < length:
        # Cutting would fill up with zeros. No kill does this: events are on the disk before their checkpoint is.
        raise DataError(
            f"{events} has lost events that {CHECKPOINT} stands for", fix="put it back, or search again in a new folder"
        )
    os.truncate(events, length)


def _other_version(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Versions that have gone on with a run, if this one is not yet among them and did not begin it."""
    version = now.get("versions", {}).get("elicitor")
    known = [before.get("versions", {}).get("elicitor"), *before.get("resumed_with", [])]
    return [] if version is None or version in known else [*before.get("resumed_with", []), version]


def _compare(
    what: str, before: Mapping[str, Any], now: Mapping[str, Any], *, ways_out: Mapping[str, str] | None = None
) -> None:
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            raise ResumeMismatchError(
                f"the run was made with {what} {name} = {before.get(name)!r}, now it is {now.get(name)!r}",
                fix=f"{(ways_out or {}).get(name, 'give the same again')}, or start a new run in another --output-dir",
            )
