"""A reward model labels pairs: streamed from a file in batches, written as they come, resumable at any line.

Only id, choice and margin are written; the texts stay in the source and are read again for training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from elicitor.backends.base import OnPart, Progress
from elicitor.errors import ResumeMismatchError
from elicitor.train.controlled import between_steps
from elicitor.train.pairs import Pair, Preference
from elicitor.train.reward_model import RewardModel

PAIRS_AT_ONCE = 64
"""Pairs that are scored and written together; a kill loses no more than these."""

Pairs = Callable[[], Iterator[Pair]]
"""Reads the pairs from their source, anew each time it is called."""


@dataclass(frozen=True, slots=True)
class Relabelled:
    """What a file of relabelled pairs holds.

    Attributes:
        pairs: Pairs in it.
        ties: Pairs whose responses got the same reward; they have no label.
        first: Share of the others in which the first response is preferred.
        mean_margin: Mean difference of a pair's rewards, in nats.
    """

    pairs: int
    ties: int
    first: float
    mean_margin: float


def relabel(
    model: RewardModel,
    pairs: Pairs,
    output: Path,
    *,
    total: int,
    on_progress: Progress | None = None,
    on_part: OnPart | None = None,
) -> None:
    """Write which response of each pair the model prefers, and by how much.

    Under ``accelerate launch`` each process scores its share of a batch and the first one writes.

    Args:
        model: The reward model.
        pairs: The pairs.
        output: JSON Lines file to write or go on with: ``id``, ``chosen`` (0, 1, or null for a tie), ``margin`` in nats.
        total: Number of pairs.
        on_progress: Called after each forward pass with its tokens.
        on_part: Called after each batch with pairs done and in all.

    Raises:
        ResumeMismatchError: If the file was begun on other pairs.
    """
    state = PartialState()
    if state.is_main_process:
        _cut_broken_line(output)
    state.wait_for_everyone()
    stream = pairs()
    done = sum(1 for _ in preferences(output, stream, min_margin=None))
    while batch := list(islice(stream, PAIRS_AT_ONCE)):
        mine = batch[state.process_index :: state.num_processes]
        rewards = model.score(
            [pair.prompt for pair in mine for _ in range(2)],
            [text for pair in mine for text in pair.responses],
            on_progress=on_progress,
        ).reshape(-1, 2)
        rows = [_row(pair, first - second) for pair, (first, second) in zip(mine, rewards.tolist(), strict=True)]
        by_process = gather_object([rows])
        if state.is_main_process:
            with output.open("a", encoding="utf-8") as file:
                for k in range(len(batch)):
                    file.write(json.dumps(by_process[k % state.num_processes][k // state.num_processes]) + "\n")
                file.flush()
                os.fsync(file.fileno())
        done += len(batch)
        if on_part:
            on_part(done, total)
        between_steps()
    state.wait_for_everyone()


def preferences(output: Path, pairs: Iterator[Pair], *, min_margin: float | None = 0.0) -> Iterator[Preference]:
    """Relabelled pairs, as far as the file goes.

    Args:
        output: What `relabel` wrote.
        pairs: The same pairs in the same order; exactly as many are taken from it as the file has lines.
        min_margin: Leave out ties and pairs with a smaller margin; None leaves out nothing (a tie then counts for the first).

    Raises:
        ResumeMismatchError: If the file is about other pairs.
    """
    for row in rows_of(output):
        pair = next(pairs, None)
        if pair is None or pair.id != row["id"]:
            raise ResumeMismatchError(
                f"{output} goes on with pair {row['id']!r} where the data has {pair.id if pair else 'no more'!r}",
                fix="give the same --rest, or start again in another --output-dir",
            )
        if min_margin is None or (row["chosen"] is not None and row["margin"] >= min_margin):
            yield Preference(pair, row["chosen"] or 0)


def summarize(output: Path) -> Relabelled:
    """Count what a finished file holds."""
    pairs = ties = first = 0
    margin = 0.0
    for row in rows_of(output):
        pairs += 1
        ties += row["chosen"] is None
        first += row["chosen"] == 0
        margin += row["margin"]
    return Relabelled(pairs, ties, first / max(1, pairs - ties), margin / max(1, pairs))


def rows_of(output: Path) -> Iterator[dict[str, Any]]:
    """Lines of the file; none if it is not there."""
    if not output.exists():
        return
    with output.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _row(pair: Pair, lead: float) -> dict[str, Any]:
    """One line: ``lead`` is the first response's reward less the second's."""
    return {"id": pair.id, "chosen": None if lead == 0 else int(lead < 0), "margin": abs(lead)}


def _cut_broken_line(output: Path) -> None:
    """Drop what follows the last line end, which a kill may have left."""
    if not output.exists():
        return
    with output.open("rb+") as file:
        content_end = file.seek(0, os.SEEK_END)
        back = min(content_end, 1 << 16)
        file.seek(content_end - back)
        tail = file.read(back)
        file.truncate(content_end - back + tail.rfind(b"\n") + 1)
