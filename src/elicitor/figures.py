"""Figures for papers, drawn by matplotlib: the bars of a suite, and what `elicitor.report` gathers from any folders."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitor.errors import ConfigError
from elicitor.evaluation import Evaluation
from elicitor.files import replacing
from elicitor.metrics import Estimate
from elicitor.tables import judged

if TYPE_CHECKING:
    from elicitor.report.views import AblationView, NamedResult, Result, RunView, Views

FORMATS = (".png", ".pdf", ".svg")
_LETTERS_PER_INCH = 17
"""Letters of a caption, at 7 points, that surely find room."""
_STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    # Text stays text in PDF and SVG, so that it can be searched and set in a paper's own font.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}
_COLOURS = {
    "found": "#2b6fe0",
    "golden": "#c98a12",
    "noised_gold": "#dcb26a",
    "human": "#2f8f6b",
    "zero_shot": "#6b7785",
}
_OTHERS = ("#c2cad3", "#a8c5bd", "#cdb5d0", "#d9cfa8", "#b3bfe0", "#dfbcae", "#b5d3a7")
_Draw = Callable[[Any], str]
"""Draws into axes and gives the caption: n, seeds, interval."""


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
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_bars_width(results), 4.5), layout="constrained")
        _bars(figure.add_subplot(), results, names)
        with replacing(file) as temporary:
            figure.savefig(temporary, dpi=150, format=file.suffix[1:])


def draw(views: Views, file: Path, *, only: Sequence[str] = ()) -> list[str]:
    """Draw what folders hold: bars, scaling over models, ablations, label accuracy and utility over iterations.

    Args:
        views: See `elicitor.report.gather`.
        file: PNG, PDF or SVG to write.
        only: Names of the figures that are wanted; all that there is something to draw for if empty.

    Returns:
        Names of the figures drawn, one panel each.

    Raises:
        ConfigError: If matplotlib is missing, the format is unknown, or there is nothing to draw.
    """
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if file.suffix.lower() not in FORMATS:
        raise ConfigError(f"{file} has no format that can be drawn", fix=f"end it in {', '.join(FORMATS)}")
    panels = _panels(views)
    known = list(dict.fromkeys(kind for kind, _, _ in panels))
    missing = [name for name in only if name not in known]
    if missing or not panels:
        raise ConfigError(
            f"these folders hold nothing for {f'figure {missing[0]!r}' if missing else 'a figure'}",
            fix=f"choose from {', '.join(known)}" if known else "give folders that have been evaluated",
        )
    chosen = [panel for panel in panels if not only or panel[0] in only]
    results = [named.result for named in views.all_results()]
    width = max(7.0, _bars_width(results)) if any(kind == "bars" for kind, _, _ in chosen) else 7.0
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, 4.2 * len(chosen)), layout="constrained")
        for place, (_, title, into) in enumerate(chosen, start=1):
            axes = figure.add_subplot(len(chosen), 1, place)
            lines = textwrap.wrap(_plain(into(axes)), width=int(_LETTERS_PER_INCH * width)) or [""]
            axes.set_title(_plain(title) + "\n" * len(lines), loc="left", fontweight="bold")
            caption = axes.text(0, 1.015, "\n".join(lines), transform=axes.transAxes, va="bottom")
            caption.set(fontsize=7, color="0.35", in_layout=False)
        try:
            with replacing(file) as temporary:
                figure.savefig(temporary, dpi=200, format=file.suffix[1:].lower())
        except OSError as error:
            raise ConfigError(f"{file} cannot be written: {error.strerror}", fix="choose another -o FILE") from error
    return [kind for kind, _, _ in chosen]


def require_matplotlib() -> None:
    """Refuse before hours of work what could not be drawn after them.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("the figure needs matplotlib", fix="pip install 'elicitor[eval]'") from error


def _panels(views: Views) -> list[tuple[str, str, _Draw]]:
    """Kind, title and drawing of each panel."""
    from elicitor.report.series import accuracy_points, result_facts, scaling_tasks, utility_points

    named = list(views.all_results())
    panels: list[tuple[str, str, _Draw]] = []
    if named:
        facts = "; ".join(dict.fromkeys(result_facts(one.result) for one in named))

        def bars(axes: Any) -> str:
            _bars(axes, [one.result for one in named], [one.name for one in named])
            return f"{facts}; 95% intervals over groups and seeds"

        panels.append(("bars", "Accuracy on the test set", bars))
    for task, some in scaling_tasks(views):
        panels.append(("scaling", f"{task}: accuracy by model", _scaling(some)))
    for view in views.ablations:
        panels.append(("ablation", f"{view.name}: one thing changed at a time", _ablation(view)))
    if accuracy_points(views.runs):
        panels.append(("accuracy", "Label accuracy over iterations", _accuracy(views.runs)))
    if utility_points(views.runs):
        panels.append(("utility", "Utility over iterations", _utility(views.runs)))
    return panels


def _bars_width(results: Sequence[Result]) -> float:
    conditions = {row.condition for result in results for row in result.rows}
    return max(6.0, 0.22 * len(conditions) * len(results) + 2)


