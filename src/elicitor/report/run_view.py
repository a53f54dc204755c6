"""One run folder as a view: its labels, examples, events and, where given, gold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from elicitor.audit import Audit
from elicitor.audit_checks import NEAR_TIE
from elicitor.config import RunConfig
from elicitor.data import Example, load_dataset
from elicitor.errors import DataError, ElicitorError
from elicitor.evaluation import Evaluation
from elicitor.files import iter_rows, read_json
from elicitor.gold import load_gold
from elicitor.inputs import task_of
from elicitor.joining import read_labels
from elicitor.metrics import Estimate, accuracy
from elicitor.report.trace import Trace, read_trace
from elicitor.report.views import Bin, ExampleView, NamedResult, RunView
from elicitor.reviewed import reviewed_ids
from elicitor.runs import EVENTS, METRICS, RunFolder, load_run_config, read_manifest
from elicitor.search.events import ABOUT_SCORES
from elicitor.shapes import EventRow, Metrics
from elicitor.tasks import Task
from elicitor.wilson import wilson

TEXT_BUDGET = 6_000_000
"""Characters of the examples' texts that a page holds, so that it stays well under 15 MB."""
_SHORTEST = 100
_CONFIDENCE_BINS = 10
_MARGIN_END = 8.0
"""Log-odds beyond which margins are counted in the last bin, in nats."""


def run_view(
    path: Path,
    *,
    name: str,
    results: list[NamedResult],
    audit: Audit | None,
    gold: str | None,
    gold_column: str | None,
    examples: int,
) -> RunView:
    """Read a run folder, finished or in work.

    Args:
        path: The folder.
        name: What it is called in the report.
        results: Its evaluations.
        audit: Its audit.
        gold: File with gold labels by id.
        gold_column: Its column, if not the task's.
        examples: Examples that are kept at most.

    Returns:
        The view.

    Raises:
        ElicitorError: If a file of the run or the gold file cannot be read, or gold knows none of the examples.
    """
    config = load_run_config(path)
    task = task_of(config)
    labels = task.label_space.labels
    finished = (path / METRICS).exists()
    truth = _gold(gold, task, gold_column)
    reviewed = reviewed_ids(path)
    judged = {example: label for example, label in truth.items() if example not in reviewed}
    data, notes = _data(config, task, path)
    rows = read_labels(path, read_json(path / METRICS, shape=Metrics)) if finished else []
    order = [row["id"] for row in rows] if finished else list(data)
    until = None if finished else RunFolder(path).checkpoint().event_bytes
    trace = Trace([], 0, {}, {}, [])
    if (path / EVENTS).exists():
        events = partial(_events, path / EVENTS, labels, until=until)
        trace = read_trace(events, labels, truth=judged, wanted=frozenset(order[:examples]))
    if not finished:
        found = trace.held
        order = order or list(found)
        rows = [{"id": i, "label": found.get(i), "group_id": data[i].group_id if i in data else i} for i in order]
        notes.append("the search has not finished: labels are those held now, without confidence")
    if truth and not truth.keys() & set(order):
        raise DataError(f"{gold} knows none of the examples of {path}", fix="give gold with the ids of the run's data")
    if reviewed and truth:
        notes.append(f"label accuracy leaves out {len(reviewed):,} examples: a review gave their labels to the search")
    metrics = read_json(path / METRICS, shape=Metrics) if finished else _metrics_so_far(trace, path, until)
    shown = _shown(rows[:examples], data, trace, truth, task, notes=notes)
    if len(rows) > len(shown):
        notes.append(f"the table holds the first {len(shown):,} of {len(rows):,} examples; figures are of all")
    evaluated = [named.result for named in results if isinstance(named.result, Evaluation)]
    from_eval = next((result.label_accuracy for result in evaluated if result.label_accuracy), None)
    clusters = {row["id"]: task.cluster(data[row["id"]]) if row["id"] in data else row["group_id"] for row in rows}
    return RunView(
        name=name,
        folder=str(path),
        finished=finished,
        task=task.name,
        template=task.template,
        fields=task.fields,
        labels=labels,
        verbalizers=task.label_space.verbalizers,
        preamble=task.preamble,
        separator=task.separator,
        model=config.model,
        settings=_settings(config, path),
        n=len(rows) if finished else len(trace.held),
        counts=metrics["labels"],
        filled=metrics["filled"],
        batch_sizes=np.bincount([row["batch"] for row in rows]).tolist() if finished else [],
        utility=_mean([batch["utility"] for batch in metrics["batches"]]),
        inconsistency=sum(batch["inconsistency"] for batch in metrics["batches"]) if metrics["batches"] else None,
        cost=metrics["cost"],
        proposals=metrics["proposals"],
        trace=trace,
        margins=_margins(rows, labels) if finished else [],
        contradicted=_share([row["log_odds"] < 0 for row in rows], rows, clusters) if finished else None,
        reliability=_reliability(rows, judged, clusters) if finished else [],
        label_accuracy=_agreement(rows, judged, clusters) if truth else from_eval.estimate if from_eval else None,
        curves=from_eval.curves if from_eval and not truth else [],
        examples=shown,
        results=results,
        audit=audit,
        notes=[*notes, *(f"the search warned: {warning}" for warning in trace.warnings)],
    )


