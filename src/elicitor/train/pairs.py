"""Preference pairs for reward models: the pairs themselves, and which response a source of labels prefers.

Pairs come without labels; labels come from a run (found), from gold, from one annotator's votes or by lot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from elicitor.audit import abstained_ids
from elicitor.baselines import one_vote_each, random_labels
from elicitor.data import cell_text, in_order_id, iter_task_rows, load_dataset
from elicitor.errors import ConfigError, DataError
from elicitor.gold import load_gold, load_votes
from elicitor.inputs import task_of
from elicitor.labelling import load_run
from elicitor.runs import check_same_data, has_run, load_run_config
from elicitor.search import FoundLabel
from elicitor.tasks import Task, load_task

LabelSource = Literal["found", "golden", "human", "random"]
LABEL_SOURCES: tuple[LabelSource, ...] = get_args(LabelSource)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one prompt.

    Attributes:
        id: Id of the row.
        prompt: What both answer.
        responses: The two responses, as the file has them.
        subset: Part of the data set that the row belongs to, None if it names none.
    """

    id: str
    prompt: str
    responses: tuple[str, str]
    subset: str | None = None


@dataclass(frozen=True, slots=True)
class Preference:
    """A pair with the response that is preferred.

    Attributes:
        pair: The pair.
        chosen: 0 or 1: which of its responses.
    """

    pair: Pair
    chosen: int

    @property
    def ordered(self) -> tuple[str, str]:
        """The preferred response, then the other."""
        return self.pair.responses[self.chosen], self.pair.responses[1 - self.chosen]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Pairs with the labels of one source.

    Attributes:
        preferences: Pairs that have a label.
        without: Pairs left out because the source has no label for them.
        contradictory: Pairs left out because their two orders got the same answer.
        indeterminate: Pairs left out because an audit set one of their orders aside.
    """

    preferences: tuple[Preference, ...]
    without: int = 0
    contradictory: int = 0
    indeterminate: int = 0

    @property
    def left_out(self) -> int:
        """Pairs without a preference, for whatever reason."""
        return self.without + self.contradictory + self.indeterminate


def check_pair_task(task: Task) -> None:
    """Refuse a task that does not compare two responses.

    Raises:
        ConfigError: If it has no pair of columns, or nothing but them.
    """
    if task.mirror is None or not prompt_fields(task):
        raise ConfigError(f"task {task.name!r} does not compare two responses to a prompt", fix="use task preference")


def prompt_fields(task: Task) -> list[str]:
    """Fields of a pair task that stand for the prompt."""
    return [name for name in task.fields if name not in (task.mirror or ())]


def iter_pairs(source: str, task: Task, *, limit: int | None = None) -> Iterator[Pair]:
    """Pairs of a file, one at a time.

    Args:
        source: File or ``hf:NAME@SPLIT``.
        task: A task that compares two responses.
        limit: Use only the first rows.

    Raises:
        ConfigError: If the task does not compare two responses.
        DataError: If a row cannot be used.
    """
    check_pair_task(task)
    assert task.mirror is not None
    for number, row in enumerate(iter_task_rows(source, task, limit=limit), start=1):
        named = task.id_column in row.values
        name = cell_text(row, task.id_column, needed_by=task.name) if named else f"row-{number}"
        prompt = "\n\n".join(cell_text(row, field, needed_by=task.name) for field in prompt_fields(task))
        first, second = (cell_text(row, field, needed_by=task.name) for field in task.mirror)
        subset = row.values.get("subset")
        yield Pair(name, prompt, (first, second), None if subset is None else str(subset))


def labelled_pairs(
    source: str | Path,
    labels: LabelSource,
    *,
    seed: int = 0,
    limit: int | None = None,
    task: str = "preference",
    keep_abstained: bool = False,
) -> Labelled:
    """Pairs of a labelling run or of a file, with the labels of one source.

    Args:
        source: Run folder of ``elicitor label``, or a file of pairs with gold or votes.
        labels: ``found`` by the run, ``golden``, ``human`` (one annotator's vote for each pair) or ``random``.
        seed: Draws votes and random labels.
        limit: Use only the first pairs.
        task: Task of a file; a run has its own.
        keep_abstained: Use found labels that ``elicitor audit --abstain`` called indeterminate as well.

    Returns:
        The pairs with their labels, in the order of the data.

    Raises:
        ElicitorError: If the source cannot be read or has no such labels.
    """
    folder = Path(source)
    if has_run(folder):
        config = load_run_config(folder)
        pair_task, data, rows = task_of(config), config.data, config.limit
    elif folder.is_dir():
        raise ConfigError(f"{folder} is not a run folder", fix="give the --output-dir of an earlier 'elicitor label'")
    else:
        if labels == "found":
            raise ConfigError(
                f"{source} is a file, which holds no found labels", fix="give a run folder, or --labels golden"
            )
        pair_task, data, rows = load_task(task), str(source), None
    rows = min((n for n in (rows, limit) if n is not None), default=None)
    pairs = list(iter_pairs(data, pair_task, limit=rows))
    rng = np.random.default_rng(seed)
    contradictory = indeterminate = 0
    match labels:
        case "found":
            labelled = load_dataset(data, pair_task, limit=load_run_config(folder).limit, in_memory=False)
            check_same_data(folder, labelled.fingerprint, data)
            doubtful = set() if keep_abstained else abstained_ids(folder)
            certain = [pair for pair in pairs if doubtful.isdisjoint(in_order_id(pair.id, order) for order in (0, 1))]
            indeterminate = len(pairs) - len(certain)
            chosen, contradictory = found_choices(load_run(folder).labels, certain, task=pair_task)
        case "golden":
            chosen = _first_orders(load_gold(data, pair_task, limit=rows).labels, pairs, pair_task)
        case "human":
            votes = load_votes(data, pair_task, limit=rows)
            cast = {i: votes[name] for i, pair in enumerate(pairs) if (name := in_order_id(pair.id, 0)) in votes}
            drawn = one_vote_each(cast, rng=rng)
            chosen = {pairs[i].id: _choice(vote, pair_task) for i, vote in drawn.items()}
        case "random":
            dealt = random_labels(range(len(pairs)), n_labels=2, rng=rng)
            chosen = {pairs[i].id: label for i, label in dealt.items()}
    preferences = tuple(Preference(pair, chosen[pair.id]) for pair in pairs if pair.id in chosen)
    if not preferences:
        fix = "add --keep-abstained, or choose other --labels" if indeterminate else "choose other --labels"
        raise DataError(f"{data} has no {labels} labels for any of its {len(pairs)} pairs", fix=fix)
    without = len(pairs) - len(preferences) - contradictory - indeterminate
    return Labelled(preferences, without, contradictory, indeterminate)


def found_choices(labels: Sequence[FoundLabel], pairs: Sequence[Pair], *, task: Task) -> tuple[dict[str, int], int]:
    """Which response each pair's two labels prefer.

    Args:
        labels: Found labels, of both orders.
        pairs: The pairs.
        task: Says which label means that the first response shown is the better.

    Returns:
        Index of the preferred response by pair id, and the number of pairs left out because both orders got one answer.
    """
    by_id = {item.id: task.label_space.index(item.label) == task.label_space.positive for item in labels}
    chosen: dict[str, int] = {}
    contradictory = 0
    for pair in pairs:
        answers = [by_id.get(in_order_id(pair.id, order)) for order in (0, 1)]
        if None in answers:
            continue
        if answers[0] == answers[1]:
            contradictory += 1
        else:
            chosen[pair.id] = 0 if answers[0] else 1
    return chosen, contradictory


def _first_orders(labels: Mapping[str, int], pairs: Sequence[Pair], task: Task) -> dict[str, int]:
    """Index of the preferred response by pair id, from labels of the pairs as they stand."""
    named = ((pair.id, in_order_id(pair.id, 0)) for pair in pairs)
    return {pair_id: _choice(labels[name], task) for pair_id, name in named if name in labels}


def _choice(label: int, task: Task) -> int:
    """Index of the response that a label of a pair as it stands prefers."""
    return 0 if label == task.label_space.positive else 1
