"""Pairwise accuracy of reward models on held-out preferences: by subset, with intervals, beside one another.

Margins are kept in each reward model's folder under a name that hashes model and test set, so nothing is scored twice and
a killed evaluation goes on where it was. Gold is read here and in `elicitor.train.pairs` alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elicitor.backends.base import OnPart, OnStage, Progress
from elicitor.config import check_seeds
from elicitor.metrics import Difference, Estimate, accuracy, difference

if TYPE_CHECKING:
    from elicitor.train.pairs import Preference
    from elicitor.train.reward_model import RewardModel

SCORES = "scores"
LONGER = "longer response"
"""Name of the row that prefers whatever has more characters: what a reward model must beat to have learnt more than that."""


@dataclass(frozen=True, slots=True)
class RewardRow:
    """Accuracy of one reward model on one test set or a part of it.

    Attributes:
        model: Folder of the reward model, or `LONGER`.
        test: Test set.
        subset: Part of it, None for all of it.
        accuracy: Share of pairs whose preferred response got the higher reward; a tie is wrong.
        ties: Pairs whose responses got the same reward.
        margin: Mean reward of the preferred response less that of the other, in nats; None for `LONGER`.
    """

    model: str
    test: str
    subset: str | None
    accuracy: Estimate
    ties: int
    margin: float | None


@dataclass(frozen=True, slots=True)
class RewardGain:
    """How a reward model's accuracy differs from that of the first one, on the same pairs.

    Attributes:
        model: Folder of the reward model.
        test: Test set.
        less_first: Difference with interval and p-value.
    """

    model: str
    test: str
    less_first: Difference


@dataclass(frozen=True, slots=True)
class RewardEvaluation:
    """What ``elicitor eval reward`` prints.

    Attributes:
        rows: Accuracies: test sets in order, each model's whole row first.
        gains: Differences from the first model.
    """

    rows: tuple[RewardRow, ...]
    gains: tuple[RewardGain, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def evaluate_reward(
    models: Sequence[str | Path],
    tests: Sequence[str],
    *,
    task: str = "preference",
    base: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    limit: int | None = None,
    seed: int = 0,
    on_stage: OnStage | None = None,
    on_progress: Progress | None = None,
    on_part: OnPart | None = None,
) -> RewardEvaluation:
    """Compare reward models on held-out preferences.

    Args:
        models: Folders of reward models.
        tests: Files of pairs with gold, or ``hf:NAME@SPLIT``.
        task: Task that names the columns.
        base: Base model, if it is elsewhere now than when they were trained.
        dtype: Precision of the base.
        device: ``auto`` is CUDA if there is one.
        limit: Use only the first rows of each test set.
        seed: Draws the bootstrap resamples.
        on_stage: Called with what begins.
        on_progress: Called after each forward pass with its tokens.
        on_part: Called with pairs done and in all, for each model and test set.

    Returns:
        Rows by test set and model, and paired differences from the first model.

    Raises:
        ElicitorError: If a model or a test set cannot be read.
    """
    from elicitor.train.pairs import labelled_pairs
    from elicitor.train.reward_model import RewardModel

    check_seeds([seed])
    gold = {test: labelled_pairs(test, "golden", limit=limit, task=task).preferences for test in tests}
    leads: dict[tuple[str, str], np.ndarray[Any, Any]] = {}
    for name in map(str, models):
        if on_stage:
            on_stage(f"loading {name}")
        model = RewardModel.load(name, base=base, dtype=dtype, device=device)
        for test, items in gold.items():
            if on_stage:
                on_stage(f"{name} on {test}, {len(items):,} pairs")
            leads[name, test] = _leads(model, items, on_progress=on_progress, on_part=on_part)
        del model
    rng = np.random.default_rng(seed)
    rows: list[RewardRow] = []
    gains: list[RewardGain] = []
    for test, items in gold.items():
        longer = np.array([len(good) - len(bad) for good, bad in (item.ordered for item in items)], dtype=float)
        rows += _rows(LONGER, test, items, longer, rng=rng)
        groups = [item.pair.prompt for item in items]
        first = leads[str(models[0]), test]
        for name in map(str, models):
            rows += _rows(name, test, items, leads[name, test], rng=rng)
            if name != str(models[0]):
                found = difference((leads[name, test] > 0)[None], (first > 0)[None], groups, rng=rng)
                gains.append(RewardGain(name, test, found))
    return RewardEvaluation(tuple(rows), tuple(gains))


def _leads(
    model: RewardModel, items: Sequence[Preference], *, on_progress: Progress | None, on_part: OnPart | None
) -> np.ndarray[Any, Any]:
    """Reward of each preferred response less that of the other, shape (items,)."""
    from elicitor.backends.adapter import adapter_hash
    from elicitor.train.relabel import relabel, rows_of

    digest = hashlib.sha256(f"{adapter_hash(model.folder)}|{model.base.model.dtype}".encode())
    for item in items:
        digest.update(json.dumps([item.pair.id, item.pair.prompt, item.pair.responses]).encode())
    output = model.folder / SCORES / f"{digest.hexdigest()[:24]}.jsonl"
    output.parent.mkdir(exist_ok=True)
    pairs = [item.pair for item in items]
    relabel(model, lambda: iter(pairs), output, total=len(pairs), on_progress=on_progress, on_part=on_part)
    signs = [
        0 if row["chosen"] is None else 1 if row["chosen"] == item.chosen else -1
        for row, item in zip(rows_of(output), items, strict=True)
    ]
    return np.asarray(np.array(signs) * np.array([row["margin"] for row in rows_of(output)]))


def _rows(
    model: str, test: str, items: Sequence[Preference], leads: np.ndarray[Any, Any], *, rng: np.random.Generator
) -> list[RewardRow]:
    """The row of a whole test set, then those of its parts if it has any."""
    parts = sorted({item.pair.subset for item in items if item.pair.subset is not None})
    rows = []
    for subset in (None, *parts):
        chosen = [i for i, item in enumerate(items) if subset is None or item.pair.subset == subset]
        mine = leads[chosen]
        estimate = accuracy((mine > 0)[None], [items[i].pair.prompt for i in chosen], rng=rng)
        margin = None if model == LONGER else float(mine.mean())
        rows.append(RewardRow(model, test, subset, estimate, int((mine == 0).sum()), margin))
    return rows
