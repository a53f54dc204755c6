"""One model, in this process and behind ``serve-hf``: the same scores, the same labels, the same decisions."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from processes import running

from elicitor.backends.fake import FakeBackend
from elicitor.config import build_config
from elicitor.data import Assignment
from elicitor.labelling import prepare, run
from elicitor.models import load_backend
from elicitor.objective import Meter

pytest.importorskip("httpx")
pytest.importorskip("starlette")

WORDS = {
    "one token": {"negative": " no", "positive": " yes"},
    "several tokens": {"negative": " not at all good", "positive": " not bad"},
}


@pytest.fixture
def here_and_there(serve, tiny_model, request):
    """The same model twice: in this process, and behind a server of ours."""

    def make(kind, words):
        if kind == "fake":
            model = FakeBackend(verbalizers=tuple(words.values()))
            return model, load_backend(f"openai:fake@{serve(model).base_url}/v1")
        model = load_backend(str(tiny_model), dtype="float32")
        served = load_backend(str(tiny_model), dtype="float32")
        return model, load_backend(f"openai:{served.name}@{serve(served).base_url}/v1")

    return make


def settings(folder, words, *, n=14, **flags):
    rows = [{"id": f"e{i}", "text": f"thing {i} was {'good' if i % 3 else 'bad'}"} for i in range(n)]
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"template": "Review: {text}\nSentiment:", "labels": words}
    return build_config(flags={"data": str(folder / "x.jsonl"), "task": task, "model": "fake", **flags})


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("kind", ["fake", "hf"])
@pytest.mark.parametrize("plan", ["tree", "in_order", "folds", "sampled"])
def test_the_same_prompts_get_the_same_scores(here_and_there, tmp_path, kind, words, plan):
    utilities = []
    for backend in here_and_there(kind, words):
        problem = prepare(settings(tmp_path, words, **{"plan.kind": plan}), backend=backend).problem(0, meter=Meter())
        labels = Assignment(tuple(i % 2 for i in range(14)))
        utilities.append(problem.utility(labels, rng=np.random.default_rng(0)))
    np.testing.assert_allclose(utilities[0].log_probs, utilities[1].log_probs, atol=1e-4)
    assert utilities[0].total == pytest.approx(utilities[1].total, abs=50 * 1e-4)


@pytest.mark.parametrize("search", ["icm", "gibbs", "bootstrap", "ensemble"])
@pytest.mark.parametrize("kind", ["fake", "hf"])
def test_the_same_seed_makes_the_same_decisions(here_and_there, tmp_path, kind, search):
    words = WORDS["one token"]
    config = settings(tmp_path, words, search=search, seed=3, **{"objective.calibration": "batch"})
    events, labels = [], []
    for name, backend in zip(("here", "there"), here_and_there(kind, words), strict=True):
        done = run(config, tmp_path / name, backend=backend)
        labels.append([(item.id, item.label) for item in done.labels])
        lines = (tmp_path / name / "events.jsonl").read_text().splitlines()
        kept = ("kind", "iteration", "labels", "accepted", "n_labelled", "inconsistency")
        events.append([{key: event[key] for key in kept if key in event} for event in map(json.loads, lines)])
    assert labels[0] == labels[1]
    assert events[0] == events[1]


def test_texts_drawn_there_are_repeated_by_the_same_seed(here_and_there):
    _, there = here_and_there("hf", WORDS["one token"])
    prompt = there.tokenizer.encode("Review: thing 1 was")

    def draw(*seeds):
        rngs = [np.random.default_rng(seed) for seed in seeds]
        return there.generate(prompt, max_new_tokens=8, temperature=1.0, stop=["zzz"], rngs=rngs)

    made = draw(0, 1, 2)
    assert made.texts == draw(0, 1, 2).texts == draw(2, 1, 0).texts[::-1]
    assert len(set(made.texts)) > 1
    assert all(0 < length <= 8 for length in made.lengths)
    assert made.cost.prompts == 3


def test_the_server_reuses_most_of_what_a_search_asks(serve, tmp_path):
    words = WORDS["one token"]
    client = serve(FakeBackend(verbalizers=tuple(words.values())))
    run(settings(tmp_path, words, n=24), tmp_path / "run", backend=load_backend(f"openai:fake@{client.base_url}/v1"))
    counters = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if line[0] != "#")
    asked, reused = (float(counters[f"elicitor_prompt_tokens{which}_total"]) for which in ("", "_reused"))
    assert reused / asked >= 0.8


def test_a_server_killed_in_mid_run_comes_back_and_the_labels_are_the_same(tmp_path):
    """The real commands: the client waits for its server, and what it had kept is computed again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rows = [{"id": f"e{i}", "text": f"text {i}"} for i in range(10)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "t.yaml").write_text("template: '{text}:'\nlabels: {no: ' no', yes: ' yes'}\n")

    def elicitor(*words):
        return [sys.executable, "-m", "elicitor", *map(str, words)]

    def serving():
        start = elicitor("serve-hf", "--model", "fake:delay=0.1", "--port", port)
        process = subprocess.Popen(start, stderr=subprocess.PIPE, text=True)
        while "ready" not in (line := process.stderr.readline()):
            assert line, "the server ended before it was ready"
        process.stderr.close()
        return process

    def label(model, output):
        words = ("--task", tmp_path / "t.yaml", "--search", "icm", "--model", model, "-o", output)
        return elicitor("label", tmp_path / "x.jsonl", *words)

    subprocess.run(label("fake:delay=0", tmp_path / "here"), check=True, capture_output=True)
    server = serving()
    try:
        start = label(f"openai:fake@http://127.0.0.1:{port}/v1", tmp_path / "there")
        with running(start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as client:
            events = tmp_path / "there" / "events.jsonl"
            while not events.exists() or events.read_bytes().count(b"\n") < 5:
                assert client.poll() is None, client.stderr.read()
                time.sleep(0.02)
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
            time.sleep(0.5)
            server = serving()
            _, err = client.communicate()
            assert client.returncode == 0, err
    finally:
        server.kill()
        server.wait()
    labels = [
        [
            (row["id"], row["label"])
            for row in map(json.loads, (tmp_path / side / "labels.jsonl").read_text().splitlines())
        ]
        for side in ("here", "there")
    ]
    assert labels[0] == labels[1]


@pytest.mark.slow
def test_the_bundled_model_labels_reviews_alike(serve, shared_data, tmp_path):
    flags = {"data": str(shared_data / "movie_review_sentiment.jsonl"), "task": "sentiment", "limit": 12}
    model = load_backend("bundled")
    here = run(build_config(flags=flags), tmp_path / "here", backend=model)
    client = serve(model)
    there = run(
        build_config(flags=flags), tmp_path / "there", backend=load_backend(f"openai:bundled@{client.base_url}/v1")
    )
    assert [item.label for item in there.labels] == [item.label for item in here.labels]
    np.testing.assert_allclose(
        [item.log_odds for item in there.labels], [item.log_odds for item in here.labels], atol=1e-3
    )
