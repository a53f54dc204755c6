"""Labels that a review has established, as the first labels of another run; and what must then be kept out of its figures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from elicitor.config import RunConfig, parse_config
from elicitor.errors import ConfigError, DataError
from elicitor.files import write_rows
from elicitor.inputs import task_of
from elicitor.manifest import REVIEW_OF
from elicitor.readers import iter_rows
from elicitor.review import read_marks
from elicitor.runs import load_run_config, read_manifest


def known_labels(folder: Path) -> dict[str, str]:
    """Labels that the marks of a run establish, by example id.

    A label that is right stays; of two labels one that is wrong is the other; of more, one that is wrong says too little.

    Raises:
        ElicitorError: If it is no run, or no mark establishes a label.
    """
    names = task_of(load_run_config(folder)).label_space.labels
    known = {}
    for mark in read_marks(folder).values():
        if mark.verdict == "right":
            known[mark.id] = mark.label
        elif len(names) == 2:
            known[mark.id] = names[1 - names.index(mark.label)]
    if not known:
        raise ConfigError(
            f"no mark in {folder} establishes a label", fix=f"mark some: elicitor review {folder} --mark ID=right"
        )
    return known


def start_from_review(config: RunConfig, reviewed: Path, *, into: Path | None = None) -> RunConfig:
    """Settings under which the search starts from the labels that a review has established.

    They are written into the reviewed run's folder, under a name made from them: marks that are set later change nothing for a
    run that has begun.

    Args:
        config: Settings that name no start labels.
        reviewed: Run folder with marks.
        into: Folder to write them into instead, for settings that no run will keep.

    Raises:
        ConfigError: If the search takes no start labels, or the settings name some already.
        ElicitorError: If no mark establishes a label.
    """
    if config.search == "bootstrap":
        raise ConfigError("search bootstrap takes no first labels", fix="use --search ensemble, icm, gibbs or scalable")
    if config.start_labels is not None:
        raise ConfigError(
            f"{config.search}.start_labels and --init review both give first labels", fix="leave one of them out"
        )
    rows = [
        {"id": name, "label": label, REVIEW_OF: str(reviewed)} for name, label in sorted(known_labels(reviewed).items())
    ]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]
    file = (into or reviewed) / f"review-{digest}.jsonl"
    write_rows(file, rows)
    values = config.model_dump()
    values[config.search]["start_labels"] = str(file)
    if config.search in ("icm", "gibbs"):
        values[config.search]["all_start_labels"] = True
    return parse_config(values, source="--init review")


def reviewed_ids(folder: Path) -> frozenset[str]:
    """Examples of a run whose labels a review gave it; none for most runs.

    Raises:
        DataError: If the file that names them has gone or is another one.
    """
    supervision = read_manifest(folder)["supervision"]
    if supervision == "none" or supervision[REVIEW_OF] is None:
        return frozenset()
    file = Path(supervision["file"])
    if not file.is_file():
        raise DataError(
            f"{file} is missing, which names the reviewed labels that went into {folder}", fix="put it back"
        )
    ids = frozenset(str(row.values["id"]) for row in iter_rows(str(file)))
    if len(ids) != supervision["labels"]:
        raise DataError(
            f"{file} holds {len(ids)} labels, {supervision['labels']} went into {folder}", fix="put back the old file"
        )
    return ids
