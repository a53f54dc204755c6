"""The examples of a run as columns, as small as they go: a page holds tens of thousands of them."""

from __future__ import annotations

import string
from typing import Any

from elicitor.report.views import RunView
from elicitor.visible import all_visible, visible

KINDS = ("started", "proposed", "repaired", "relabelled", "resampled", "voted", "evaluated", "filled")
"""What can happen to an example; histories name them by number."""


def example_data(run: RunView) -> dict[str, Any]:
    """Columns for the table of examples.

    Args:
        run: The run.

    Returns:
        JSON values. ``ids`` are as they are in the data, because marks are sent back by them; ``names`` are what is
        shown, where that differs. Labels, gold and groups are numbers into their lists; a history row is (iteration,
        kind, before, proposed, accepted, utility, temperature), a label of -1 none.
    """
    numbers = {label: k for k, label in enumerate(run.labels)}
    groups: dict[str, int] = {}
    ids = [example.id for example in run.examples]
    names = [visible(name) for name in ids]
    return {
        "name": visible(run.name),
        "labels": all_visible(run.labels),
        "verbalizers": all_visible(run.verbalizers),
        "preamble": visible(run.preamble),
        "separator": visible(run.separator),
        "fields": all_visible(run.fields),
        "template": [[visible(text), name] for text, name, _, _ in string.Formatter().parse(run.template)],
        "kinds": KINDS,
        "ids": ids,
        "names": None if names == ids else names,
        "label": [_number(numbers, example.label) for example in run.examples],
        "odds": [_rounded(example.log_odds) for example in run.examples],
        "confidence": [_rounded(example.confidence) for example in run.examples],
        "gold": None
        if all(example.gold is None for example in run.examples)
        else [_number(numbers, example.gold) for example in run.examples],
        "group": [groups.setdefault(example.group, len(groups)) for example in run.examples],
        "batch": [example.batch for example in run.examples] if run.finished else None,
        "sizes": run.batch_sizes,
        "groups": [visible(group) for group in groups],
        "filled": [k for k, example in enumerate(run.examples) if example.filled],
        "texts": [all_visible(example.texts) for example in run.examples],
        "history": [
            [
                [
                    change.iteration,
                    KINDS.index(change.kind),
                    _number(numbers, change.before),
                    _number(numbers, change.proposed),
                    int(change.accepted),
                    _rounded(change.utility),
                    _rounded(change.temperature),
                ]
                for change in example.changes
            ]
            for example in run.examples
        ],
    }


def _number(numbers: dict[str, int], label: str | None) -> int:
    return -1 if label is None else numbers[label]


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