def _settings(config: RunConfig, path: Path) -> dict[str, Any]:
    made = read_manifest(path)
    return {
        "search": config.search,
        "seed": config.seed,
        "calibration": config.objective.calibration,
        "alpha": f"{config.objective.alpha:g}",
        "plan": config.plan.kind,
        "data": config.data,
        "gold in the search": made["gold_used"] or "none",
        "elicitor": ", ".join([made["versions"]["elicitor"], *made.get("resumed_with", [])]),
    }


def _gold(source: str | None, task: Task, column: str | None) -> dict[str, str]:
    """Gold label by example id; empty where none was given."""
    if source is None:
        return {}
    gold = load_gold(source, task.with_gold_column(column) if column else task)
    return {example: task.label_space.labels[label] for example, label in gold.labels.items()}


def _data(config: RunConfig, task: Task, path: Path) -> tuple[dict[str, Example], list[str]]:
    """Examples by id; none, with a note that says why, where the data is no longer what was labelled."""
    try:
        dataset = load_dataset(config.data, task, limit=config.limit)
    except ElicitorError as error:
        return {}, [f"the texts of the examples are missing: {error.problem}"]
    if dataset.fingerprint != read_manifest(path)["identity"]["data"]:
        return {}, [f"the texts of the examples are missing: {config.data} has changed since the run"]
    return {example.id: example for example in dataset.examples}, []


def _events(file: Path, labels: Sequence[str], *, until: int | None) -> Iterator[dict[str, Any]]:
    """Events whose labels are all of the task."""
    known = {None, *labels}
    for event in iter_rows(file, until=until, shape=EventRow):
        told = {*event.get("labels", {}).values(), event.get("label_before"), event.get("label_proposed")}
        if strange := told - known:
            raise DataError(
                f"{file} names the label {min(map(str, strange))!r}, which the task does not have",
                fix="put the file back, or search again in another --output-dir",
            )
        yield event


def _metrics_so_far(trace: Trace, path: Path, until: int | None) -> dict[str, Any]:
    """What ``metrics.json`` will hold, as far as the events say it."""
    cost: Counter[str] = Counter()
    last: dict[int, dict[str, Any]] = {}
    for event in iter_rows(path / EVENTS, until=until, shape=EventRow) if (path / EVENTS).exists() else ():
        if event["kind"] not in ABOUT_SCORES:
            last[event["batch"]] = event
            cost.update({key: event[key] for key in ("tokens_computed", "tokens_reused", "seconds")})
    judged, accepted = (sum(getattr(point, key) for point in trace.points) for key in ("judged", "accepted"))
    return {
        "labels": dict(Counter(trace.held.values())),
        "filled": 0,
        "batches": [{key: event[key] for key in ("utility", "inconsistency")} for event in last.values()],
        "cost": dict(cost),
        "proposals": {"judged": judged, "accepted": accepted},
    }


