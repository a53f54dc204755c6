"""Scores from disk: always those of the model."""

import json

import numpy as np
import pytest
from asked import CANDIDATES, prompts
from hypothesis import given
from hypothesis import strategies as st

import elicitor
from elicitor.backends.base import GenerationBackend, NextTokenBackend, Prompt, StatesBackend
from elicitor.backends.fake import FakeBackend
from elicitor.backends.score_cache import cached
from elicitor.backends.score_store import ScoreStore
from elicitor.models import load_backend


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


def test_servers_that_tell_nothing_but_a_name_are_told_apart_by_their_place(store):
    class Served(FakeBackend):
        price_per_million = None

        def __init__(self, where):
            super().__init__()
            self.where = where

    one = Prompt(((1, 2), (3,)), ((4,), (5, 6)))
    costs = [
        cached(Served(where), store).score([one]).cost.tokens_computed
        for where in ("http://a/v1", "http://b/v1", "", "")
    ]
    assert [cost > 0 for cost in costs] == [True, True, True, False]
    assert cached(Served("http://a/v1"), store).score([one]).cost.tokens_computed == 0


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
