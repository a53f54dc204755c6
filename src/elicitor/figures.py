"""Figures of evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from elicitor.errors import ConfigError
from elicitor.evaluation import Evaluation
from elicitor.tables import judged


def bar_figure(results: Sequence[Evaluation], names: Sequence[str], file: Path) -> None:
    """Accuracy of every condition on every task as bars with their 95% intervals (like Wen et al. 2025, figure 3).

    Args:
        results: One evaluation for each task.
        names: Their names.
        file: PNG, SVG or PDF to write.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    conditions = list(dict.fromkeys(row.condition for result in results for row in result.rows))
    width = 0.8 / len(conditions)
    figure = Figure(figsize=(max(6.0, 0.22 * len(conditions) * len(results) + 2), 4.5), layout="constrained")
    axes = figure.add_subplot()
    for k, condition in enumerate(conditions):
        places, heights, below, above = [], [], [], []
        for task, result in enumerate(results):
            estimate = judged(result, condition)
            if estimate is None or estimate.value is None:
                continue
            places.append(task + (k - (len(conditions) - 1) / 2) * width)
            heights.append(estimate.value)
            below.append(0.0 if estimate.lower is None else max(0.0, estimate.value - estimate.lower))
            above.append(0.0 if estimate.upper is None else max(0.0, estimate.upper - estimate.value))
        colour = f"C{k % 10}"
        hatch = "//" if k >= 10 else None
        axes.bar(places, heights, width, yerr=[below, above], label=condition, color=colour, hatch=hatch, capsize=2)
    for task, result in enumerate(results):
        axes.hlines(1 / result.n_labels, task - 0.45, task + 0.45, colors="black", linestyles="dotted")
    axes.set_xticks(range(len(results)), list(names))
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy, 95% interval (dotted: chance)")
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=4, frameon=False)
    figure.savefig(file, dpi=150)


def require_matplotlib() -> None:
    """Refuse before hours of work what could not be drawn after them.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("the figure needs matplotlib", fix="pip install 'elicitor[eval]'") from error
