"""What each condition of the comparison puts before a test query: the same examples in the same order, other labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from elicitor.errors import ConfigError

Condition = Literal["zero_shot", "random", "found", "noised_gold", "golden"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
DEFAULT_CONDITIONS: tuple[Condition, ...] = ("zero_shot", "random", "found", "golden")
NEEDS_GOLD: frozenset[Condition] = frozenset(("noised_gold", "golden"))
"""Conditions that put gold labels of the labelled examples before the query."""


def check_conditions(names: Sequence[str]) -> tuple[Condition, ...]:
    """Conditions by name, in the order of the table.

    Raises:
        ConfigError: If a name is unknown or none is given.
    """
    unknown = [name for name in names if name not in CONDITIONS]
    if unknown or not names:
        got = repr(unknown[0]) if unknown else "none"
        raise ConfigError(f"unknown condition {got}", fix=f"choose from {', '.join(CONDITIONS)}")
    return tuple(name for name in CONDITIONS if name in names)


def demonstration_labels(
    condition: Condition,
    *,
    found: Mapping[int, int],
    golden: Mapping[int, int],
    n_labels: int,
    rng: np.random.Generator,
) -> dict[int, int]:
    """Labels of the demonstrations under one condition.

    Args:
        condition: ``zero_shot`` has no demonstrations; ``random`` deals every label equally often by lot; ``found`` are
            the labels of the run; ``golden`` the true ones; ``noised_gold`` the true ones with as many of them wrong, drawn
            by lot, as found labels are (Wen et al. 2025, figure 8).
        found: Found label of each position that may serve as a demonstration.
        golden: Gold label of each of these positions that has one.
        n_labels: Size of the label set.
        rng: Deals the random labels and the noise.

    Returns:
        Label by position.
    """
    match condition:
        case "zero_shot":
            return {}
        case "random":
            dealt = rng.permutation(np.arange(len(found)) % n_labels)
            return {position: int(label) for position, label in zip(found, dealt, strict=True)}
        case "found":
            return dict(found)
        case "golden":
            return dict(golden)
        case "noised_gold":
            noised = dict(golden)
            wrong = sum(found[position] != label for position, label in golden.items())
            for position in rng.permutation(np.asarray(list(golden), dtype=np.int64))[:wrong].tolist():
                noised[position] = int((golden[position] + rng.integers(1, n_labels)) % n_labels)
            return noised
