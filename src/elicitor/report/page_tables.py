"""Tables and key numbers of a page, as headings and cells of text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elicitor.console import duration
from elicitor.metrics import Estimate
from elicitor.report.series import result_facts
from elicitor.report.views import AblationView, Result, RunView, TrainingView, Views
from elicitor.tables import judged


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        text: What it says.
        interval: ``0.74 to 0.88``, or empty.
    """

    text: str
    interval: str = ""


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table.

    Attributes:
        headings: The first is that of the rows.
        rows: Cells of each row; the first is its name.
        caption: What it is about.
        notes: What a reader must know.
    """

    headings: tuple[str, ...]
    rows: list[list[Cell]]
    caption: str
    notes: list[str]


def estimate_cell(estimate: Estimate | None) -> Cell:
    """A figure above its interval."""
    if estimate is None:
        return Cell("")
    if estimate.value is None:
        return Cell("undefined")
    if estimate.lower is None and estimate.upper is None:
        return Cell(f"{estimate.value:.3f}", "no interval")
    ends = ("unbounded" if end is None else f"{end:.3f}" for end in (estimate.lower, estimate.upper))
    return Cell(f"{estimate.value:.3f}", " to ".join(ends))


def result_table(result: Result) -> PageTable:
    """Conditions with accuracy, gap recovered, differences and cost."""
    headings = (
        "condition",
        "shots",
        "label acc.",
        "accuracy",
        "gap recovered",
        "found less this",
        "p",
        "AUROC",
        "ECE",
        "tokens",
        "time",
    )
    rows = []
    for row in result.rows:
        gain = row.found_less_this
        rows.append(
            [
                Cell(row.condition),
                Cell(f"{row.demonstrations:,}"),
                Cell("" if row.label_accuracy is None else f"{row.label_accuracy:.3f}"),
                estimate_cell(judged(result, row.condition)),
                estimate_cell(row.gap_recovered),
                estimate_cell(None if gain is None else gain.estimate),
                Cell("" if gain is None or gain.p_value is None else f"{gain.p_value:.3f}"),
                estimate_cell(row.auroc),
                estimate_cell(row.calibration_error),
                Cell(f"{row.cost.tokens_computed:,}"),
                Cell(duration(row.cost.seconds)),
            ]
        )
    caption = f"{result.task}, {result.model}: {result_facts(result)}; 95% intervals"
    return PageTable(headings, rows, caption, list(result.notes))


def ablation_table(view: AblationView) -> PageTable:
    """Variants with label accuracy and what they ended in."""
    headings = ("variant", "label acc.", "less base", "p", "U", "I", "largest share", "tokens")
    rows = [
        [
            Cell(row.variant.name),
            estimate_cell(row.label_accuracy),
            estimate_cell(None if row.less_base is None else row.less_base.estimate),
            Cell("" if row.less_base is None or row.less_base.p_value is None else f"{row.less_base.p_value:.3f}"),
            Cell(f"{row.utility:.2f}"),
            Cell(f"{row.inconsistency:.1f}"),
            Cell(f"{row.largest_share:.2f}"),
            Cell(f"{row.cost.tokens_computed:,}"),
        ]
        for row in view.ablation.results
    ]
    first = view.ablation.results[0].label_accuracy
    seeds = ", ".join(map(str, view.ablation.seeds))
    return PageTable(headings, rows, f"n = {first.n} in {first.groups} groups; seeds {seeds}; 95% intervals", [])


def run_rows(runs: Sequence[RunView]) -> PageTable | None:
    """Several runs beside each other; None for one, whose figures stand in tiles."""
    if len(runs) < 2:
        return None
    headings = (
        "run",
        "task",
        "model",
        "search",
        "seed",
        "n",
        "label acc.",
        "U",
        "I",
        "largest share",
        "audit",
        "tokens",
    )
    rows = [
        [
            Cell(run.name),
            Cell(run.task),
            Cell(run.model),
            Cell(str(run.settings["search"])),
            Cell(str(run.seed)),
            Cell(f"{run.n:,}"),
            estimate_cell(run.label_accuracy),
            Cell("" if run.utility is None else f"{run.utility:.2f}"),
            Cell("" if run.inconsistency is None else f"{run.inconsistency:,}"),
            Cell(f"{max(run.counts.values()) / run.n:.2f}" if run.n else ""),
            Cell("not done" if run.audit is None else run.audit.verdict),
            Cell(f"{run.cost.get('tokens_computed', 0):,}"),
        ]
        for run in runs
    ]
    return PageTable(headings, rows, "label accuracy with 95% intervals over groups, where gold is known", [])


def training_rows(trainings: Sequence[TrainingView]) -> list[tuple[TrainingView, list[tuple[str, str]]]]:
    """Facts of each training."""
    return [
        (training, [(name.replace("_", " "), _fact(value)) for name, value in training.facts.items()])
        for training in trainings
    ]


def cost_rows(views: Views) -> PageTable | None:
    """What searches, audits and evaluations cost."""
    rows: list[list[Cell]] = []
    for run in views.runs:
        computed = int(run.cost.get("tokens_computed", 0))
        in_order = run.cost.get("in_order_tokens_same_events")
        saved = f"{in_order / computed:.1f} times" if in_order and computed else ""
        rows.append(_cost(f"search {run.name}", run.cost, Cell(saved)))
        if run.audit:
            rows.append(_cost(f"audit of {run.name}", _as_mapping(run.audit.cost), Cell("")))
    for named in views.all_results():
        parts = [_as_mapping(row.cost) for row in named.result.rows]
        total = {key: sum(part[key] for part in parts) for key in parts[0]}
        rows.append(_cost(f"{'trainings' if named.tuned else 'evaluation'} {named.name}", total, Cell("")))
    headings = ("what", "prompt tokens computed", "reused", "time", "released order would take")
    return PageTable(headings, rows, "exact counts of one execution", []) if rows else None


def _as_mapping(cost: Any) -> dict[str, float]:
    return {key: getattr(cost, key) for key in ("tokens_computed", "tokens_reused", "seconds")}


def _cost(name: str, cost: Mapping[str, float], last: Cell) -> list[Cell]:
    computed, reused = (int(cost.get(key, 0)) for key in ("tokens_computed", "tokens_reused"))
    return [Cell(name), Cell(f"{computed:,}"), Cell(f"{reused:,}"), Cell(duration(cost.get("seconds", 0.0))), last]


def _fact(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    # A hash says no more in full.
    return f"{value[:12]}…" if re.fullmatch("[0-9a-f]{64}", str(value)) else str(value)


def tiles(views: Views) -> list[dict[str, str]]:
    """Key numbers of a single run: name, figure, what stands beside it, and whether it is good or bad news."""
    if len(views.runs) != 1 or views.results or views.ablations:
        return []
    run = views.runs[0]
    made = []
    agreed = run.label_accuracy
    if agreed is not None and agreed.value is not None:
        groups = f"n = {agreed.n:,} in {agreed.groups:,} groups, {agreed.seeds} search" + "es" * (agreed.seeds > 1)
        made.append(_tile("label accuracy", f"{agreed.value:.1%}", f"95% interval {_percent(agreed)}; {groups}"))
    else:
        made.append(_tile("label accuracy", "unknown", "no gold was given: --gold FILE"))
    shares = ", ".join(f"{name} {count:,}" for name, count in run.counts.items())
    made.append(_tile("labels", f"{run.n:,}", shares + (f"; {run.filled:,} filled at the end" if run.filled else "")))
    if run.utility is not None:
        made.append(_tile("utility U(D)", f"{run.utility:.2f}", f"{run.inconsistency} violated constraints"))
    if run.audit is not None:
        looked = [check for check in run.audit.checks if check.verdict != "not done"]
        fine = sum(check.verdict == "ok" for check in looked)
        made.append(_tile("audit", run.audit.verdict, f"{fine} of {len(looked)} checks ok", mood=run.audit.verdict))
    else:
        made.append(_tile("audit", "not done", "elicitor audit RUN"))
    computed, seconds = int(run.cost.get("tokens_computed", 0)), run.cost.get("seconds", 0.0)
    made.append(_tile("cost", duration(seconds), f"{computed:,} prompt tokens computed"))
    return made


def _percent(estimate: Estimate) -> str:
    if estimate.lower is None or estimate.upper is None:
        return "unknown"
    return f"{estimate.lower:.1%} to {estimate.upper:.1%}"


def _tile(name: str, value: str, detail: str, *, mood: str = "") -> dict[str, str]:
    return {"name": name, "value": value, "detail": detail, "mood": mood}
