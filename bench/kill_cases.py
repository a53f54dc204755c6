"""The commands that bench/kills.py interrupts: what they start from, how they go on, and what must be equal in the end."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kill_faults import DISK, KILLS, OUTSIDE, WORKER, run_forked

CHANGING = {
    "seconds",
    "event_bytes",
    "crc32",
    "tokens_computed",
    "tokens_reused",
    "prompts",
    "resumed_at_step",
    "git",
    "train_rate",
}
"""What a restart may change: times, and what is computed once more."""
N, N_TEST = 10, 6


@dataclass(frozen=True, slots=True)
class Case:
    """One command to interrupt.

    Attributes:
        name: What the table calls it.
        group: ``search``, ``evaluate``, ``train``, ``convert`` or ``ray``.
        words: The command, which is also the one that goes on.
        kinds: Faults that are tried.
        imports: Modules that the warm process imports first.
        any_order: Whether batches may finish in any order, and so stand in the file of events.
    """

    name: str
    group: str
    words: str
    kinds: tuple[str, ...] = KILLS + DISK
    imports: tuple[str, ...] = ()
    any_order: bool = False


_LABEL = "label reviews.jsonl --task sentiment --output-dir out --resume"
_SMALL = "-o out --resume --set batch_size=4 --set checkpoint_steps=2 --set lora_r=4"
_SEARCH = ("elicitor.labelling", "elicitor.progress", "elicitor.console", "elicitor.dry_run", "scipy.special")
_EVALUATE = (
    *_SEARCH,
    *(f"elicitor.{name}" for name in ("ablation", "audit", "export", "report.page", "suite", "tables")),
    *("jinja2", "matplotlib.backends.backend_agg", "matplotlib.figure", "sklearn.linear_model"),
)
_SPREAD = (WORKER, OUTSIDE, "SIGKILL", "SIGTERM", "Ctrl-C")
"""What strikes a command with workers, of which the driver alone writes; Ray has handlers of its own for two of the signals."""
_TRAIN = (
    *(*_SEARCH, "torch", "transformers", "trl", "peft"),
    *(f"elicitor.train.{name}" for name in ("compare", "fine_tuned", "iterate", "reward", "rl", "sft")),
)


def cases(model: str, tiny: str, *, cluster: str) -> list[Case]:
    """Every command that writes.

    Args:
        model: Model of searches and evaluations.
        tiny: Folder of a model that is trained.
        cluster: Address of a Ray cluster.
    """
    label = f"{_LABEL} --model {model}"
    if model == "bundled":
        # Without what it keeps in memory a resumed search computes the very same numbers; see docs/run-folder.md.
        label += " --set backend.cache_gb=0 --limit 6"
        searches = {name: f"--search {name}" for name in ("icm", "ensemble", "bootstrap")}
        searches["icm"] += " --set icm.iterations=8"
        imports = (*_SEARCH, "torch", "transformers")
        return [Case(f"label {name}", "search", f"{label} {more}", KILLS, imports) for name, more in searches.items()]
    searches = {
        "icm": "--search icm --set icm.iterations=24",
        "icm, batches": "--search icm --batch-size 4",
        "icm, sampled": "--search icm --set icm.utility=sampled --batch-size 5",
        "icm, score cache": "--search icm --set backend.score_cache=true --set icm.iterations=12",
        "gibbs, batches": "--search gibbs --batch-size 5",
        "bootstrap, batches": "--search bootstrap --batch-size 3",
        "ensemble, batches": "--search ensemble --batch-size 3",
    }
    evaluations = {
        "eval": "eval run --test test.jsonl --seeds 0,1",
        "eval --suite": "eval --suite suite.yaml -o out --resume",
        "audit --seeds": "audit run --seeds 1,2 --abstain",
        "ablate": f"ablate reviews.jsonl --task sentiment --model {model} -o out --resume --init golden,wrong --seeds 0,1 "
        "--set icm.iterations=6",
        "report": "report run",
        "export": "export run -o out --force",
    }
    trainings = {
        "train sft": f"train sft run --model {tiny} --epochs 2 {_SMALL}",
        "train compare": f"train compare run --test test.jsonl --model {tiny} --epochs 1 --conditions untrained,found "
        f"--gold reviews.jsonl {_SMALL}",
        "train iterate": f"train iterate reviews.jsonl --task sentiment --model {tiny} --epochs 1 --batch-size 5 "
        f"--label-set ensemble.rounds=1 {_SMALL}",
        "train reward": f"train reward pairs.jsonl --labels golden --rest rest.jsonl --model {tiny} --epochs 1 {_SMALL}",
        "train rl": f"train rl prompts.jsonl --reward tiny_models:letters --model {tiny} --steps 3 --max-new-tokens 4 "
        f"--group-size 2 --beta 0 --set test_prompts=2 --set eval_prompts=2 {_SMALL}",
        "label scalable": f"{_LABEL} --model {tiny} --search scalable --set scalable.folds=2 --set scalable.train.epochs=1 "
        "--set scalable.train.lora_r=4",
    }
    convert = f"{_LABEL} --model gguf:tiny.gguf --limit 3 --search bootstrap --set backend.cache_gb=0"
    # Slow enough that workers are at work when they are killed.
    spread = (
        f"{_LABEL} --model fake:noise=1.5,delay=0.2 --search bootstrap --batch-size 2 --ray {cluster} --ray-workers 2"
    )
    return [
        *(Case(f"label {name}", "search", f"{label} {more}", imports=_SEARCH) for name, more in searches.items()),
        *(Case(name, "evaluate", words, imports=_EVALUATE) for name, words in evaluations.items()),
        Case("label --ray", "ray", spread, _SPREAD, (*_SEARCH, "elicitor.distributed", "ray"), any_order=True),
        *(Case(name, "train", words, imports=_TRAIN) for name, words in trainings.items()),
        Case("GGUF conversion", "convert", convert, imports=(*_SEARCH, "torch", "transformers", "gguf")),
    ]


def warm_up(case: Case) -> None:
    """Import what a command needs, so that a forked child need not."""
    for name in case.imports:
        importlib.import_module(name)


def prepare_inputs(home: Path) -> None:
    """Write what the commands read: rows with gold, a finished run of them, a suite; made-up texts throughout."""
    _write(home / "reviews.jsonl", _reviews(range(N)))
    _write(home / "test.jsonl", _reviews(range(100, 100 + N_TEST)))
    suite = {
        "model": "fake:noise=1.5",
        "conditions": ["zero_shot", "found", "golden"],
        "seeds": [0, 1],
        "label": {"search": "icm", "icm": {"iterations": 6}},
        "tasks": [{"name": "a", "task": "sentiment", "data": "reviews.jsonl", "test": "test.jsonl"}],
    }
    (home / "suite.yaml").write_text(json.dumps(suite))
    _write(home / "pairs.jsonl", _pairs(range(8)))
    _write(home / "rest.jsonl", _pairs(range(8, 20)))
    _write(home / "prompts.jsonl", [{"prompt": f"Tell me of thing {i}."} for i in range(12)])
    begun = run_forked("label reviews.jsonl --task sentiment --model fake:noise=1.5 --output-dir run", home, None)
    assert begun.code == 0, begun


def _write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _reviews(numbers: range) -> list[dict[str, Any]]:
    return [
        {"id": f"r{i}", "text": f"The {i}th thing was {'good' if i % 3 else 'bad'}.", "label": i * 7 % 11 % 2}
        for i in numbers
    ]


def _pairs(numbers: range) -> list[dict[str, Any]]:
    return [
        {"id": f"p{i}", "question": f"what {i}", "choice": f"zz {i}", "choice_2": f"xy {i}", "label": i % 2}
        for i in numbers
    ]


def outcome(place: Path, home: Path, *, any_order: bool = False) -> dict[str, Any]:
    """What a finished command has left, without what a restart may change.

    Args:
        place: Its working folder.
        home: What that began as; files that are there and unchanged do not count.
        any_order: Take events in the order of their batches; those of one batch stand as they were written.

    Returns:
        Content or digest of each file, by path.
    """
    left: dict[str, Any] = {}
    for file in sorted(place.rglob("*")):
        name = str(file.relative_to(place))
        if not file.is_file() or file.name == ".lock" or name.startswith("cache/scores") or is_leftover(file):
            continue
        if file.name == "progress.json" or file.suffix == ".lock":
            continue
        before = home / name
        if before.is_file() and before.read_bytes() == file.read_bytes():
            continue
        left[name] = _READERS.get(file.suffix, _digest)(file)
        if any_order and file.name == "events.jsonl":
            left[name].sort(key=lambda event: event["batch"])
    return left


def broken_files(place: Path) -> list[str]:
    """Files that a reader would find half written, after a command has been struck; none is the promise.

    What begins with a dot and ends with ``.tmp`` nobody reads, ``events.jsonl`` is read as far as the checkpoint says, and
    what a training keeps for itself is checked when it goes on.
    """
    broken = []
    for file in place.rglob("*.json*"):
        if is_leftover(file) or not {"checkpoints", "saved.tmp"}.isdisjoint(file.parts) or "rl" in file.name:
            continue
        lines = file.read_text(encoding="utf-8").splitlines() if file.suffix == ".jsonl" else [file.read_text()]
        if file.name in APPENDED:
            lines = lines[: APPENDED[file.name](file, lines)]
        try:
            for line in lines:
                json.loads(line)
        except ValueError:
            broken.append(str(file.relative_to(place)))
    return broken


def _counted(file: Path, lines: Sequence[str]) -> int:
    """Lines of events within the checkpoint."""
    checkpoint = file.with_name("checkpoint.json")
    length = json.loads(checkpoint.read_text())["event_bytes"] if checkpoint.exists() else 0
    return file.read_bytes()[:length].count(b"\n")


def _all_but_last(file: Path, lines: Sequence[str]) -> int:
    return file.read_bytes().count(b"\n")


APPENDED: dict[str, Callable[[Path, Sequence[str]], int]] = {
    "events.jsonl": _counted,
    "relabelled.jsonl": _all_but_last,
    "curve.jsonl": _all_but_last,
    "rollouts.jsonl": _all_but_last,
}
"""Files that grow, and how many of their lines count."""


def is_leftover(file: Path) -> bool:
    """Whether a file is one that a kill has left and nobody reads."""
    return any(part.endswith(".tmp") or ".tmp-" in part for part in file.parts[-4:])


def _json(file: Path) -> Any:
    return _without(json.loads(file.read_text()))


def _json_lines(file: Path) -> Any:
    return [_without(json.loads(line)) for line in file.read_text().splitlines()]


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(item) for key, item in value.items() if key not in CHANGING}
    return [_without(item) for item in value] if isinstance(value, list) else value


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _ends(file: Path) -> bytes:
    """Beginning and end of a file whose middle holds times."""
    content = file.read_bytes()
    return content[:8] + content[-12:].strip()


def _words(file: Path) -> list[str]:
    """Text without its numbers, among which are seconds and tokens."""
    return re.sub(r"[\d.,]+", "0", file.read_text()).split()


_READERS: dict[str, Callable[[Path], Any]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".html": _ends,
    ".png": _ends,
    ".md": _words,
    ".tex": _words,
    ".csv": _words,
}


def differences(left: Any, right: Any, where: str = "") -> list[str]:
    """Places at which two outcomes differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        found = [f"{where}/{key} is in one alone" for key in sorted(left.keys() ^ right.keys())]
        for key in sorted(left.keys() & right.keys()):
            found += differences(left[key], right[key], f"{where}/{key}")
        return found
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        return [
            one for k, (a, b) in enumerate(zip(left, right, strict=True)) for one in differences(a, b, f"{where}/{k}")
        ]
    return [] if left == right else [f"{where}: {str(left)[:80]} and {str(right)[:80]}"]


def copy_of(home: Path, place: Path) -> Path:
    """A new working folder like the first."""
    shutil.rmtree(place, ignore_errors=True)
    return shutil.copytree(home, place)
