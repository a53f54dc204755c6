"""The audit's failures with a real model, on the sentences that ship with the package."""

import json

import numpy as np
import pytest

from elicitor import load_backend, quickstart
from elicitor.audit import audit
from elicitor.config import build_config
from elicitor.files import write_rows
from elicitor.labelling import run
from elicitor.tasks.poems import generate_poems

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def backend():
    return load_backend("bundled")


@pytest.fixture(scope="module")
def healthy(backend, tmp_path_factory):
    """A run that finds the concept, made once."""
    settings = quickstart.settings().model_copy(update={"limit": 24})
    return run(settings, tmp_path_factory.mktemp("run") / "healthy", backend=backend)


def relabelled(done, folder, change):
    """A copy of a run with other labels, as if a search had ended there."""
    folder.mkdir()
    for file in done.path.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    write_rows(folder / "labels.jsonl", [{**row, "label": change(row)} for row in rows])
    return folder


def checks(result):
    return {check.name: check for check in result.checks}


def test_a_healthy_run_does_not_fail(healthy, backend):
    result = audit(healthy, backend=backend, orders=3)
    assert result.verdict in ("ok", "look"), result
    found = checks(result)
    for name in ("class balance", "orientation", "margins", "trivial features"):
        assert found[name].verdict == "ok", found[name]


def test_a_search_that_collapses_fails(backend, shared_data, tmp_path):
    """Without calibration the bundled model ends in one label for all film reviews."""
    flags = {"data": str(shared_data / "movie_review_sentiment.jsonl"), "task": "sentiment", "search": "icm"}
    done = run(build_config(flags={**flags, "limit": 32}), tmp_path / "run", backend=backend)
    balance = checks(audit(done, backend=backend, orders=2))["class balance"]
    assert balance.verdict == "failed"
    assert balance.figures["largest_share"] == 1.0


def test_a_swapped_concept_fails(healthy, backend, tmp_path):
    swap = {"past": "future", "future": "past"}
    result = audit(relabelled(healthy, tmp_path / "swapped", lambda row: swap[row["label"]]), backend=backend, orders=2)
    assert checks(result)["orientation"].verdict == "failed", checks(result)["orientation"]


def test_a_length_concept_fails(healthy, backend, tmp_path):
    done = healthy
    texts = {row["id"]: row["text"] for row in map(json.loads, quickstart.DATA.read_text().splitlines())}
    lengths = sorted(len(texts[item.id]) for item in done.labels)
    median = lengths[len(lengths) // 2]
    folder = relabelled(done, tmp_path / "long", lambda row: "past" if len(texts[row["id"]]) < median else "future")
    salience = checks(audit(folder, backend=backend, orders=2))["trivial features"]
    assert salience.verdict == "failed"
    assert salience.figures["feature"] == "characters of text"


def test_a_taste_that_nobody_told_it_is_not_ok(backend, tmp_path):
    """Which poem is better is beyond knowing: whatever is found hangs on the order of demonstrations or on the seed."""
    source = tmp_path / "poems.jsonl"
    rows = generate_poems(8, rng=np.random.default_rng(0))
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = {"data": str(source), "task": "poems", "search": "bootstrap", "objective.calibration": "batch"}
    done = run(build_config(flags=flags), tmp_path / "run", backend=backend)
    result = audit(done, backend=backend, orders=3, seeds=[1])
    found = checks(result)
    assert result.verdict == "failed", result
    assert "failed" in (found["context"].verdict, found["seeds"].verdict, found["margins"].verdict)
