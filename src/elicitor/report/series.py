"""The numbers of each figure as rows of plain values; `charts` draws them on a page, `elicitor.plot` on paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from elicitor.metrics import Estimate
from elicitor.report.views import AblationView, NamedResult, Result, RunView, Views
from elicitor.tables import judged
from elicitor.wilson import wilson

Rows = list[dict[str, Any]]
WINDOWS = 25
"""Parts of a search over which acceptance is averaged."""


def condition_rows(result: Result) -> Rows:
    """Accuracy of each condition under the calibration of the run, where it is defined."""
    rows = []
    for row in result.rows:
        estimate = judged(result, row.condition)
        if estimate is not None and estimate.value is not None:
            rows.append({"condition": row.condition} | estimate_values(estimate))
    return rows


def result_facts(result: Result) -> str:
    """Size, seeds and calibration of a table."""
    first = result.rows[0].raw
    seeds = ", ".join(map(str, result.seeds))
    return f"n = {first.n:,} in {first.groups:,} groups; seeds {seeds}; calibration {result.calibration}"


def estimate_values(estimate: Estimate) -> dict[str, Any]:
    """An estimate's figures for a chart; without an interval its ends are missing, not equal to the value."""
    ends = [estimate.value, estimate.upper]
    return {
        "value": estimate.value,
        "lower": estimate.lower,
        "upper": estimate.upper,
        "text_at": max(end for end in ends if end is not None) if estimate.value is not None else None,
        "shown": None if estimate.value is None else f"{estimate.value:.2f}",
        "accuracy": str(estimate),
        "n": estimate.n,
        "groups": estimate.groups,
        "seeds": estimate.seeds,
    }


def scaling_tasks(views: Views) -> list[tuple[str, list[NamedResult]]]:
    """Tables of one task under more than one model, by task, in the order in which they were given."""
    by_task: dict[str, list[NamedResult]] = {}
    for named in views.all_results():
        if not named.tuned:
            by_task.setdefault(named.result.task, []).append(named)
    return [(task, some) for task, some in by_task.items() if len({named.result.model for named in some}) > 1]


def ablation_rows(view: AblationView) -> Rows:
    """Label accuracy of each variant, the base first."""
    return [
        {
            "variant": row.variant.name,
            "factor": row.variant.factor,
            "less base": "" if row.less_base is None else str(row.less_base.estimate),
        }
        | estimate_values(row.label_accuracy)
        for row in view.ablation.results
    ]


def utility_points(runs: Sequence[RunView]) -> Rows:
    """U(D) over iterations, with the lowest and the highest batch."""
    return [
        {
            "iteration": point.iteration,
            "value": _round(point.utility),
            "lower": _round(point.utility_lowest),
            "upper": _round(point.utility_highest),
            "series": run.name,
        }
        for run in runs
        for point in run.trace.points
    ]


def accuracy_points(runs: Sequence[RunView]) -> Rows:
    """Label accuracy over iterations, from gold given to the report, or from an evaluation of the run."""
    rows: Rows = []
    for run in runs:
        rows += [
            {"iteration": point.iteration, "value": _round(point.accuracy), "series": run.name}
            for point in run.trace.points
            if point.accuracy is not None
        ]
        for k, curve in enumerate(run.curves):
            name = run.name if len(run.curves) == 1 else f"{run.name}, search {k + 1}"
            rows += [{"iteration": i, "value": _round(share), "series": name} for i, _, share in _thinned(curve)]
    return rows


def share_points(runs: Sequence[RunView]) -> Rows:
    """Share of each label of a single run, or the largest share of each of several."""
    if len(runs) == 1:
        return [
            {"iteration": point.iteration, "value": _round(share), "series": label}
            for point in runs[0].trace.points
            for label, share in point.shares.items()
        ]
    return [
        {"iteration": point.iteration, "value": _round(max(point.shares.values())), "series": run.name}
        for run in runs
        for point in run.trace.points
        if point.shares
    ]


def acceptance(runs: Sequence[RunView]) -> Rows:
    """Share of the judged proposals that were accepted in each part of a search, with Wilson's interval."""
    rows: Rows = []
    for run in runs:
        points = run.trace.points
        size = max(1, -(-len(points) // WINDOWS))
        for window in (points[start : start + size] for start in range(0, len(points), size)):
            judged_here, accepted = (sum(getattr(point, key) for point in window) for key in ("judged", "accepted"))
            if judged_here:
                lower, upper = wilson(accepted / judged_here, n=judged_here)
                rows.append(
                    {
                        "iteration": window[-1].iteration,
                        "value": _round(accepted / judged_here),
                        "lower": _round(lower),
                        "upper": _round(upper),
                        "series": run.name,
                    }
                )
    return rows


def temperature_points(runs: Sequence[RunView]) -> Rows:
    """Temperature over iterations, of searches that have one."""
    return [
        {"iteration": point.iteration, "value": _round(point.temperature), "series": run.name}
        for run in runs
        for point in run.trace.points
        if point.temperature is not None
    ]


def margin_rows(run: RunView) -> Rows:
    """Examples by log-odds and label."""
    return [
        {"lower": b.lower, "upper": b.upper, "from": b.lower, "to": b.upper, "count": b.count, "label": b.label}
        for b in run.margins
    ]


def reliability_rows(run: RunView) -> Rows:
    """How often labels agree with gold, by confidence."""
    return [
        {"mean": _round(b.mean), "confidence": f"{b.lower:.1f} to {b.upper:.1f}", "count": b.count}
        | estimate_values(b.accuracy)
        for b in run.reliability
        if b.accuracy is not None
    ]


def _thinned(curve: Sequence[tuple[int, int, float]], *, most: int = 300) -> Sequence[tuple[int, int, float]]:
    """At most so many points, spread evenly, the last one always among them."""
    step = max(1, -(-len(curve) // most))
    return [point for k, point in enumerate(curve) if (len(curve) - 1 - k) % step == 0]


def _round(value: float | None) -> float | None:
    """Five significant digits: more than a figure shows, and half the bytes."""
    return None if value is None else float(f"{value:.5g}")
