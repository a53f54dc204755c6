"""Scores on disk: always those of the model, whatever happens to the file."""

import json
import multiprocessing
import sqlite3
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import elicitor
from elicitor.backends.base import GenerationBackend, NextTokenBackend, Prompt, StatesBackend
from elicitor.backends.fake import FakeBackend
from elicitor.backends.score_cache import ScoreStore, cached
from elicitor.models import load_backend

CANDIDATES = ((48,), (49, 50))


def prompts(n, start=0):
    return [Prompt((tuple(f"text {i}:".encode()),), CANDIDATES) for i in range(start, start + n)]


@pytest.fixture
def store(tmp_path):
    made = ScoreStore(tmp_path / "scores.sqlite", max_bytes=10_000_000)
    yield made
    made.close()


def test_an_answer_is_computed_once_and_costs_nothing_then(store):
    alone = FakeBackend().score(prompts(5))
    model = cached(FakeBackend(), store)
    first = model.score(prompts(5))
    assert first.cost.tokens_computed == alone.cost.tokens_computed
    seen = []
    again = cached(FakeBackend(), store).score(prompts(5), on_progress=seen.append)
    np.testing.assert_array_equal(again.log_probs, alone.log_probs)
    assert seen == []
    # Seven bytes a prompt, and the first byte of the longer label.
    assert (again.cost.prompts, again.cost.tokens_computed, again.cost.tokens_reused) == (5, 0, 5 * 8)
    mixed = model.score(prompts(6)[::-1])
    np.testing.assert_array_equal(mixed.log_probs, FakeBackend().score(prompts(6)).log_probs[::-1])
    assert mixed.cost.tokens_computed == 8


segment = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple)
questions = st.builds(
    lambda a, b, swap: Prompt((a + b,), CANDIDATES[::-1] if swap else CANDIDATES), segment, segment, st.booleans()
)


@given(st.lists(st.lists(questions, min_size=1, max_size=6), min_size=1, max_size=5), st.sampled_from([1, 30_000]))
def test_cached_scores_are_the_models(tmp_path_factory, calls, max_bytes):
    store = ScoreStore(tmp_path_factory.mktemp("cache") / "s", max_bytes=max_bytes)
    model = cached(FakeBackend(), store)
    for call in calls:
        np.testing.assert_array_equal(model.score(call).log_probs, FakeBackend().score(call).log_probs)
    store.close()


def test_another_model_label_or_prompt_is_another_question(store):
    one = Prompt(((1, 2), (3,)), ((4,), (5, 6)))
    cached(FakeBackend(), store).score([one])
    for backend, prompt in (
        (FakeBackend(gain=3), one),
        (FakeBackend(), Prompt(((1, 2, 3, 4),), one.candidates)),
        (FakeBackend(), Prompt(((1, 2), (3,)), ((5, 6), (4,)))),
        (FakeBackend(), Prompt(((1, 2), (3,)), ((4, 5), (6,)))),
    ):
        assert cached(backend, store).score([prompt]).cost.tokens_computed > 0
    assert cached(FakeBackend(), store).score([one]).cost.tokens_computed == 0


def test_a_wrapped_model_can_do_what_it_could(store):
    class Full(FakeBackend):
        def generate(self, prompt, **options):
            return prompt, options["stop"]

        def hidden_states(self, sequences, *, on_progress=None):
            return sequences

    plain, full = cached(FakeBackend(), store), cached(Full(), store)
    protocols = (NextTokenBackend, GenerationBackend, StatesBackend)
    assert [isinstance(plain, kind) for kind in protocols] == [True, False, False]
    assert [isinstance(full, kind) for kind in protocols] == [True, True, True]
    drawn = full.generate((1,), max_new_tokens=1, temperature=1.0, stop=["x"], rngs=[])
    assert drawn == ((1,), ["x"])
    assert full.hidden_states([(1,)]) == [(1,)]
    assert plain.fingerprint == FakeBackend().fingerprint
    assert plain.next_tokens([(1, 2)], top=3).top_ids.shape == (1, 3)


def test_a_flipped_bit_is_computed_again(store, tmp_path):
    model = cached(FakeBackend(), store)
    wanted = model.score(prompts(3)).log_probs
    with sqlite3.connect(tmp_path / "scores.sqlite") as database:
        key, value = database.execute("SELECT key, value FROM scores LIMIT 1").fetchone()
        broken = bytes([value[0] ^ 1]) + value[1:]
        database.execute("UPDATE scores SET value = ? WHERE key = ?", (broken, key))
    database.close()
    with pytest.warns(UserWarning, match="1 damaged scores"):
        again = model.score(prompts(3))
    np.testing.assert_array_equal(again.log_probs, wanted)
    assert again.cost.tokens_computed == 8
    assert model.score(prompts(3)).cost.tokens_computed == 0


