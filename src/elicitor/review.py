"""Review of found labels by a person: marks on disk, which examples to look at next, and how many labels are right.

`draw_sample` fixes an order of all examples by lot, `estimate` reads the share of right labels off the marks. Marks may be set
on any example, but only an unbroken beginning of the order counts: what a reader likes to look at, or passes over, must not
decide what the figure is.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from pydantic import TypeAdapter, ValidationError

from elicitor.errors import DataError
from elicitor.files import parse_json, read_json
from elicitor.follow import RunFollower
from elicitor.inputs import task_of
from elicitor.joining import read_labels
from elicitor.runs import METRICS, load_run_config
from elicitor.shapes import Metrics
from elicitor.wilson import wilson

REVIEW = "review.jsonl"
Verdict = Literal["right", "wrong"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
PROPOSED = 20
"""Examples that are proposed at a time."""
_STRATA = 4
_STRATUM = 10
"""Examples of a stratum, at least, where there are several."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a reader said of one label.

    Attributes:
        id: Example id.
        verdict: Whether the label is right.
        label: The label that was judged.
        time: When, in UTC.
    """

    id: str
    verdict: Verdict
    label: str
    time: str


_MARKS = TypeAdapter(Mark)


@dataclass(frozen=True, slots=True)
class Sample:
    """The order in which the examples of a finished run are to be looked at.

    Attributes:
        strata: Example ids of each stratum by lot, from the smallest margins to the largest.
    """

    strata: tuple[tuple[str, ...], ...]

    def order(self) -> list[str]:
        """All ids, one stratum after the other in turn."""
        longest = max(map(len, self.strata))
        return [stratum[k] for k in range(longest) for stratum in self.strata if k < len(stratum)]


@dataclass(frozen=True, slots=True)
class AccuracyEstimate:
    """Share of right labels among all labels of a run, estimated from marks.

    Attributes:
        value: Stratified estimate.
        lower: Lower end of the 95% interval.
        upper: Upper end.
        n: Marks that it rests on.
    """

    value: float
    lower: float
    upper: float
    n: int


@dataclass(frozen=True, slots=True)
class Review:
    """Where a review stands.

    Attributes:
        marks: The last mark of each example, in the order of their time.
        proposed: What to look at next; empty while the search runs, because its labels may still change.
        estimate: None until each stratum has a mark that counts.
        labels: Label by example id.
        waiting: Marks on the order drawn that do not count, because an example before them has none.
    """

    marks: tuple[Mark, ...]
    proposed: tuple[str, ...]
    estimate: AccuracyEstimate | None
    labels: Mapping[str, str]
    waiting: int

    def to_json(self) -> dict[str, Any]:
        """Marks, proposed ids and estimate as JSON values."""
        return {
            "marks": [asdict(mark) for mark in self.marks],
            "proposed": list(self.proposed),
            "estimate": self.estimate and asdict(self.estimate),
        }


def read_marks(folder: Path) -> dict[str, Mark]:
    """The last mark of each example, by id; a line that a kill has cut is passed over.

    Raises:
        DataError: If the file holds something else.
    """
    path = folder / REVIEW
    marks: dict[str, Mark] = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            values = parse_json(line, place=str(path))
        except ValueError:
            continue
        try:
            mark = _MARKS.validate_python(values)
        except ValidationError as error:
            raise DataError(f"{path} holds a line that is no mark", fix="take it out") from error
        marks.pop(mark.id, None)
        marks[mark.id] = mark
    return marks


def add_mark(folder: Path, mark: Mark) -> None:
    """Append a mark, which survives any kill from then on; several processes may do so."""
    with (folder / REVIEW).open("a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, end - 1))
        # A line that a kill has cut must not swallow this one.
        cut = b"\n" if end and stream.read(1) != b"\n" else b""
        stream.write(cut + json.dumps(asdict(mark), ensure_ascii=False).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def draw_sample(margins: Mapping[str, float], *, seed: int) -> Sample:
    """Deal the examples into strata of about equal size by their margin, and each stratum into an order by lot.

    Args:
        margins: Log-odds of the found label by example id.
        seed: Draws.
    """
    rng = np.random.default_rng([seed, len(margins)])
    shuffled = [list(margins)[i] for i in rng.permutation(len(margins))]
    ranked = sorted(range(len(shuffled)), key=lambda place: abs(margins[shuffled[place]]))
    count = max(1, min(_STRATA, len(shuffled) // _STRATUM))
    # Sorting the places again keeps the lot's order within each stratum.
    return Sample(
        tuple(tuple(shuffled[place] for place in sorted(part)) for part in np.array_split(np.asarray(ranked), count))
    )


def judge(mark: Mark, label: str, *, n_labels: int) -> bool | None:
    """Whether a mark says that an example's label now is right; None where it says nothing of this one."""
    if mark.label == label:
        return mark.verdict == "right"
    if mark.verdict == "right":
        return False
    return True if n_labels == 2 else None


