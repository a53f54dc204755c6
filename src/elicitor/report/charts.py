"""Vega-Lite specifications of the figures of a page, each with a caption that says n, seeds and interval.

Colours are CSS variables of the page, so that a figure follows the reader's light or dark setting without being drawn again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from elicitor.audit_checks import NEAR_TIE
from elicitor.evaluation import Evaluation
from elicitor.metrics import Estimate
from elicitor.report.series import (
    ablation_rows,
    acceptance,
    accuracy_points,
    condition_rows,
    margin_rows,
    reliability_rows,
    result_facts,
    scaling_tasks,
    share_points,
    temperature_points,
    utility_points,
)
from elicitor.report.views import AblationView, NamedResult, RunView, TrainingView, Views

Spec = dict[str, Any]
_CONDITION_COLOURS = {
    "found": "found",
    "golden": "golden",
    "human": "human",
    "noised_gold": "noised",
    "zero_shot": "none",
}
_SERIES = [f"var(--s{k})" for k in range(1, 9)]
_UNIT = {"domain": [0, 1]}


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure.

    Attributes:
        id: Unique in the page.
        section: Section of the page that it stands in.
        title: Heading.
        caption: What it shows, with n, seeds and interval.
        spec: Vega-Lite specification, without configuration.
    """

    id: str
    section: str
    title: str
    caption: str
    spec: Spec


def charts(views: Views) -> list[Chart]:
    """All figures that there is something to draw for.

    Args:
        views: What the report shows.

    Returns:
        Figures in the order of the page.
    """
    drawn: list[Chart | None] = [_conditions(k, named) for k, named in enumerate(views.all_results())]
    drawn += [_scaling(task, named) for task, named in scaling_tasks(views)]
    drawn += [_ablation(k, view) for k, view in enumerate(views.ablations)]
    if views.runs:
        drawn += [_label_accuracy(views.runs), _utility(views.runs), *_shares(views.runs)]
        drawn += [_acceptance(views.runs), _temperature(views.runs)]
        several = len(views.runs) > 1
        for k, run in enumerate(views.runs):
            drawn += [_margins(k, run, several=several), _reliability(k, run, several=several)]
    for k, training in enumerate(views.trainings):
        drawn += [_losses(k, training), _reward(k, training), _divergence(k, training)]
    return [chart for chart in drawn if chart is not None]


def _conditions(k: int, named: NamedResult) -> Chart:
    rows = condition_rows(named.result)
    names = [row["condition"] for row in rows]
    colours = [f"var(--{_CONDITION_COLOURS.get(name, 'other')})" for name in names]
    y = {"field": "condition", "type": "nominal", "sort": names, "title": None, "axis": {"labelLimit": 220}}
    x = {"field": "value", "type": "quantitative", "scale": _UNIT, "title": "accuracy on the test set"}
    fill = {"field": "condition", "scale": {"domain": names, "range": colours}, "legend": None}
    layers: list[Spec] = [
        {
            "mark": {"type": "bar", "height": {"band": 0.68}, "cornerRadiusEnd": 2},
            "encoding": {"y": y, "x": x, "color": fill, "tooltip": _tooltip("condition", "accuracy", "n", "seeds")},
        },
        _interval("y", y),
        {
            "mark": {"type": "text", "align": "left", "dx": 6, "fontWeight": 600},
            "encoding": {"y": y, "x": {"field": "text_at", "type": "quantitative"}, "text": {"field": "shown"}},
        },
    ]
    if isinstance(named.result, Evaluation):
        layers.append(_rule_at(1 / named.result.n_labels, axis="x"))
    over = "models fine-tuned on these labels, asked zero-shot" if named.tuned else "in context"
    chance = "; dotted: chance" if isinstance(named.result, Evaluation) else ""
    caption = f"{over}; {result_facts(named.result)}; 95% intervals by bootstrap over groups and seeds{chance}"
    return Chart(
        f"conditions-{k}",
        "accuracy",
        f"{named.name}: accuracy by condition",
        caption,
        _spec(rows, layers, height=27 * len(rows)),
    )


