"""Folders in, views out. The one reader behind ``report`` and ``plot``.

Gold is read for the page alone, from the file that the user names; what is in an evaluation was read by ``eval``.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from pydantic import TypeAdapter

from elicitor import ablation, suite
from elicitor.ablation import Ablation
from elicitor.audit import AUDIT, Audit
from elicitor.backends.base import OnStage
from elicitor.errors import ConfigError, DataError
from elicitor.evaluation import Evaluation
from elicitor.files import read_json, read_rows
from elicitor.metrics import Estimate
from elicitor.report.run_view import run_view
from elicitor.report.views import AblationView, Kind, NamedResult, TrainingView, Views
from elicitor.runs import has_run
from elicitor.shapes import TrainingResult, check, validated
from elicitor.train import compare
from elicitor.train.compare import TrainComparison
from elicitor.train.folder import CHECKPOINTS, MADE_FROM, RESULT, is_finished, read_result
from elicitor.train.rl_log import CURVE
from elicitor.yaml_files import read_mapping

EXAMPLES = 20_000
"""Examples of a run that a page holds at most by default."""
_T = TypeVar("_T")


def gather(
    folders: Sequence[str | Path],
    *,
    gold: str | Path | None = None,
    gold_column: str | None = None,
    examples: int = EXAMPLES,
    on_stage: OnStage | None = None,
) -> Views:
    """Read the folders of searches, suites, ablations and trainings.

    Args:
        folders: Folders of ``label``, ``eval --suite``, ``ablate`` and ``train``; a search may still be in work.
        gold: File with gold labels of the runs' examples, by id.
        gold_column: Its column, if not the task's.
        examples: Examples of a run that are kept at most; figures are always of all of them.
        on_stage: Called with what begins now.

    Returns:
        What a report shows, in the order given.

    Raises:
        ConfigError: If a folder is none of these.
        DataError: If something in one of them cannot be read, or gold does not fit.
    """
    if not folders:
        raise ConfigError("no folder was given", fix="give the --output-dir of an earlier 'elicitor label'")
    paths = [Path(folder) for folder in folders]
    names = _short_names(paths)
    views = Views(names)
    for path, name in zip(paths, names, strict=True):
        if on_stage:
            on_stage(f"reading {path}")
        if has_run(path):
            views.runs.append(
                run_view(
                    path,
                    name=name,
                    results=_evaluations(path, names=names, name=name),
                    audit=_read(Audit, path / AUDIT) if (path / AUDIT).exists() else None,
                    gold=None if gold is None else str(gold),
                    gold_column=gold_column,
                    examples=examples,
                )
            )
        elif (path / suite.SETTINGS).is_file():
            views.results.extend(_suite(path, name=name, alone=len(paths) == 1))
            if not (path / suite.RESULTS).with_suffix(".json").exists():
                views.notes.append(f"suite {name} has not finished: the tasks shown are those that have")
        elif (path / ablation.SETTINGS).is_file():
            views.ablations.append(AblationView(name, _read(Ablation, path / ablation.RESULT)))
        elif (path / compare.RESULT).is_file():
            views.results.append(NamedResult(name, _read(TrainComparison, path / compare.RESULT)))
        elif (path / MADE_FROM).is_file():
            views.trainings.append(_training(path, name=name))
        else:
            raise ConfigError(
                f"{path} is no folder of a search, suite, ablation or training",
                fix="give the --output-dir of 'elicitor label', 'eval --suite', 'ablate' or 'train'",
            )
    if gold is not None and not views.runs:
        raise ConfigError("--gold goes with a run folder", fix="leave it out; these folders hold their own accuracies")
    return views


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]  # noqa: PTH100 - links are names that users gave
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError("a folder was given twice", fix="give each folder once")


def _evaluations(path: Path, *, names: Sequence[str], name: str) -> list[NamedResult]:
    """Evaluations of a run, by the names of their test files."""
    found = sorted(path.glob("eval-*.json"))
    titles = [file.stem.removeprefix("eval-") for file in found]
    prefix = f"{name}, " if len(names) > 1 else ""
    return [NamedResult(prefix + title, _read(Evaluation, file)) for title, file in zip(titles, found, strict=True)]


def _suite(path: Path, *, name: str, alone: bool) -> list[NamedResult]:
    """Evaluations of a suite, all of them once it has finished."""
    whole = (path / suite.RESULTS).with_suffix(".json")
    if whole.exists():
        results = {task: _validated(Evaluation, values, whole) for task, values in read_json(whole).items()}
    else:
        results = {file.parent.name: _read(Evaluation, file) for file in sorted(path.glob("*/eval-test.json"))}
    return [NamedResult(task if alone else f"{name}, {task}", result) for task, result in results.items()]


def _training(path: Path, *, name: str) -> TrainingView:
    """A training that has finished or is in work."""
    made_from = read_mapping(path / MADE_FROM, error=DataError, hint="start again in another --output-dir")
    if made_from.get("kind") not in get_args(Kind):
        raise DataError(f"{path / MADE_FROM} does not say what was trained", fix="train again in another --output-dir")
    finished = is_finished(path)
    result = read_result(path) if finished else {}
    check(TrainingResult, result, place=str(path / RESULT))
    losses = [(int(row["step"]), float(row["loss"])) for row in result.get("losses") or _losses_so_far(path)]
    curve = result.get("curve") or (read_rows(path / CURVE) if (path / CURVE).exists() else [])
    shown = {
        key: value
        for key, value in {**made_from, **result}.items()
        if isinstance(value, (str, int, float)) and key not in ("kind", "weights", "base_weights", "data", "prompts")
    }
    counts = cast("dict[str, int]", result.get("label_counts") or {})
    return TrainingView(
        name=name,
        folder=str(path),
        finished=finished,
        kind=cast(Kind, made_from["kind"]),
        facts=shown | {f"rows labelled {label}": count for label, count in Counter(counts).items()},
        losses=losses,
        curve=curve,
        gain=_validated(Estimate, result["gain"], path) if result.get("gain") else None,
    )


def _losses_so_far(path: Path) -> list[dict[str, Any]]:
    """Losses of the newest checkpoint that can be read; one that is being written cannot yet."""
    states = (path / CHECKPOINTS).glob("checkpoint-*/trainer_state.json")
    for file in sorted(states, key=lambda file: -int(file.parent.name.rpartition("-")[2])):
        try:
            log = json.loads(file.read_bytes())["log_history"]
            return [{"step": int(entry["step"]), "loss": float(entry["loss"])} for entry in log if "loss" in entry]
        except (OSError, LookupError, OverflowError, RecursionError, TypeError, ValueError):
            continue
    return []


def _read(kind: type[_T], file: Path) -> _T:
    return _validated(kind, read_json(file), file)


def _validated(kind: type[_T], values: Any, file: Path) -> _T:
    """A dataclass from its JSON values."""
    return validated(TypeAdapter(kind), values, place=str(file))
