"""Trivial features of examples, and how well the best single one of them predicts the found labels.

Search may settle on a concept that is coherent and yet not the one that was meant: how long a text is, say. No gold is
needed to see that: if a trivial feature alone predicts the labels, it is a candidate for what was found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from elicitor.data import ORDERS, Dataset
from elicitor.tasks import Task

Feature = NDArray[np.float64]
"""Shape (examples,)."""


@dataclass(frozen=True, slots=True)
class Predictor:
    """One feature as a predictor of one label.

    Attributes:
        feature: Name.
        label: Label that it tells from the others.
        balanced_accuracy: Mean of the shares of examples with and without the label that the best threshold gets right:
            0.5 for a feature that says nothing, 1 for one that says all.
        p_value: How often the best of *all* features does as well on labels dealt anew among the groups.
    """

    feature: str
    label: str
    balanced_accuracy: float
    p_value: float


def trivial_features(
    dataset: Dataset, task: Task, *, columns: Mapping[str, Sequence[str | None]] | None = None
) -> dict[str, Feature]:
    """What can be said of examples without understanding them.

    Args:
        dataset: The examples.
        task: Says which fields are a pair, whose difference then counts.
        columns: Further columns, such as a source, one value an example; None for none.

    Returns:
        Feature by name; those that are the same for all examples are left out.
    """
    features: dict[str, Feature] = {"place in the file": np.arange(len(dataset), dtype=np.float64)}
    places: Counter[str] = Counter()
    within = []
    for example in dataset.examples:
        within.append(float(places[example.group_id]))
        places[example.group_id] += 1
    features["place in the group"] = np.asarray(within)
    measured = {name: [_measure(example.fields[name]) for example in dataset.examples] for name in task.fields}
    if task.mirror:
        first, second = task.mirror
        features["order of the pair"] = np.asarray(
            [ORDERS.index(example.id[-2:]) for example in dataset.examples], dtype=np.float64
        )
        both = list(zip(measured.pop(first), measured.pop(second), strict=True))
        for what in both[0][0]:
            features[f"{what}: {first} less {second}"] = np.asarray([left[what] - right[what] for left, right in both])
    for name, values in measured.items():
        for what in values[0]:
            features[f"{what} of {name}"] = np.asarray([value[what] for value in values])
    for left, right in pairwise(task.fields):
        shared = [_overlap(example.fields[left], example.fields[right]) for example in dataset.examples]
        features[f"words of {right} that {left} has"] = np.asarray(shared)
    for name, column in (columns or {}).items():
        features |= _column_features(name, column)
    return {name: values for name, values in features.items() if len(np.unique(values)) > 1}


def best_predictor(
    features: Mapping[str, Feature],
    labels: Sequence[int],
    names: Sequence[str],
    groups: Sequence[str],
    *,
    rng: np.random.Generator,
    permutations: int = 1000,
) -> Predictor | None:
    """The feature that alone predicts the labels best, with a p-value that allows for having looked at all of them.

    The balanced accuracy of the best threshold is (1 + d) / 2, where d is the Kolmogorov-Smirnov distance between the
    feature's values with and without the label. Under no relation, the labels of groups of equal size can be exchanged.

    Args:
        features: Feature by name, each of shape (examples,).
        labels: Found label index of each example.
        names: Label names.
        groups: Group of each example.
        rng: Deals labels anew.
        permutations: How often.

    Returns:
        The best; None if there are no features or all labels are the same.
    """
    found = np.asarray(labels)
    present = [y for y in range(len(names)) if 0 < np.mean(found == y) < 1]
    if len(names) == 2:
        present = present[-1:]
    if not present or not features:
        return None
    dealt = np.concatenate([found[None], _exchanged(found, groups, rng=rng, times=permutations)])
    distances = {(feature, y): _distances(values, dealt == y) for feature, values in features.items() for y in present}
    feature, label = max(distances, key=lambda key: distances[key][0])
    highest = np.max(np.stack(list(distances.values())), axis=0)
    return Predictor(
        feature=feature,
        label=names[label],
        balanced_accuracy=float((1 + highest[0]) / 2),
        p_value=float(np.mean(highest >= highest[0] - 1e-12)),
    )


_WORD = re.compile(r"\w+")


def _measure(text: str) -> dict[str, float]:
    words = _WORD.findall(text)
    letters = sum(c.isalpha() for c in text)
    return {
        "characters": float(len(text)),
        "words": float(len(words)),
        "lines": float(text.count("\n")),
        "punctuation marks": float(sum(not c.isalnum() and not c.isspace() for c in text)),
        "question marks": float(text.count("?")),
        "digits": float(sum(c.isdigit() for c in text)),
        "share of capitals": sum(c.isupper() for c in text) / max(letters, 1),
        "negations": float(sum(word.lower() in _NEGATIONS for word in words)),
    }


_NEGATIONS = frozenset(("no", "not", "never", "none", "nothing", "nobody", "neither", "nor", "cannot", "without", "t"))
"""``t`` is what is left of don't or isn't when words are split at the apostrophe."""


def _overlap(left: str, right: str) -> float:
    """Share of the words of the right text that the left one has."""
    known = {word.lower() for word in _WORD.findall(left)}
    words = [word.lower() for word in _WORD.findall(right)]
    return sum(word in known for word in words) / max(len(words), 1)


def _column_features(name: str, values: Sequence[str | None]) -> dict[str, Feature]:
    """A column of numbers is one feature, another column one for each of its values."""
    try:
        return {name: np.asarray([float(value or "") for value in values])}
    except ValueError:
        kinds = dict.fromkeys("" if value is None else value for value in values)
        return {f"{name} = {kind}": np.asarray([float((value or "") == kind) for value in values]) for kind in kinds}


def _exchanged(
    labels: NDArray[np.int64], groups: Sequence[str], *, rng: np.random.Generator, times: int
) -> NDArray[np.int64]:
    """Labels dealt anew, shape (times, examples): groups of equal size exchange theirs, in order."""
    members: dict[str, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    by_size: dict[int, list[list[int]]] = {}
    for positions in members.values():
        by_size.setdefault(len(positions), []).append(positions)
    dealt = np.tile(labels, (times, 1))
    for alike in map(np.asarray, by_size.values()):
        for row in dealt:
            row[alike] = labels[alike[rng.permutation(len(alike))]]
    return dealt


def _distances(values: Feature, has_label: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Kolmogorov-Smirnov distance between the values with and without the label, for each row of labels."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    hits = has_label[:, order]
    with_label = np.cumsum(hits, axis=1) / hits.sum(axis=1, keepdims=True)
    without = np.cumsum(~hits, axis=1) / (~hits).sum(axis=1, keepdims=True)
    return np.asarray(np.abs(with_label - without)[:, last].max(axis=1))
