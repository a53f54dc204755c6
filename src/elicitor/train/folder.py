"""The folder of a training: what it was made from, checkpoints while it runs, the model and its figures at the end.

``training.yaml`` is written first and ``training.json`` last, so its presence says that the training has finished. Checkpoints
are those of the Hugging Face Trainer, at most two at a time, and go when it ends. Their weights are safetensors; the
optimizer's state is a torch file, which transformers reads back with ``weights_only=True``, so nothing in it can run code.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from elicitor.control import controlled
from elicitor.errors import ConfigError, DataError, ResumeMismatchError
from elicitor.files import hold, make_folder, read_json, stray_entry, write_atomic, write_json, writing
from elicitor.manifest import package_versions
from elicitor.notices import warn
from elicitor.runs import LOCK
from elicitor.yaml_files import read_mapping

MADE_FROM = "training.yaml"
RESULT = "training.json"
PROGRESS = "progress.json"
"""Step, steps and newest loss, while it runs."""
CHECKPOINTS = "checkpoints"
BEST = "best.json"
"""Step and reward of the best policy so far."""
TOKENS = "pairs.arrow"
"""Tokens of a reward model's pairs."""
SAVED = "saved.tmp"
"""A model on its way into the folder."""
_TOGETHER = "processes"
SCRATCH = (CHECKPOINTS, BEST, "best-*", TOKENS, "pairs.truncated", SAVED)
"""What a training keeps only to go on with, as patterns."""
REWARD_MODEL = "reward_model.json"
"""Written last: it marks a folder as a whole reward model."""
INITIAL, FINAL = "initial", "final"
"""Reward models in the folder of ``train reward``, in the order in which they are made."""


def is_main_process() -> bool:
    """Whether this process may write: under ``accelerate launch`` or ``torchrun`` only the first one does."""
    return os.environ.get("RANK", "0") == "0"


