"""Evaluations as tables: cells for the terminal, Markdown, CSV and LaTeX.

Text tables round to three places; CSV keeps every figure with its interval, n, groups, seeds and spread over seeds in
columns of their own, for whoever wants to compute with them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from elicitor.evaluation import ConditionResult, Evaluation
from elicitor.metrics import Estimate

if TYPE_CHECKING:
    from elicitor.train.compare import TrainComparison

HEADINGS = (
    "condition",
    "shots",
    "label acc.",
    "raw",
    "calibrated",
    "gap recovered",
    "AUROC",
    "ECE",
    "found less this",
    "p",
    "tokens",
    "seconds",
)
ACCURACY_COLUMNS = (0, 1, 2, 3, 4, 5)
"""Columns of a first table where one would be too wide."""
OTHER_COLUMNS = (0, 6, 7, 8, 9, 10, 11)
"""Columns of the second."""


def row_cells(row: ConditionResult) -> list[str]:
    """Cells of one row as text, in the order of `HEADINGS`."""
    gain = row.found_less_this
    return [
        row.condition,
        str(row.demonstrations),
        "" if row.label_accuracy is None else f"{row.label_accuracy:.3f}",
        str(row.raw),
        str(row.calibrated),
        "" if row.gap_recovered is None else str(row.gap_recovered),
        "" if row.auroc is None else str(row.auroc),
        str(row.calibration_error),
        "" if gain is None else str(gain.estimate),
        "" if gain is None or gain.p_value is None else f"{gain.p_value:.3f}",
        f"{row.cost.tokens_computed:,}",
        f"{row.cost.seconds:.1f}",
    ]


def caption(result: Evaluation) -> str:
    """What a table is about, in one sentence of facts."""
    first = result.rows[0].raw
    words = [
        f"{result.task}, {result.model}: n = {first.n} in {first.groups} groups",
        f"seeds {', '.join(map(str, result.seeds))}",
        f"calibration of the run: {result.calibration}",
    ]
    if result.label_accuracy:
        agreed = result.label_accuracy.estimate
        words.append(f"found labels that agree with gold: {agreed} (n = {agreed.n}, {agreed.seeds} runs)")
    cost = result.search_cost
    words.append(f"search: {cost.tokens_computed:,} tokens, {cost.seconds:.0f} s")
    return "; ".join(words)


def evaluation_markdown(result: Evaluation) -> str:
    """One evaluation as a Markdown table with its caption and notes."""
    lines = [caption(result), "", _pipes(HEADINGS), "| --- |" + " ---: |" * (len(HEADINGS) - 1)]
    lines += [_pipes(row_cells(row)) for row in result.rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in result.notes)]).rstrip("\n") + "\n"


def to_csv(results: Sequence[Evaluation], names: Sequence[str]) -> str:
    """All rows of all evaluations, one line each, every figure in columns of its own."""
    stream = io.StringIO()
    rows = [_flat(name, result, row) for name, result in zip(names, results, strict=True) for row in result.rows]
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def to_latex(results: Sequence[Evaluation], names: Sequence[str]) -> str:
    """One table: conditions by rows, tasks by columns, accuracy under the calibration of the run (needs booktabs)."""
    conditions = list(dict.fromkeys(row.condition for result in results for row in result.rows))
    heads = " & ".join(map(_escaped, names))
    lines = [
        r"\begin{tabular}{l" + "c" * len(results) + "}",
        r"\toprule",
        rf"condition & {heads} \\",
        r"\midrule",
    ]
    for condition in conditions:
        cells = [_latex_estimate(judged(result, condition)) for result in results]
        lines.append(rf"{_escaped(condition)} & {' & '.join(cells)} \\")
    counts = " & ".join(str(result.rows[0].raw.n) for result in results)
    return "\n".join([*lines, r"\midrule", rf"$n$ & {counts} \\", r"\bottomrule", r"\end{tabular}"]) + "\n"


def overview_rows(results: Sequence[Evaluation]) -> list[list[str]]:
    """One row a condition, one cell a task: accuracy under the calibration of the run; empty where it was left out."""
    conditions = list(dict.fromkeys(row.condition for result in results for row in result.rows))
    found = [[judged(result, condition) for result in results] for condition in conditions]
    return [
        [condition, *("" if estimate is None else str(estimate) for estimate in estimates)]
        for condition, estimates in zip(conditions, found, strict=True)
    ]


def overview_markdown(results: Sequence[Evaluation], names: Sequence[str]) -> str:
    """`overview_rows` as a Markdown table."""
    lines = [_pipes(["condition", *names]), "| --- |" + " ---: |" * len(results)]
    return "\n".join([*lines, *(_pipes(cells) for cells in overview_rows(results))]) + "\n"


def judged(result: Evaluation | TrainComparison, condition: str) -> Estimate | None:
    """Accuracy of a condition under the calibration of the run; None if it was left out."""
    for row in result.rows:
        if row.condition == condition:
            return row.calibrated if result.calibration == "batch" else row.raw
    return None


def _flat(name: str, result: Evaluation, row: ConditionResult) -> dict[str, Any]:
    flat: dict[str, Any] = {
        "name": name,
        "task": result.task,
        "model": result.model,
        "calibration": result.calibration,
        "condition": row.condition,
        "shots": row.demonstrations,
        "label_accuracy": row.label_accuracy,
    }
    gain = row.found_less_this
    figures = {
        "raw": row.raw,
        "calibrated": row.calibrated,
        "auroc": row.auroc,
        "calibration_error": row.calibration_error,
        "gap_recovered": row.gap_recovered,
        "found_less_this": gain and gain.estimate,
    }
    for figure, estimate in figures.items():
        for part in ("value", "lower", "upper", "seed_sd"):
            flat[figure if part == "value" else f"{figure}_{part}"] = estimate and getattr(estimate, part)
    return flat | {
        "p_value": gain and gain.p_value,
        "n": row.raw.n,
        "groups": row.raw.groups,
        "seeds": row.raw.seeds,
        "tokens_computed": row.cost.tokens_computed,
        "tokens_reused": row.cost.tokens_reused,
        "seconds": row.cost.seconds,
    }


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _latex_estimate(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return "--"
    if estimate.lower is None or estimate.upper is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} {{\\scriptsize [{estimate.lower:.3f}, {estimate.upper:.3f}]}}"


_LATEX = {"\\": r"\textbackslash{}", **{c: f"\\{c}" for c in "&%$#_{}"}, "~": r"\textasciitilde{}", "^": r"\^{}"}


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