def _scaling(task: str, named: Sequence[NamedResult]) -> Chart:
    rows = [row | {"model": one.result.model} for one in named for row in condition_rows(one.result)]
    models = list(dict.fromkeys(row["model"] for row in rows))
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    x = {"field": "model", "type": "ordinal", "sort": models, "title": None, "axis": {"labelAngle": 0}}
    offset = {"field": "condition", "sort": conditions}
    line = {
        "x": x,
        "xOffset": offset,
        "y": {"field": "value", "type": "quantitative", "scale": _UNIT, "title": "accuracy on the test set"},
        "color": _colour("condition", conditions),
        "tooltip": _tooltip("model", "condition", "accuracy", "n", "seeds"),
    }
    ends = {"y": {"field": "lower", "type": "quantitative"}, "y2": {"field": "upper"}}
    layers: list[Spec] = [
        {"mark": {"type": "line"}, "encoding": line},
        {"mark": {"type": "point", "filled": True, "size": 60}, "encoding": line},
        {"mark": {"type": "rule"}, "encoding": {k: line[k] for k in ("x", "xOffset", "color")} | ends},
    ]
    facts = "; ".join(dict.fromkeys(result_facts(one.result) for one in named))
    caption = f"{facts}; 95% intervals over groups and seeds"
    return Chart(f"scaling-{task}", "accuracy", f"{task}: accuracy by model", caption, _spec(rows, layers))


def _ablation(k: int, view: AblationView) -> Chart:
    rows = ablation_rows(view)
    names = [row["variant"] for row in rows]
    factors = list(dict.fromkeys(row["factor"] for row in rows))
    y = {"field": "variant", "type": "nominal", "sort": names, "title": None, "axis": {"labelLimit": 220}}
    x = {"field": "value", "type": "quantitative", "scale": {"zero": False}, "title": "label accuracy"}
    layers: list[Spec] = [
        _interval("y", y, colour=_colour("factor", factors)),
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
            "encoding": {
                "y": y,
                "x": x,
                "color": _colour("factor", factors),
                "tooltip": _tooltip("variant", "accuracy", "less base", "n", "seeds"),
            },
        },
        _rule_at(rows[0]["value"], axis="x"),
    ]
    first = view.ablation.results[0].label_accuracy
    seeds = ", ".join(map(str, view.ablation.seeds))
    caption = f"n = {first.n} in {first.groups} groups; seeds {seeds}; 95% intervals by bootstrap; dotted: base"
    title = f"{view.name}: one thing changed at a time"
    return Chart(f"ablation-{k}", "ablations", title, caption, _spec(rows, layers, height=26 * len(rows)))


def _label_accuracy(runs: Sequence[RunView]) -> Chart | None:
    rows = accuracy_points(runs)
    if not rows:
        return None
    ends = "; ".join(f"{run.name} ends at {_estimate(run.label_accuracy)}" for run in runs if run.label_accuracy)
    caption = f"share of the labels held that agree with gold; {ends}, 95% interval over groups"
    spec = _lines(rows, "iteration", "value", title="label accuracy", scale={"zero": False})
    return Chart("label-accuracy", "search", "Label accuracy", caption, spec)


def _utility(runs: Sequence[RunView]) -> Chart | None:
    rows = utility_points(runs)
    if not rows:
        return None
    spec = _lines(rows, "iteration", "value", title="U(D)", scale={"zero": False}, band=("lower", "upper"))
    band = "; band: lowest and highest batch" if any(run.trace.batches > 1 for run in runs) else ""
    caption = f"{_sizes(runs)}{band}; what a search held, so there is no interval"
    return Chart("utility", "search", "Utility", caption, spec)


def _shares(runs: Sequence[RunView]) -> Iterable[Chart | None]:
    rows = share_points(runs)
    if not rows:
        return
    if len(runs) == 1:
        names = list(runs[0].labels)
        y = {"field": "value", "type": "quantitative", "stack": "normalize", "title": "share of labels"}
        encoding = {"x": _iteration(), "y": y, "color": _colour("series", names)}
        layers: list[Spec] = [
            {"mark": {"type": "area", "opacity": 0.85, "interpolate": "step-after"}, "encoding": encoding}
        ]
        caption = f"share of each label among those held; {_sizes(runs)}; an exact count"
        yield Chart("shares", "search", "Class balance", caption, _spec(rows, layers))
        return
    caption = f"share of the most frequent label; near 1 it has collapsed; {_sizes(runs)}; an exact count"
    spec = _lines(rows, "iteration", "value", title="largest share", scale=_UNIT)
    yield Chart("shares", "search", "Class balance", caption, spec)