@pytest.mark.parametrize("damage", ["garbage", "middle", "truncated", "schema"])
def test_a_broken_file_begins_anew(tmp_path, damage):
    file = tmp_path / "scores.sqlite"
    store = ScoreStore(file, max_bytes=10_000_000)
    wanted = cached(FakeBackend(), store).score(prompts(300)).log_probs
    store.close()
    content = file.read_bytes()
    if damage == "schema":
        file.unlink()
        database = sqlite3.connect(file)
        database.execute("CREATE TABLE scores (other TEXT, used INTEGER)")
        database.close()
    else:
        noise = np.random.default_rng(0).bytes(len(content))
        file.write_bytes(
            {
                "garbage": noise,
                "middle": content[:4096] + noise[4096:],
                "truncated": content[: len(content) // 2],
            }[damage]
        )
    store = ScoreStore(file, max_bytes=10_000_000)
    model = cached(FakeBackend(), store)
    with pytest.warns(UserWarning, match="damaged"):
        again = model.score(prompts(300))
    np.testing.assert_array_equal(again.log_probs, wanted)
    np.testing.assert_array_equal(model.score(prompts(300)).log_probs, wanted)
    store.close()


def test_a_file_that_cannot_be_used_costs_computation_only(tmp_path):
    store = ScoreStore(tmp_path / "folder", max_bytes=10_000_000)
    (tmp_path / "folder").mkdir()
    model = cached(FakeBackend(), store)
    with pytest.warns(UserWarning, match="cannot be used now"):
        found = model.score(prompts(3))
    np.testing.assert_array_equal(found.log_probs, FakeBackend().score(prompts(3)).log_probs)


def test_the_bound_holds_and_the_least_recently_used_go(tmp_path, monkeypatch):
    clock = [1000]
    monkeypatch.setattr("elicitor.backends.score_cache.time.time", lambda: clock[0])
    file = tmp_path / "scores.sqlite"
    store = ScoreStore(file, max_bytes=200_000)
    model = cached(FakeBackend(), store)
    for start in range(0, 6000, 200):
        model.score(prompts(200, start))
        clock[0] += 100
        # What is asked again and again stays.
        assert model.score(prompts(50)).cost.tokens_computed == 0
        clock[0] += 100
    assert 100 < store.info().answers < 3000
    store.close()
    assert file.stat().st_size <= 200_000
    assert model.score(prompts(50, 5950)).cost.tokens_computed == 0
    assert model.score(prompts(50, 300)).cost.tokens_computed > 0
    store.close()


WRITER = """
import sys
from pathlib import Path
from elicitor.backends.base import Prompt
from elicitor.backends.fake import FakeBackend
from elicitor.backends.score_cache import ScoreStore, cached
model = cached(FakeBackend(), ScoreStore(Path(sys.argv[1]), max_bytes=10_000_000))
for start in range(0, 400, 10):
    asked = [Prompt((tuple(f"text {i}:".encode()),), ((48,), (49, 50))) for i in range(start, start + 20)]
    model.score(asked)
"""


def open_new_files(folder, together, seed):
    """Open one new file after the other, each within the same two milliseconds as other processes do."""
    warnings.simplefilter("error")
    late = np.random.default_rng(seed)
    for number in range(200):
        store = ScoreStore(folder / str(number), max_bytes=10_000_000)
        together.wait(60)
        time.sleep(late.uniform(0, 0.002))
        assert store.get([b"key"], size=2) == {}
        store.close()


def test_a_new_file_is_opened_by_many_processes_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(4)
    openers = [context.Process(target=open_new_files, args=(tmp_path, together, seed)) for seed in range(4)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join()
    assert [opener.exitcode for opener in openers] == [0] * 4


def test_processes_share_one_file(tmp_path):
    file = tmp_path / "scores.sqlite"
    start = [sys.executable, "-W", "error", "-c", WRITER, str(file)]
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda _: subprocess.run(start, capture_output=True, text=True), range(2)):
            assert done.returncode == 0, done.stderr
    store = ScoreStore(file, max_bytes=10_000_000)
    assert store.info().answers == 410
    found = cached(FakeBackend(), store).score(prompts(410))
    assert found.cost.tokens_computed == 0
    np.testing.assert_array_equal(found.log_probs, FakeBackend().score(prompts(410)).log_probs)
    store.close()


@pytest.mark.parametrize("plan", ["tree", "sampled"])
def test_a_search_decides_alike_with_and_without(tmp_path, monkeypatch, plan):
    monkeypatch.setenv("ELICITOR_CACHE", str(tmp_path / "cache"))
    rows = [{"id": str(i), "text": f"thing {i}"} for i in range(12)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def label(name, keep):
        return elicitor.label(
            tmp_path / "x.jsonl",
            task="sentiment",
            model="fake",
            output_dir=tmp_path / name,
            plan={"kind": plan},
            backend={"score_cache": keep},
        )

    runs = [label("without", False), label("first", True), label("again", True)]
    assert runs[0].labels == runs[1].labels == runs[2].labels
    costs = [run.metrics["cost"] for run in runs]
    assert costs[2]["tokens_computed"] == 0 < costs[1]["tokens_computed"] <= costs[0]["tokens_computed"]
    assert len({cost["tokens_computed"] + cost["tokens_reused"] for cost in costs}) == 1


def test_cache_commands(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from elicitor.cli import app

    monkeypatch.setenv("ELICITOR_CACHE", str(tmp_path))
    runner = CliRunner()
    assert json.loads(runner.invoke(app, ["cache", "info", "--json"]).stdout)["answers"] == 0
    load_backend("fake", score_cache=True).score(prompts(7))
    info = json.loads(runner.invoke(app, ["cache", "info", "--json"]).stdout)
    assert info["answers"] == 7
    assert info["bytes"] > 0
    assert runner.invoke(app, ["cache", "clear"]).stdout.startswith("7 scores dropped")
    assert json.loads(runner.invoke(app, ["cache", "info", "--json"]).stdout)["answers"] == 0
    assert load_backend("fake", score_cache=True).score(prompts(7)).cost.tokens_computed > 0
