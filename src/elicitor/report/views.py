"""What a report shows, as plain data: one class for each kind of folder. Nothing here knows HTML or files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from elicitor.ablation import Ablation
from elicitor.audit import Audit
from elicitor.evaluation import Evaluation
from elicitor.metrics import Estimate
from elicitor.report.trace import Change, Trace
from elicitor.train.compare import TrainComparison

Kind = Literal["sft", "reward", "rl", "iterate"]
Result = Evaluation | TrainComparison
"""A table of conditions: labels in context, or labels trained on."""


@dataclass(frozen=True, slots=True)
class NamedResult:
    """A table of conditions and what it is called.

    Attributes:
        name: Heading.
        result: The table.
    """

    name: str
    result: Result

    @property
    def tuned(self) -> bool:
        """Whether its conditions are models trained on labels, rather than labels in context."""
        return isinstance(self.result, TrainComparison)


@dataclass(frozen=True, slots=True)
class ExampleView:
    """One example of a run.

    Attributes:
        id: Its id.
        label: The label it holds, None if none yet.
        log_odds: Log-odds of that label given all others, in nats; None before the run has finished.
        confidence: Its probability likewise.
        group: Its group.
        batch: Number of the batch that it was searched in, from 0; 0 before the run has finished.
        filled: Whether the label was given at the end.
        gold: Its gold label, where gold was given to the report.
        texts: Text by field, in the order of the run's ``fields``; empty where the data could not be read.
        changes: What the search did with it.
    """

    id: str
    label: str | None
    log_odds: float | None
    confidence: float | None
    group: str
    batch: int
    filled: bool
    gold: str | None
    texts: tuple[str, ...]
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Bin:
    """Examples whose figure lies in an interval.

    Attributes:
        lower: Its lower end.
        upper: Its upper end.
        count: Examples in it.
        label: Label that they hold, where labels are counted apart.
        mean: Mean figure of them, where it is wanted.
        accuracy: Share of them that agree with gold.
    """

    lower: float
    upper: float
    count: int
    label: str | None = None
    mean: float | None = None
    accuracy: Estimate | None = None


@dataclass(frozen=True, slots=True)
class RunView:
    """One search.

    Attributes:
        name: Short name, unique in the report.
        folder: Path as it was given.
        finished: Whether it has ended.
        task: Name of the task.
        template: Its template, with ``{fields}``.
        fields: Fields of the template.
        labels: Names of the labels.
        verbalizers: Texts that stand for them.
        preamble: Text before every prompt.
        separator: Text after each demonstration's label.
        model: Name of the model.
        settings: Search, seed, calibration and other facts, in the order in which they are shown.
        n: Examples of the run; those labelled so far while it is in work.
        counts: Examples by label.
        filled: Labels that were given at the end rather than found.
        batch_sizes: Examples of each batch; empty before the run has finished.
        utility: U(D) at the end, mean over batches.
        inconsistency: I(D) at the end, all batches together.
        cost: Content of ``cost`` in ``metrics.json``, or tokens and seconds so far.
        proposals: Proposals made, judged and accepted.
        trace: Its way.
        margins: Examples by log-odds and label.
        contradicted: Share of labels whose log-odds are below 0.
        reliability: Examples by confidence beside how often they agree with gold; empty without gold.
        label_accuracy: Agreement with gold, from gold given to the report or else from an evaluation.
        curves: Label accuracy over iterations, one of each run, from an evaluation where no gold was given.
        examples: Examples, the first ones where there are too many for a page.
        results: Its evaluations.
        audit: Its audit.
        notes: What a reader must know.
    """

    name: str
    folder: str
    finished: bool
    task: str
    template: str
    fields: tuple[str, ...]
    labels: tuple[str, ...]
    verbalizers: tuple[str, ...]
    preamble: str
    separator: str
    model: str
    settings: Mapping[str, Any]
    n: int
    counts: Mapping[str, int]
    filled: int
    batch_sizes: list[int]
    utility: float | None
    inconsistency: int | None
    cost: Mapping[str, float]
    proposals: Mapping[str, int]
    trace: Trace
    margins: list[Bin]
    contradicted: Estimate | None
    reliability: list[Bin]
    label_accuracy: Estimate | None
    curves: list[list[tuple[int, int, float]]]
    examples: list[ExampleView]
    results: list[NamedResult]
    audit: Audit | None
    notes: list[str]

    @property
    def seed(self) -> int:
        """Seed of the search."""
        return int(self.settings["seed"])


@dataclass(frozen=True, slots=True)
class TrainingView:
    """One training.

    Attributes:
        name: Short name, unique in the report.
        folder: Path as it was given.
        finished: Whether it has ended.
        kind: ``sft``, ``reward``, ``rl`` or ``iterate``.
        facts: What it was made from and what it gave, in the order in which they are shown.
        losses: (step, loss).
        curve: Points of a reinforcement learning: step, reward, kl and others.
        gain: Reward of the policy less that of its start, of a reinforcement learning that has ended.
    """

    name: str
    folder: str
    finished: bool
    kind: Kind
    facts: Mapping[str, Any]
    losses: list[tuple[int, float]]
    curve: list[dict[str, float]]
    gain: Estimate | None


@dataclass(frozen=True, slots=True)
class AblationView:
    """One ablation: its name and its table."""

    name: str
    ablation: Ablation


@dataclass(frozen=True, slots=True)
class Views:
    """Everything that one report shows.

    Attributes:
        names: Short name of each folder, in the order given.
        runs: Searches.
        results: Tables of suites and of compared trainings; those of runs are in `RunView.results`.
        ablations: Ablations.
        trainings: Trainings.
        notes: What a reader must know.
    """

    names: list[str]
    runs: list[RunView] = field(default_factory=list)
    results: list[NamedResult] = field(default_factory=list)
    ablations: list[AblationView] = field(default_factory=list)
    trainings: list[TrainingView] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def all_results(self) -> Iterator[NamedResult]:
        """Every table of conditions, those of runs first."""
        for run in self.runs:
            yield from run.results
        yield from self.results

    def summary(self) -> dict[str, Any]:
        """Everything but single examples and curves, as JSON values."""
        left_out = ("trace", "examples", "margins", "reliability", "curves")
        runs = []
        for run in self.runs:
            values = {name: getattr(run, name) for name in RunView.__slots__ if name not in left_out}
            values["settings"], values["cost"] = dict(run.settings), dict(run.cost)
            values["results"] = {named.name: asdict(named.result) for named in run.results}
            values["audit"] = run.audit and asdict(run.audit)
            for name in ("label_accuracy", "contradicted"):
                values[name] = values[name] and asdict(values[name])
            runs.append(values)
        return {
            "runs": runs,
            "results": {named.name: asdict(named.result) for named in self.results},
            "ablations": {view.name: view.ablation.to_json() for view in self.ablations},
            "trainings": [asdict(training) for training in self.trainings],
            "notes": self.notes,
        }