def _bars(axes: Any, results: Sequence[Result], names: Sequence[str]) -> None:
    conditions = list(dict.fromkeys(row.condition for result in results for row in result.rows))
    width = 0.8 / len(conditions)
    for k, condition in enumerate(conditions):
        known = _points([(task, judged(result, condition)) for task, result in enumerate(results)])
        places = [task + (k - (len(conditions) - 1) / 2) * width for task in known.at]
        colour = _COLOURS.get(condition) or _OTHERS[k % len(_OTHERS)]
        axes.bar(
            places,
            known.values,
            width,
            yerr=known.spread,
            label=condition,
            color=colour,
            hatch="//" if condition not in _COLOURS and k >= len(_OTHERS) else None,
            error_kw={"elinewidth": 0.8},
            capsize=1.5,
        )
    for task, result in enumerate(results):
        if isinstance(result, Evaluation):
            axes.hlines(1 / result.n_labels, task - 0.45, task + 0.45, colors="black", linestyles="dotted")
    axes.set_xticks(range(len(results)), [_plain(name) for name in names])
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy, 95% interval (dotted: chance)")
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=4, frameon=False)


def _scaling(named: Sequence[NamedResult]) -> _Draw:
    """Accuracy of each condition over models (like figure 4)."""
    from elicitor.report.series import result_facts

    def into(axes: Any) -> str:
        models = list(dict.fromkeys(one.result.model for one in named))
        conditions = list(dict.fromkeys(row.condition for one in named for row in one.result.rows))
        for k, condition in enumerate(conditions):
            known = _points([(models.index(one.result.model), judged(one.result, condition)) for one in named])
            places = [x + (k - (len(conditions) - 1) / 2) * 0.03 for x in known.at]
            colour = _COLOURS.get(condition) or f"C{k % 10}"
            axes.errorbar(places, known.values, yerr=known.spread, label=condition, marker="o", capsize=2, color=colour)
        axes.set_xticks(range(len(models)), [_plain(model) for model in models])
        axes.set_ylim(0, 1)
        axes.set_ylabel("accuracy, 95% interval")
        axes.legend(fontsize="small", frameon=False)
        return f"{'; '.join(dict.fromkeys(result_facts(one.result) for one in named))}; 95% intervals over groups and seeds"

    return into


def _ablation(view: AblationView) -> _Draw:
    """Label accuracy of each variant beside the base (like figures 9 and 10)."""

    def into(axes: Any) -> str:
        rows = view.ablation.results[::-1]
        for place, row in enumerate(rows):
            known = _points([(place, row.label_accuracy)])
            colour = "black" if row.variant.factor == "base" else _COLOURS["found"]
            axes.errorbar(known.values, known.at, xerr=known.spread, marker="o", linestyle="", capsize=3, color=colour)
        base = view.ablation.results[0].label_accuracy
        if base.value is not None:
            axes.axvline(base.value, color="black", linestyle="dotted", linewidth=1)
        axes.set_yticks(range(len(rows)), [_plain(row.variant.name) for row in rows])
        axes.set_xlabel("label accuracy, 95% interval (dotted: base)")
        seeds = ", ".join(map(str, view.ablation.seeds))
        return f"n = {base.n} in {base.groups} groups; seeds {seeds}; 95% intervals over groups and seeds"

    return into


def _accuracy(runs: Sequence[RunView]) -> _Draw:
    from elicitor.report.series import accuracy_points

    def into(axes: Any) -> str:
        _lines(axes, accuracy_points(runs))
        axes.set_ylabel("label accuracy")
        ends = "; ".join(f"{run.name} ends at {run.label_accuracy} (n = {run.n})" for run in runs if run.label_accuracy)
        return f"{ends}; 95% intervals over groups"

    return into


def _utility(runs: Sequence[RunView]) -> _Draw:
    from elicitor.report.series import utility_points

    def into(axes: Any) -> str:
        _lines(axes, utility_points(runs), band=any(run.trace.batches > 1 for run in runs))
        axes.set_ylabel("U(D)")
        sizes = "; ".join(f"{run.name}: n = {run.n}, seed {run.seed}" for run in runs)
        return f"{sizes}; what a search held, so there is no interval; bands: lowest and highest batch"

    return into


def _lines(axes: Any, rows: Sequence[dict[str, Any]], *, band: bool = False) -> None:
    names = list(dict.fromkeys(row["series"] for row in rows))
    for name in names:
        mine = [row for row in rows if row["series"] == name]
        across = [row["iteration"] for row in mine]
        (line,) = axes.plot(across, [row["value"] for row in mine], label=_plain(name))
        if band:
            ends = ([row[end] for row in mine] for end in ("lower", "upper"))
            axes.fill_between(across, *ends, alpha=0.2, color=line.get_color(), linewidth=0)
    axes.set_xlabel("iteration")
    if len(names) > 1:
        axes.legend(fontsize="small", frameon=False)


@dataclass(frozen=True, slots=True)
class _Points:
    """Places, values, and how far intervals reach below and above them."""

    at: list[float]
    values: list[float]
    spread: tuple[list[float], list[float]]


def _points(estimates: Sequence[tuple[float, Estimate | None]]) -> _Points:
    """Estimates that have a value, at their places; an end that is not known reaches nowhere."""
    points = _Points([], [], ([], []))
    for place, estimate in estimates:
        if estimate is not None and estimate.value is not None:
            points.at.append(place)
            points.values.append(estimate.value)
            points.spread[0].append(0.0 if estimate.lower is None else max(0.0, estimate.value - estimate.lower))
            points.spread[1].append(0.0 if estimate.upper is None else max(0.0, estimate.upper - estimate.value))
    return points


def _plain(text: str) -> str:
    """Text that matplotlib sets as it is: a dollar sign begins no formula."""
    from elicitor.visible import visible

    return visible(text).replace("$", r"\$")
