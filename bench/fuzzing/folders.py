"""Run folders that somebody has edited, and what reads them."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from elicitor import export as exporting
from elicitor.audit import audit
from elicitor.config import build_config
from elicitor.control import pending, state_of
from elicitor.evaluation import evaluate
from elicitor.files import hold
from elicitor.follow import follow
from elicitor.labelling import load_run, run
from elicitor.report import gather, page_data
from elicitor.review import Reviewer
from elicitor.runs import LOCK, read_manifest
from elicitor.train.folder import PROGRESS
from fuzzing.group import Check, Group, edited, spoilt, values

COMMON = ["manifest.json", "events.jsonl", "checkpoint.json", "config.yaml", "control.json", "review.jsonl"]
FILES = {
    "finished": [*COMMON, "metrics.json", "labels.jsonl", "eval-test.json", "audit.json"],
    "begun": COMMON,
    "trained": ["training.yaml", "training.json", PROGRESS],
}
ACTIONS = ["report", "load", "export", "audit", "review", "watch", "resume", "eval", "state"]


RESULT = {
    "losses": [{"step": 1, "loss": 0.75}, {"step": 2, "loss": 0.5}],
    "label_counts": {"negative": 3, "positive": 7},
    "steps": 2,
    "seconds": 1.5,
}


class _EnoughError(Exception):
    pass


def settings(folder: Path) -> dict[str, Any]:
    return {"data": str(folder / "x.jsonl"), "task": "sentiment", "model": "fake"}


def make(folder: Path) -> dict[str, Path]:
    """A finished run with all that may stand beside it, and one that was stopped in the middle."""
    rows = [{"id": f"e{i}", "text": f"text {i}", "label": "positive" if i % 3 else "negative"} for i in range(10)]
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    held = [{**row, "id": f"t{k}", "text": f"held out {k}"} for k, row in enumerate(rows[:4])]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    config = build_config(flags=settings(folder))
    finished = run(config, folder / "finished").path
    evaluate(finished, folder / "test.jsonl", seeds=(0,), conditions=("zero_shot", "found"))
    audit(finished, orders=2, permutations=20)
    Reviewer(finished).mark("e1", "right")

    steps = iter(range(6))

    def stop(_: Any) -> None:
        if next(steps, None) is None:
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        run(config, folder / "begun", observer=stop)
    trained = folder / "trained"
    trained.mkdir()
    (trained / "training.yaml").write_text("kind: sft\nmodel: bundled\nrows: 10\nseed: 0\n")
    (trained / "training.json").write_text(json.dumps(RESULT))
    (trained / PROGRESS).write_text('{"step": 2, "steps": 2, "loss": 0.5}')
    for name in ("finished", "begun"):
        (folder / name / "control.json").write_text('{"action": "pause"}\n')
        (folder / name / "review.jsonl").touch()
    return {name: folder / name for name in FILES}


_CONTENTS: dict[tuple[str, str], bytes] = {}


def prepare() -> None:
    """Make both runs once, in a folder that goes again."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        for kind, path in make(Path(place)).items():
            for name in FILES[kind]:
                _CONTENTS[kind, name] = (path / name).read_bytes().replace(place.encode(), b"@HERE@")


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, str, bytes | None, str]:
    """Kind of run, a file of it with its new content (None: gone), and who reads it then."""
    if not _CONTENTS:
        prepare()
    kind = draw(st.sampled_from(sorted(FILES)))
    name = draw(st.sampled_from(FILES[kind]))
    action = draw(st.sampled_from(["report", "watch", "state"] if kind == "trained" else ACTIONS))
    before = _CONTENTS[kind, name]
    if draw(st.integers(0, 30)) == 0:
        return kind, name, None, action
    if draw(st.booleans()) or not before.strip() or name.endswith(".yaml"):
        return kind, name, draw(spoilt(st.just(before))), action
    if name.endswith(".json"):
        return kind, name, json.dumps(draw(edited(json.loads(before)))).encode(), action
    lines = before.splitlines(keepends=True)
    at = draw(st.integers(0, len(lines) - 1))
    lines[at] = json.dumps(draw(edited(json.loads(lines[at])))).encode() + b"\n"
    if draw(st.integers(0, 9)) == 0:
        lines[at] = json.dumps(draw(values)).encode() + b"\n"
    return kind, name, b"".join(lines), action


@contextlib.contextmanager
def folders(place: Path) -> Iterator[Check]:
    """A run folder with one file changed, read by one of the commands."""
    made = make(place)
    work = place / "work"

    def check(given: tuple[str, str, bytes | None, str]) -> None:
        kind, name, content, action = given
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(place / "out", ignore_errors=True)
        shutil.copytree(made[kind], work)
        if content is None:
            (work / name).unlink()
        else:
            (work / name).write_bytes(content.replace(b"@HERE@", str(place).encode()))
        if name == "control.json":
            with hold(work / LOCK):
                assert state_of(work) in ("running", "paused", "stopping")
                pending(work)
        read(work, action, place)

    yield check


def read(work: Path, action: str, place: Path) -> None:
    """Do what one command does; what it accepts must be of the task."""
    match action:
        case "report":
            views = gather([work])
            json.dumps(page_data(views), allow_nan=False, ensure_ascii=False).encode()
            assert len(views.runs) + len(views.trainings) == 1
        case "load":
            for found in load_run(work).labels:
                assert isinstance(found.id, str)
                assert 0 <= found.confidence <= 1
        case "export":
            done = exporting.export(work, place / "out", format="dataset")
            rows = [json.loads(line) for line in (done.folder / "train.jsonl").read_text().splitlines()]
            assert len({row["example_id"] for row in rows}) == len(rows) == done.rows
            assert {row["found_label"] for row in rows} <= {"negative", "positive"}
        case "audit":
            assert audit(work, orders=2, permutations=20).n_examples == 10
        case "review":
            review = Reviewer(work).review()
            json.dumps(review.to_json(), allow_nan=False)
            assert set(review.proposed) <= set(review.labels)
        case "watch":
            json.dumps(follow(work).look(), allow_nan=False)
        case "resume":
            before = read_manifest(work)["identity"]
            resumed = run(build_config(flags=settings(place)), work, resume=True)
            assert before == read_manifest(work)["identity"]
            assert sorted(found.id for found in resumed.labels) == sorted(f"e{i}" for i in range(10))
            assert {found.label for found in resumed.labels} <= {"negative", "positive"}
        case "eval":
            result = evaluate(work, place / "test.jsonl", seeds=(0,), conditions=("found",))
            share = result.rows[0].raw.value
            assert share is not None
            assert 0 <= share <= 1
        case "state":
            assert state_of(work) in ("finished", "idle")


FOLDER_GROUPS = {"folder": Group(damaged(), folders, weight=4.0)}