def _shown(
    rows: Sequence[Mapping[str, Any]],
    data: Mapping[str, Example],
    trace: Trace,
    truth: Mapping[str, str],
    task: Task,
    *,
    notes: list[str],
) -> list[ExampleView]:
    """Examples as the table shows them, long texts cut where all of them would be too much for a page."""
    longest = max((len(text) for e in data.values() for text in e.fields.values()), default=0)
    size = sum(len(text) for row in rows if row["id"] in data for text in data[row["id"]].fields.values())
    most = longest if size <= TEXT_BUDGET else max(_SHORTEST, TEXT_BUDGET // (len(rows) * len(task.fields)))
    if longest > most:
        notes.append(f"texts are cut at {most:,} characters; the data file has the whole")
    views = []
    for row in rows:
        example = data.get(row["id"])
        texts = () if example is None else tuple(_cut(example.fields[name], most) for name in task.fields)
        views.append(
            ExampleView(
                id=row["id"],
                label=row["label"],
                log_odds=row.get("log_odds"),
                confidence=row.get("confidence"),
                group=row["group_id"],
                batch=row.get("batch", 0),
                filled=row.get("filled", False),
                gold=truth.get(row["id"]),
                texts=texts,
                changes=trace.changes.get(row["id"], ()),
            )
        )
    return views


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + " [cut]"


def _agreement(
    rows: Sequence[Mapping[str, Any]], truth: Mapping[str, str], clusters: Mapping[str, str]
) -> Estimate | None:
    known = [row for row in rows if row["id"] in truth and row["label"] is not None]
    return _share([row["label"] == truth[row["id"]] for row in known], known, clusters)


def _share(hits: Sequence[bool], rows: Sequence[Mapping[str, Any]], clusters: Mapping[str, str]) -> Estimate | None:
    """A share with its interval, clustered; fewer resamples where there are very many examples."""
    if not hits:
        return None
    names = [clusters[row["id"]] for row in rows]
    resamples = int(np.clip(10_000_000 // len(names), 100, 2000))
    return accuracy(np.asarray([hits]), names, rng=np.random.default_rng(0), resamples=resamples)


def _margins(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[Bin]:
    """Examples by log-odds of their label; the outermost bins hold everything beyond as well.

    0 and the bounds of near-ties are ends of bins.
    """
    margins = np.clip([row["log_odds"] for row in rows], -_MARGIN_END, _MARGIN_END)
    most = max(1.0, float(np.ceil(np.abs(margins).max(initial=0.0))))
    width = NEAR_TIE / 2 if most <= _MARGIN_END / 2 else NEAR_TIE
    edges = np.linspace(-most, most, round(2 * most / width) + 1)
    held = np.asarray([row["label"] for row in rows])
    bins = []
    for label in labels:
        counts, _ = np.histogram(margins[held == label], edges)
        ends = zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
        bins += [Bin(lower, upper, count, label=label) for lower, upper, count in ends]
    return bins


def _reliability(rows: Sequence[Mapping[str, Any]], truth: Mapping[str, str], clusters: Mapping[str, str]) -> list[Bin]:
    """How often labels of about one confidence agree with gold; bins without examples are left out."""
    binned: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["id"] in truth:
            binned.setdefault(min(int(row["confidence"] * _CONFIDENCE_BINS), _CONFIDENCE_BINS - 1), []).append(row)
    return [
        Bin(
            lower=k / _CONFIDENCE_BINS,
            upper=(k + 1) / _CONFIDENCE_BINS,
            count=len(members),
            mean=float(np.mean([row["confidence"] for row in members])),
            accuracy=_by_groups(
                float(np.mean([row["label"] == truth[row["id"]] for row in members])),
                n=len(members),
                groups=len({clusters[row["id"]] for row in members}),
            ),
        )
        for k, members in sorted(binned.items())
    ]


def _by_groups(share: float, *, n: int, groups: int) -> Estimate:
    """Wilson's interval, every group counted once: few examples that all agree are no proof, as a bootstrap would have it."""
    lower, upper = wilson(share, n=groups)
    return Estimate(share, lower, upper, n=n, groups=groups, seeds=1)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
