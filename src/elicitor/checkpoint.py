"""The checkpoint of a run: where it stands, in one small file with a checksum."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from elicitor.errors import DataError
from elicitor.files import json_line, read_json, write_atomic
from elicitor.shapes import validated

_CRC = "crc32"
"""Entry that holds the checksum of the others."""


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


_CHECKPOINTS = TypeAdapter(Checkpoint)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace a checkpoint.

    Raises:
        DiskError: If the disk is full or the folder read-only; the old one stays.
    """
    # One line: it is rewritten again and again and read by nobody but `resume`.
    line = json_line(asdict(checkpoint))
    write_atomic(path, f'{line[:-2]}, "{_CRC}": {_crc(line)}}}\n')


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; the start of a run that was killed before its first one if there is none.

    Raises:
        DataError: If it is not as it was written.
    """
    if not path.exists():
        return Checkpoint()
    values = read_json(path)
    crc = values.pop(_CRC, None)
    found = validated(_CHECKPOINTS, values, place=str(path))
    # A state changed by hand would be searched on from as if it were one; earlier versions wrote no checksum.
    if crc not in (None, _crc(json_line(values))) or found.event_bytes < 0:
        raise DataError(f"{path} has been changed since it was written", fix="search again in another --output-dir")
    return found


def _crc(line: str) -> int:
    return zlib.crc32(line.encode())
