"""The end of a run: finished batches become ``labels.jsonl`` and ``metrics.json``, however many there are.

Labels, events and metrics are read one at a time, so memory does not grow with what a run has written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from elicitor.batch_search import meter_from_json
from elicitor.data import LabelSpace
from elicitor.errors import DataError
from elicitor.files import iter_rows, read_json, read_rows, write_json, write_rows
from elicitor.objective import Meter
from elicitor.runs import EVENTS, LABELS, METRICS, RunFolder
from elicitor.scoring_check import label_mass
from elicitor.shapes import EventRow, LabelRow
from elicitor.spool import Spool

PROPOSALS = ("made", "judged", "accepted", "by_a_part", "terms_read", "terms", "checked", "agreed")
"""What is counted of the proposals of ``icm``; the last five where ``icm.utility`` is sampled."""


def join_batches(folder: RunFolder, batches: Sequence[Sequence[int]], label_space: LabelSpace) -> None:
    """Join the batches into ``labels.jsonl`` and ``metrics.json``, then drop the parts.

    Args:
        folder: Folder whose batches are all finished; one that was joined before is left as it is.
        batches: Positions of each batch, ascending.
        label_space: The labels.
    """
    numbers = range(len(batches))
    if not folder.is_joined():
        counts: Counter[str] = Counter()
        write_rows(folder.path / LABELS, _counted(_in_order(folder, batches), counts))
        parts = [read_json(folder.batch_metrics(number)) for number in numbers]
        meter = Meter()
        for part in parts:
            meter += meter_from_json(part["meter"])
        write_json(
            folder.path / METRICS,
            {
                "n_examples": sum(map(len, batches)),
                "labels": {name: counts[f"label {name}"] for name in label_space.labels},
                "filled": counts["filled"],
                **_event_metrics(iter_rows(folder.path / EVENTS, shape=EventRow)),
                "label_mass": label_mass(meter),
                "cost": {
                    **asdict(meter.cost),
                    "evaluations": meter.evaluations,
                    "in_order_tokens_same_events": meter.in_order_tokens,
                    "naive_tokens_same_events": meter.naive_tokens,
                },
                "batches": [part["metrics"] for part in parts],
            },
        )
    for number in numbers:
        folder.batch_labels(number).unlink(missing_ok=True)
        folder.batch_metrics(number).unlink(missing_ok=True)


def read_labels(path: Path, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Found labels of a finished run, as rows of ``labels.jsonl`` in the order of the data.

    Args:
        path: Folder of the run.
        metrics: Content of its ``metrics.json``.

    Returns:
        One row an example.

    Raises:
        DataError: If the file is not as the run has written it: other ids, or labels that the task does not have.
    """
    rows = read_rows(path / LABELS, shape=LabelRow)
    ids, wanted = {row["id"] for row in rows}, metrics["n_examples"]
    again = "put the file back, or search again in another --output-dir"
    if not len(ids) == len(rows) == wanted:
        raise DataError(
            f"{path / LABELS} has {len(ids)} ids in {len(rows)} lines, the run labelled {wanted} examples", fix=again
        )
    if strange := {row["label"] for row in rows} - metrics["labels"].keys():
        raise DataError(f"{path / LABELS} holds {min(strange)!r}, no label of the task", fix=again)
    return rows


def _in_order(folder: RunFolder, batches: Sequence[Sequence[int]]) -> Iterator[dict[str, Any]]:
    """Labels of all batches in the order of the data."""
    spool = Spool()
    for number in range(len(batches)):
        for row in iter_rows(folder.batch_labels(number), shape=LabelRow):
            spool.append(row)
    for place in np.argsort(np.concatenate([np.asarray(batch) for batch in batches])):
        yield spool[int(place)]


def _counted(labels: Iterable[dict[str, Any]], counts: Counter[str]) -> Iterator[dict[str, Any]]:
    for row in labels:
        counts[f"label {row['label']}"] += 1
        counts["filled"] += row["filled"]
        yield row


def _event_metrics(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Proposals, what was checked of the scores, and warnings in the order of the batches, whichever finished first."""
    counts: Counter[str] = Counter()
    warnings: list[tuple[int, str]] = []
    checked: dict[str, Any] = {}
    for event in events:
        if event["kind"] == "warned":
            warnings.append((event["batch"], event["message"]))
        elif event["kind"] == "checked":
            checked = {name: value for name, value in event.items() if name not in ("kind", "batch", "iteration")}
        elif event["kind"] == "proposed":
            judged = event["utility_proposed"] is not None
            counts["made"] += 1
            counts["judged"] += judged
            counts["accepted"] += judged and event["accepted"]
            # Earlier versions wrote no terms.
            if terms := event.get("terms"):
                counts["by_a_part"] += event["terms_read"] is not None
                counts["terms_read"] += event["terms_read"] or terms
                counts["terms"] += terms
                counts["checked"] += event["agrees"] is not None
                counts["agreed"] += event["agrees"] is True
    warnings.sort(key=lambda warning: warning[0])
    return {
        "proposals": {name: counts[name] for name in PROPOSALS},
        "scoring": checked,
        "warnings": [message for _, message in warnings],
    }
