"""The way of a search, from its events: curves over iterations, and the history of single examples.

Iterations are put into at most `BINS` intervals and batches are taken together, so that a curve costs the same however long
a search was. A batch that has ended keeps its last state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elicitor.search.events import replay

BINS = 150
HISTORY = 40
"""Changes of one example that are kept, the last ones."""

Events = Callable[[], Iterable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class TracePoint:
    """A search at the end of some iterations, all batches together.

    Attributes:
        iteration: The last one.
        utility: U(D), mean over batches.
        utility_lowest: The lowest of any batch.
        utility_highest: The highest of any batch.
        labelled: Labelled examples.
        shares: Share of each label among them.
        accuracy: Share of labels that agree with gold, of the labelled examples that have gold; None without.
        temperature: Mean temperature of the proposals since the point before; None without any.
        judged: Proposals since then that would change a label.
        accepted: Those of them that did.
    """

    iteration: int
    utility: float
    utility_lowest: float
    utility_highest: float
    labelled: int
    shares: dict[str, float]
    accuracy: float | None
    temperature: float | None
    judged: int
    accepted: int


@dataclass(frozen=True, slots=True)
class Change:
    """What an event meant to one example.

    Attributes:
        iteration: Iteration of its batch.
        kind: Kind of the event; ``repaired`` where another example was proposed.
        before: Label it had.
        proposed: Label it was to get.
        accepted: Whether it got it.
        utility: U(D) that was judged, if it was.
        temperature: Temperature of the acceptance, if there was one.
    """

    iteration: int
    kind: str
    before: str | None
    proposed: str | None
    accepted: bool
    utility: float | None
    temperature: float | None


@dataclass(frozen=True, slots=True)
class Trace:
    """What the events of a run say.

    Attributes:
        points: The curves.
        batches: Number of batches that have begun.
        held: Label by example id at the end.
        changes: What happened to each example that was asked for, by id.
        warnings: Warnings of the search.
    """

    points: list[TracePoint]
    batches: int
    held: dict[str, str]
    changes: dict[str, list[Change]]
    warnings: list[str]


@dataclass(slots=True)
class _Batch:
    """Where a batch stands, and where it stood at the end of each bin."""

    labels: Sequence[str]
    counts: Counter[str] = field(default_factory=Counter)
    known: int = 0
    right: int = 0
    utility: float = 0.0
    rows: list[tuple[float, ...]] = field(default_factory=list)

    def move(self, label: str | None, *, truth: str | None, step: int) -> None:
        """Count a label in (1) or out (-1)."""
        if label is not None:
            self.counts[label] += step
            if truth is not None:
                self.known += step
                self.right += step * (label == truth)

    def keep(self, bin: int) -> None:
        """Note the state as that of a bin."""
        row = (self.utility, self.known, self.right, *(self.counts[label] for label in self.labels))
        self.fill(bin)
        if len(self.rows) == bin:
            self.rows.append(row)
        else:
            self.rows[bin] = row

    def fill(self, until: int) -> None:
        """Repeat the last state up to a bin."""
        while len(self.rows) < until:
            self.rows.append(self.rows[-1] if self.rows else (self.utility, 0, 0, *(0 for _ in self.labels)))


def read_trace(
    events: Events, labels: Sequence[str], *, truth: Mapping[str, str] | None = None, wanted: Collection[str] = ()
) -> Trace:
    """Read the events of a run.

    Args:
        events: Gives them from the first on, each time it is called; it is called twice.
        labels: Names of the labels.
        truth: Gold label by example id, for the curve of accuracy.
        wanted: Ids of the examples whose history is kept.

    Returns:
        Curves and histories.
    """
    last = 0
    warnings = []
    for event in events():
        last = max(last, event["iteration"])
        if event["kind"] == "warned":
            warnings.append(event["message"])
    n_bins = min(BINS, last + 1)
    truth = truth or {}
    batches: dict[int, _Batch] = {}
    before: dict[str, str] = {}
    changes: dict[str, list[Change]] = {}
    heat: list[list[float]] = [[] for _ in range(n_bins)]
    judged, accepted = [0] * n_bins, [0] * n_bins
    for event, held in replay(events()):
        bin = event["iteration"] * n_bins // (last + 1)
        batch = batches.setdefault(event["batch"], _Batch(labels))
        for example, change in _changes(event, before):
            if example in wanted:
                changes.setdefault(example, []).append(change)
        for example in event["labels"]:
            batch.move(before.get(example), truth=truth.get(example), step=-1)
            batch.move(held.get(example), truth=truth.get(example), step=1)
            if example in held:
                before[example] = held[example]
            else:
                before.pop(example, None)
        batch.utility = event["utility"]
        batch.keep(bin)
        if event["kind"] == "proposed":
            heat[bin].append(event["temperature"])
            if event["utility_proposed"] is not None:
                judged[bin] += 1
                accepted[bin] += event["accepted"]
    for batch in batches.values():
        batch.fill(n_bins)
    states = np.asarray([batch.rows for batch in batches.values()])
    points = []
    for bin in range(n_bins if batches else 0):
        utilities = states[:, bin, 0]
        known, right, *counts = states[:, bin, 1:].sum(axis=0).tolist()
        labelled = int(sum(counts))
        points.append(
            TracePoint(
                iteration=((bin + 1) * (last + 1) - 1) // n_bins,
                utility=float(utilities.mean()),
                utility_lowest=float(utilities.min()),
                utility_highest=float(utilities.max()),
                labelled=labelled,
                shares={name: count / labelled for name, count in zip(labels, counts, strict=True)} if labelled else {},
                accuracy=right / known if known else None,
                temperature=float(np.mean(heat[bin])) if heat[bin] else None,
                judged=judged[bin],
                accepted=accepted[bin],
            )
        )
    kept = {example: history[-HISTORY:] for example, history in changes.items()}
    return Trace(points, len(batches), before, kept, warnings)


def _changes(event: Mapping[str, Any], before: Mapping[str, str]) -> Iterable[tuple[str, Change]]:
    """What an event meant to each example that it names."""
    proposal = event["kind"] == "proposed"
    named = dict(event["labels"])
    if proposal:
        named.setdefault(event["example"], event["label_proposed"])
    for example, proposed in named.items():
        first = not proposal or example == event["example"]
        yield (
            example,
            Change(
                iteration=event["iteration"],
                kind=event["kind"] if first else "repaired",
                before=before.get(example),
                proposed=proposed,
                accepted=event["accepted"],
                utility=event["utility_proposed"] if proposal else event["utility"],
                temperature=event.get("temperature"),
            ),
        )