def _acceptance(runs: Sequence[RunView]) -> Chart | None:
    rows = acceptance(runs)
    if not rows:
        return None
    caption = (
        f"share of the proposals that would change a label and were accepted; 95% intervals (Wilson); {_sizes(runs)}"
    )
    spec = _lines(rows, "iteration", "value", title="accepted", scale=_UNIT, band=("lower", "upper"))
    return Chart("acceptance", "search", "Acceptance", caption, spec)


def _temperature(runs: Sequence[RunView]) -> Chart | None:
    rows = temperature_points(runs)
    if not rows:
        return None
    spec = _lines(rows, "iteration", "value", title="temperature", scale={"type": "log"})
    return Chart("temperature", "search", "Temperature", f"a setting, not an estimate; {_sizes(runs)}", spec)


def _margins(k: int, run: RunView, *, several: bool) -> Chart | None:
    if not run.margins:
        return None
    bounds = {
        "x": {"field": "lower", "type": "quantitative", "bin": "binned", "title": "log-odds of the label, nats"},
        "x2": {"field": "upper"},
    }
    y = {"field": "count", "type": "quantitative", "title": "examples"}
    layers: list[Spec] = [
        {
            "mark": {"type": "bar", "binSpacing": 1},
            "encoding": bounds
            | {"y": y, "color": _colour("label", run.labels), "tooltip": _tooltip("label", "count", "from", "to")},
        },
        _rule_at(0, axis="x"),
    ]
    caption = (
        f"below 0 the other labels contradict it: {_estimate(run.contradicted)}, 95% interval; within {NEAR_TIE} is a "
        f"near-tie; n = {run.n:,}, seed {run.seed}"
    )
    title = f"{run.name}: margins" if several else "Margins"
    return Chart(f"margins-{k}", "confidence", title, caption, _spec(margin_rows(run), layers))


def _reliability(k: int, run: RunView, *, several: bool) -> Chart | None:
    rows = reliability_rows(run)
    if not rows:
        return None
    x = {"field": "mean", "type": "quantitative", "scale": _UNIT, "title": "confidence"}
    y = {"field": "value", "type": "quantitative", "scale": _UNIT, "title": "label accuracy"}
    diagonal = {"values": [{"at": 0}, {"at": 1}]}
    ends = {"x": x, "y": {"field": "lower", "type": "quantitative"}, "y2": {"field": "upper"}}
    layers: list[Spec] = [
        {
            "data": diagonal,
            "mark": {"type": "line", "strokeDash": [2, 3], "color": "var(--muted)", "strokeWidth": 1},
            "encoding": {a: {"field": "at", "type": "quantitative", "scale": _UNIT} for a in ("x", "y")},
        },
        {"mark": {"type": "rule", "color": "var(--found)"}, "encoding": ends},
        {
            "mark": {"type": "circle", "color": "var(--found)", "opacity": 1},
            "encoding": {
                "x": x,
                "y": y,
                "size": {"field": "count", "type": "quantitative", "legend": None, "scale": {"range": [30, 260]}},
                "tooltip": _tooltip("confidence", "accuracy", "count"),
            },
        },
    ]
    known = run.label_accuracy.n if run.label_accuracy else 0
    caption = (
        f"on the dotted line confidence is right; size: examples; n = {known:,}, seed {run.seed}; 95% intervals (Wilson, "
        "each group counted once)"
    )
    title = f"{run.name}: reliability" if several else "Reliability"
    return Chart(f"reliability-{k}", "confidence", title, caption, _spec(rows, layers))


def _losses(k: int, training: TrainingView) -> Chart | None:
    if not training.losses:
        return None
    rows = [{"step": step, "value": loss, "series": training.name} for step, loss in training.losses]
    spec = _lines(rows, "step", "value", title="loss", scale={"zero": False})
    caption = f"{training.facts.get('rows', '?')} rows; one training, so no interval"
    return Chart(f"loss-{k}", "trainings", f"{training.name}: loss", caption, spec)


