"""Answers on disk: always those of the model, whatever happens to the file."""

import multiprocessing
import sqlite3
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from asked import prompts

from elicitor.backends.fake import FakeBackend
from elicitor.backends.score_cache import cached
from elicitor.backends.score_store import ScoreStore


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
    monkeypatch.setattr("elicitor.backends.score_store.time.time", lambda: clock[0])
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
from elicitor.backends.score_cache import cached
from elicitor.backends.score_store import ScoreStore
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