def processes() -> int:
    """Number of processes that train together, as ``accelerate launch`` and ``torchrun`` say."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def refuse_several_processes(what: str) -> None:
    """Refuse to run under a launcher of several processes.

    Args:
        what: Command that does more than train.

    Raises:
        ConfigError: If there are several.
    """
    if processes() > 1:
        raise ConfigError(
            f"{what} runs in one process, not in {processes()}",
            fix="start it without a launcher; 'elicitor train sft' can be launched",
        )


@contextmanager
def training_folder(
    path: Path, made_from: Mapping[str, Any], *, resume: bool, what: str = "training"
) -> Iterator[Path]:
    """Hold a training's folder, or that of anything else that is resumed like one, while it runs.

    Args:
        path: The folder; new or empty unless ``resume``.
        made_from: Settings, and hashes of rows and model: what a resumed training must share. JSON values. Versions of
            packages and the number of processes are written beside them; a resume with other versions is said to the user.
        resume: Go on with what is there, if it has begun.
        what: What it is called in messages.

    Yields:
        The folder.

    Raises:
        ConfigError: If it holds anything else or cannot be made.
        DiskError: If the disk is full or the folder read-only, now or while it is held.
        ResumeMismatchError: If the training there was made from something else, or by another number of processes.
        RunLockedError: If another process is training there.
    """
    if not is_main_process():
        yield path
        return
    begun = (path / MADE_FROM).is_file()
    if begun and not resume:
        raise ConfigError(f"{path} holds a {what}", fix="add --resume to go on with it, or choose another --output-dir")
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file", fix="choose another --output-dir")
    if not begun and (strange := stray_entry(path, known=(LOCK,))):
        raise ConfigError(f"{path} is not empty, it holds {strange!r}", fix="choose another --output-dir")
    if begun:
        _compare(path, made_from, what=what)
    try:
        make_folder(path)
        lock = hold(path / LOCK)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", fix="choose another --output-dir") from error
    # Trainers write their own checkpoints, and each library says in its own way that it cannot.
    with lock, writing(path), controlled(path):
        if not begun:
            values = {**made_from, _TOGETHER: processes(), "versions": package_versions()}
            write_atomic(path / MADE_FROM, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
        if is_finished(path):
            # A kill may have come between the result and the end of clearing up.
            drop_scratch(path)
        yield path


def is_finished(path: Path) -> bool:
    """Whether a training in this folder has ended."""
    return (path / RESULT).is_file()


def finish(path: Path, result: Mapping[str, Any]) -> None:
    """Mark a training as finished, then drop its checkpoints.

    Args:
        path: The folder, which holds the whole model by now.
        result: Its figures, JSON values.
    """
    write_json(path / RESULT, result)
    drop_scratch(path)


def drop_scratch(path: Path) -> None:
    """Remove what is only needed to go on, from a folder whose model is whole, and from reward models in it."""
    for place in (path, path / INITIAL, path / FINAL):
        for entry in [entry for pattern in SCRATCH for entry in place.glob(pattern)]:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def read_result(path: Path) -> dict[str, Any]:
    """Figures of a finished training.

    Raises:
        DataError: If it has not finished.
    """
    return read_json(path / RESULT)


def reward_folder(path: Path) -> Path | None:
    """The reward model of a folder: the folder itself, or the last one that a training in it has finished; None without."""
    places = (path, path / FINAL, path / INITIAL)
    return next((place for place in places if (place / REWARD_MODEL).is_file()), None)


def last_checkpoint(path: Path) -> Path | None:
    """The newest whole checkpoint; parts of later ones, left by a kill, are removed.

    The Trainer writes a checkpoint's ``trainer_state.json`` last, so one that can be read ends a whole checkpoint.
    """
    found = sorted((path / CHECKPOINTS).glob("checkpoint-*"), key=lambda folder: -int(folder.name.rpartition("-")[2]))
    for folder in found:
        try:
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            if is_main_process():
                shutil.rmtree(folder)
            continue
        return folder
    return None


def place_beside(path: Path) -> Path:
    """An empty folder in a training's folder, in which a model is written before `adopt` moves it into its place."""
    saved = path / SAVED
    # A kill may have left parts of files there, under names of the library's own.
    shutil.rmtree(saved, ignore_errors=True)
    saved.mkdir(parents=True)
    return saved


def adopt(path: Path, saved: Path, *, last: str) -> None:
    """Move a saved model's files into the training's folder, the one that makes it a model last.

    Args:
        path: The training's folder.
        saved: Folder with the files, on the same disk; it is removed.
        last: Name of the file that readers look for.
    """
    for file in sorted(saved.iterdir(), key=lambda file: file.name == last):
        file.replace(path / file.name)
    saved.rmdir()


def _compare(path: Path, made_from: Mapping[str, Any], *, what: str) -> None:
    before = read_mapping(path / MADE_FROM, error=DataError, hint="start again in another --output-dir")
    # JSON and back, so that tuples and lists compare equal.
    now = json.loads(json.dumps(made_from))
    versions = before.pop("versions", None)
    together = before.pop(_TOGETHER, None)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise ResumeMismatchError(
                f"the {what} was made with {name} = {before.get(name)!r}, now it is {now.get(name)!r}",
                fix="give the same again, or choose another --output-dir",
            )
    if is_finished(path):
        return
    # Steps are counted in what all processes learn from at once: others would leave rows out, or see some twice.
    if together is not None and together != processes():
        raise ResumeMismatchError(
            f"the {what} was begun by {together} processes together, now there are {processes()}",
            fix="start as many, or choose another --output-dir",
        )
    if isinstance(versions, dict):
        _warn_of_other_versions(versions, f"the {what} in {path}")


def _warn_of_other_versions(before: Mapping[str, Any], what: str) -> None:
    now = package_versions()
    others = [f"{name} {before[name]}, now {now.get(name, 'none')}" for name in before if before[name] != now.get(name)]
    if others:
        warn(f"{what} was begun with {'; '.join(others)}: its result may differ from that of one run through")