def _reward(k: int, training: TrainingView) -> Chart | None:
    if not training.curve:
        return None
    rows = [{"step": p["step"], "value": p["reward"], "series": training.name} for p in training.curve]
    spec = _lines(rows, "step", "value", title="mean reward", scale={"zero": False})
    gain = f"; gain on test prompts {_estimate(training.gain)}, 95% interval" if training.gain else ""
    caption = f"on the prompts that choose the checkpoint; one training{gain}"
    return Chart(f"reward-{k}", "trainings", f"{training.name}: reward", caption, spec)


def _divergence(k: int, training: TrainingView) -> Chart | None:
    if not training.curve:
        return None
    rows = [{"step": p["step"], "value": p["kl"], "series": training.name} for p in training.curve]
    spec = _lines(rows, "step", "value", title="KL to the start, nats", scale={"zero": True})
    return Chart(
        f"kl-{k}", "trainings", f"{training.name}: distance", "of the policy from its start; one training", spec
    )


def _lines(
    rows: list[dict[str, Any]], x: str, y: str, *, title: str, scale: Spec, band: tuple[str, str] | None = None
) -> Spec:
    names = list(dict.fromkeys(row["series"] for row in rows))
    colour = _colour("series", names, legend=len(names) > 1)
    across = {"field": x, "type": "quantitative", "title": x, "axis": {"tickMinStep": 1}}
    up = {"field": y, "type": "quantitative", "title": title, "scale": scale}
    layers: list[Spec] = []
    if band:
        ends = {"y": {"field": band[0], "type": "quantitative", "scale": scale}, "y2": {"field": band[1]}}
        layers.append({"mark": {"type": "area", "opacity": 0.18}, "encoding": {"x": across, "color": colour} | ends})
    tooltip = [{"field": x}, {"field": y, "format": ".4g", "title": title}, {"field": "series"}]
    line: Spec = {"type": "line", "strokeWidth": 2}
    if len(rows) <= 30 * len(names):
        line["point"] = {"size": 28}
    layers.append({"mark": line, "encoding": {"x": across, "y": up, "color": colour, "tooltip": tooltip}})
    return _spec(rows, layers)


def _spec(rows: list[dict[str, Any]], layers: list[Spec], *, height: int = 220) -> Spec:
    size = {"width": "container", "height": height, "autosize": {"type": "fit-x", "contains": "padding"}}
    return {"data": {"values": rows}, "layer": layers} | size


def _iteration() -> Spec:
    return {"field": "iteration", "type": "quantitative", "title": "iteration", "axis": {"tickMinStep": 1}}


def _colour(field: str, names: Sequence[str], *, legend: bool = True) -> Spec:
    scale = {"domain": list(names), "range": [_SERIES[k % len(_SERIES)] for k in range(len(names))]}
    return {"field": field, "scale": scale, "legend": {"title": None, "orient": "top"} if legend else None}


def _interval(axis: str, place: Spec, *, colour: Spec | None = None) -> Spec:
    ends = {"x": {"field": "lower", "type": "quantitative"}, "x2": {"field": "upper"}, axis: place}
    mark = {"type": "rule", "strokeWidth": 1.5} | ({} if colour else {"color": "var(--ink)", "opacity": 0.75})
    return {"mark": mark, "encoding": ends | ({"color": colour} if colour else {})}


def _rule_at(value: float | None, *, axis: str) -> Spec:
    mark = {"type": "rule", "strokeDash": [2, 3], "color": "var(--muted)", "strokeWidth": 1}
    return {
        "data": {"values": [{"at": value}]},
        "mark": mark,
        "encoding": {axis: {"field": "at", "type": "quantitative"}},
    }


def _tooltip(*fields: str) -> list[Spec]:
    return [{"field": field} for field in fields]


def _sizes(runs: Sequence[RunView]) -> str:
    if len(runs) == 1:
        batches = runs[0].trace.batches
        return f"n = {runs[0].n:,} in {batches} batch{'es' * (batches != 1)}, seed {runs[0].seed}"
    return "; ".join(f"{run.name}: n = {run.n:,}, seed {run.seed}" for run in runs)


def _estimate(estimate: Estimate | None) -> str:
    return "unknown" if estimate is None else str(estimate)