def estimate(sizes: Sequence[int], marked: Sequence[int], right: Sequence[int]) -> AccuracyEstimate | None:
    """Share of right labels in a finite population, from simple random samples of its strata.

    The estimate is the sum over strata of W_h r_h / n_h with weights W_h = N_h / N. The interval is Wilson's score interval at
    the effective sample size (Korn and Graubard 1998; Dean and Pagano 2015): that of a simple random sample whose variance
    p (1 - p) / n is the stratified variance, sum of W_h^2 (N_h - n_h) / (N_h - 1) p_h (1 - p_h) / n_h. Small strata are
    shrunk for that variance: one mark of the pooled share is added to each. Since the share is a multiple of 1 / N, both ends
    move out by 1 / (2 N), and they never leave what the marks alone leave possible.

    Args:
        sizes: Examples of each stratum, N_h.
        marked: Marks of each that count, n_h.
        right: Right labels among them, r_h.

    Returns:
        The estimate; None where a stratum has no mark.
    """
    if not sizes or min(marked) == 0:
        return None
    total, n, good = sum(sizes), sum(marked), sum(right)
    value = sum(size * r / m for size, m, r in zip(sizes, marked, right, strict=True)) / total
    known = good / total, 1 - (n - good) / total
    if n == total:
        return AccuracyEstimate(value, *known, n)
    pooled = (good + 1) / (n + 2)
    share = variance = 0.0
    for size, m, r in zip(sizes, marked, right, strict=True):
        weight, shrunk = size / total, (r + pooled) / (m + 1)
        share += weight * shrunk
        variance += weight**2 * (size - m) / max(size - 1, 1) * shrunk * (1 - shrunk) / m
    effective = share * (1 - share) / variance
    lower, upper = wilson(value, n=effective)
    step = 1 / (2 * total)
    return AccuracyEstimate(value, max(lower - step, known[0]), min(upper + step, known[1]), n)


class Reviewer:
    """The review of one run, whose labels are read once when it has finished.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._follower = RunFollower(folder)
        self._labels: dict[str, str] = {}
        self._sample: Sample | None = None

    def review(self) -> Review:
        """Where the review stands.

        Raises:
            ElicitorError: If a file of the run cannot be used.
        """
        marks = read_marks(self._folder)
        self._read()
        if self._sample is None:
            return Review(tuple(marks.values()), (), None, self._labels, 0)
        n_labels = len(task_of(load_run_config(self._folder)).label_space)
        verdicts = {
            name: verdict
            for name, mark in marks.items()
            if name in self._labels and (verdict := judge(mark, self._labels[name], n_labels=n_labels)) is not None
        }
        counted = [_beginning(stratum, verdicts) for stratum in self._sample.strata]
        ahead = [name for name in self._sample.order() if name not in verdicts][:PROPOSED]
        return Review(
            marks=tuple(marks.values()),
            proposed=tuple(ahead),
            estimate=estimate(
                [len(stratum) for stratum in self._sample.strata], [len(part) for part in counted], [*map(sum, counted)]
            ),
            labels=self._labels,
            waiting=len(verdicts) - sum(map(len, counted)),
        )

    def mark(self, example_id: str, verdict: Verdict) -> Mark:
        """Mark the label that an example has now.

        Args:
            example_id: The example.
            verdict: Whether its label is right.

        Raises:
            DataError: If it has no label, or there is no such example.
        """
        self._read()
        if example_id not in self._labels:
            raise DataError(f"example {example_id!r} has no label in {self._folder}", fix="give an id of labels.jsonl")
        time = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        made = Mark(example_id, verdict, self._labels[example_id], time)
        add_mark(self._folder, made)
        return made

    def _read(self) -> None:
        """The labels: of a search that goes on, those held at the last event; of a finished run, once, those found."""
        if self._sample is not None:
            return
        # Written last.
        if (self._folder / METRICS).exists():
            rows = read_labels(self._folder, read_json(self._folder / METRICS, shape=Metrics))
            self._labels = {row["id"]: row["label"] for row in rows}
            margins = {row["id"]: row["log_odds"] for row in rows}
            self._sample = draw_sample(margins, seed=load_run_config(self._folder).seed)
        else:
            self._follower.look()
            self._labels = self._follower.held


def _beginning(stratum: Iterable[str], verdicts: Mapping[str, bool]) -> list[bool]:
    """Verdicts of a stratum up to the first example that has none."""
    found = []
    for name in stratum:
        if name not in verdicts:
            break
        found.append(verdicts[name])
    return found
