import json
import pickle
from itertools import islice

import pytest

import elicitor
from elicitor.backends.fake import FakeBackend
from elicitor.batch_search import search_batch
from elicitor.config import build_config
from elicitor.errors import ConfigError, DataError, ResumeMismatchError
from elicitor.labelling import ModelFacts, prepare, run
from elicitor.pooled import run_on_pool
from elicitor.prompts import PromptEncoder

TASK = {"template": "{text}:", "labels": ["no", "yes"], "group": "g", "key": "k", "constraint": "negation"}


def write(folder, rows, name="x.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pairs(n):
    return [
        {"id": f"e{i}", "text": f"text {i}", "g": i // 2, "k": i % 2, "label": "yes" if i % 2 else "no"}
        for i in range(n)
    ]


def config(source, **flags):
    return build_config(flags={"data": source, "task": TASK, "model": "fake", "search": "icm", **flags})


def events(path, *, without=("seconds",)):
    rows = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in without} for row in rows]


def test_five_lines_do_what_the_command_does(tmp_path):
    data = write(tmp_path, pairs(20))
    icm = elicitor.label(data, task=TASK, model="fake", output_dir=tmp_path / "icm", search="icm")
    assert icm.metrics["cost"]["tokens_computed"] * 2 < icm.metrics["cost"]["in_order_tokens_same_events"]
    done = elicitor.label(data, task=TASK, model="fake", output_dir=tmp_path / "run")
    assert [item.id for item in done.labels] == [f"e{i}" for i in range(20)]
    assert [item.group_id for item in done.labels] == [str(i // 2) for i in range(20)]
    assert done.metrics["cost"]["tokens_computed"] < done.metrics["cost"]["in_order_tokens_same_events"]
    assert elicitor.load_run(str(tmp_path / "run")).labels == elicitor.load_run(tmp_path / "run").labels == done.labels
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        ".lock",
        "config.yaml",
        "manifest.json",
        "events.jsonl",
        "checkpoint.json",
        "labels.jsonl",
        "metrics.json",
    }


@pytest.mark.parametrize("search", ["icm", "bootstrap", "ensemble"])
def test_gold_moves_nothing_event_by_event(tmp_path, search):
    """Search has no way to gold: other gold, or none, and every event stays the same."""
    rows = pairs(16)
    flipped = [{**row, "label": "no" if row["label"] == "yes" else "yes"} for row in rows]
    bare = [{key: value for key, value in row.items() if key != "label"} for row in rows]
    seen = []
    for k, content in enumerate((rows, flipped, bare)):
        path = tmp_path / f"run{k}"
        run(config(write(tmp_path, content), search=search), path)
        seen.append((events(path), (path / "labels.jsonl").read_bytes()))
    assert seen[0] == seen[1] == seen[2]
    assert "gold" not in seen[0][1].decode()


def test_the_seed_decides_everything(tmp_path):
    source = write(tmp_path, pairs(16))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(config(source, seed=seed), tmp_path / name)
    assert events(tmp_path / "a") == events(tmp_path / "b") != events(tmp_path / "c")


def test_batches_are_whole_groups_searched_on_their_own(tmp_path):
    source = write(tmp_path, pairs(30))
    done = run(config(source, batch_size=8), tmp_path / "run")
    by_group = {}
    for item in done.labels:
        by_group.setdefault(item.group_id, set()).add(item.batch)
    assert all(len(batches) == 1 for batches in by_group.values())
    assert len(done.metrics["batches"]) == 4
    assert [item.id for item in done.labels] == [f"e{i}" for i in range(30)]
    assert not list((tmp_path / "run").glob("labels-*"))


class Stop(Exception):
    pass


def stop_after(steps):
    def observe(step):
        observe.seen += 1
        if observe.seen == steps:
            raise Stop

    observe.seen = 0
    return observe


@pytest.mark.parametrize("search", ["icm", "bootstrap", "ensemble"])
def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path, search):
    settings = config(write(tmp_path, pairs(24)), search=search, batch_size=12, **{"bootstrap.start": "random"})
    whole = run(settings, tmp_path / "whole")
    # What had been kept in memory is computed once more after a restart; nothing else differs.
    costs = ("seconds", "tokens_computed", "tokens_reused")
    for k, steps in enumerate((1, 2, 3, 5, 8)):
        path = tmp_path / f"run{k}"
        try:
            run(settings, path, observer=stop_after(steps), backend=FakeBackend())
        except Stop:
            pass
        else:
            assert steps > len(events(path))
        again = run(settings, path, resume=True, backend=FakeBackend())
        assert again.labels == whole.labels
        assert events(path, without=costs) == events(tmp_path / "whole", without=costs)
        assert again.metrics["batches"] == whole.metrics["batches"]


@pytest.mark.parametrize(("before", "now"), [(1000, 2000), (2000, 1000)])
def test_a_window_that_divides_the_data_otherwise_is_refused(tmp_path, before, now):
    rows = [{"id": f"r{k}", "text": f"film number {k} is quite a film"} for k in range(60)]
    settings = build_config(flags={"data": write(tmp_path, rows), "task": "sentiment", "model": "fake"})

    class Served(FakeBackend):
        """A server that was started with some window; its fingerprint does not tell."""

        fingerprint = "served"

    with pytest.raises(Stop):
        run(settings, tmp_path / "run", backend=Served(context=before), observer=stop_after(3))
    held = (tmp_path / "run" / "checkpoint.json").read_bytes()
    with pytest.raises(ResumeMismatchError, match=r"batches .* serve the model with the window that it had"):
        run(settings, tmp_path / "run", backend=Served(context=now), resume=True)
    assert (tmp_path / "run" / "checkpoint.json").read_bytes() == held
    again = run(settings, tmp_path / "run", backend=Served(context=before + 1), resume=True)
    assert [found.id for found in again.labels] == [row["id"] for row in rows]
    # What is finished is not divided anew.
    assert run(settings, tmp_path / "run", backend=Served(context=now), resume=True).labels == again.labels


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    settings = config(write(tmp_path, pairs(10)))
    run(settings, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    run(settings, tmp_path / "run", resume=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_class_prior_must_fit_the_labels(tmp_path):
    source = write(tmp_path, pairs(6))
    with pytest.raises(ConfigError, match="3 shares for 2 labels"):
        prepare(config(source, **{"objective.calibration": "batch", "objective.class_prior": [0.2, 0.3, 0.5]}))


@pytest.mark.parametrize("plan", ["tree", "in_order", "folds", "sampled"])
def test_every_plan_labels_everything(tmp_path, plan):
    done = run(config(write(tmp_path, pairs(12)), **{"plan.kind": plan, "plan.max_demonstrations": 5}), tmp_path / plan)
    assert len(done.labels) == 12


def test_the_tree_needs_a_third_of_in_order_even_with_nothing_kept(tmp_path):
    source = write(tmp_path, pairs(64))
    settings = {"icm.num_seed_examples": 56, "icm.iterations": 12}
    done = run(config(source, model="fake:reusable=0", **settings), tmp_path / "run")
    cost = done.metrics["cost"]
    assert cost["in_order_tokens_same_events"] > 3 * cost["tokens_computed"]


def test_a_model_that_has_done_the_same_before_counts_the_whole_cost_again(tmp_path):
    """Else what a run costs would depend on what the process did before it."""
    backend = FakeBackend()
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(12)))
    settings = build_config(flags={"data": str(tmp_path / "x.jsonl"), "task": "sentiment", "model": "fake"})
    first, second = (run(settings, tmp_path / name, backend=backend).metrics["cost"] for name in "ab")
    assert first["tokens_computed"] == second["tokens_computed"] > 0


class BackwardsPool:
    """A pool as `run_on_pool` sees it, whose batches finish in reverse order, and which is killed after some of them."""

    def __init__(self, *, survives=100):
        self.backend = FakeBackend()
        self.survives = survives

    def load(self, config, *, pieces, on_stage=None):
        return ModelFacts.of(self.backend)

    def sizes(self, inputs):
        return PromptEncoder(self.backend.tokenizer, inputs.task, inputs.dataset).sizes()

    def search(self, jobs):
        for job in list(jobs)[::-1][: self.survives]:
            events = []
            sent = pickle.loads(pickle.dumps(job))
            result = search_batch(sent, self.backend, on_step=lambda step, seen=events: seen.extend(step.events))
            result.last.events[:0] = events
            yield result
        if self.survives < 100:
            raise Stop


def results(path):
    metrics = json.loads((path / "metrics.json").read_text())
    metrics["cost"].pop("seconds")
    return (path / "labels.jsonl").read_bytes(), metrics


@pytest.mark.parametrize("search", ["icm", "bootstrap", "ensemble"])
def test_batches_may_finish_in_any_order(tmp_path, search):
    settings = config(write(tmp_path, pairs(40)), search=search, batch_size=10, **{"objective.reduce": "sum"})
    run(settings, tmp_path / "whole")
    parts = []
    run_on_pool([(settings, tmp_path / "pool")], BackwardsPool(), on_part=lambda *part: parts.append(part))
    assert results(tmp_path / "pool") == results(tmp_path / "whole")
    assert parts == [(k, 4) for k in range(1, 5)]
    # Whatever the order of the batches, each one's own events are the same, in the same order.
    for batch in range(4):
        told, alone = ([e for e in events(tmp_path / name) if e["batch"] == batch] for name in ("pool", "whole"))
        assert told == alone
    assert not list((tmp_path / "pool").glob("labels-*"))


def test_a_run_goes_on_with_or_without_a_pool(tmp_path):
    """First a process that dies amid a batch, then a pool that dies after two batches, then one process to the end."""
    settings = config(write(tmp_path, pairs(60)), batch_size=12)
    run(settings, tmp_path / "whole")
    steps = sum(event["batch"] == 0 for event in events(tmp_path / "whole"))
    with pytest.raises(Stop):
        run(settings, tmp_path / "run", observer=stop_after(steps + 5))
    checkpoint = json.loads((tmp_path / "run" / "checkpoint.json").read_text())
    assert (checkpoint["done"], checkpoint["batch"]) == ([[0, 0]], 1)
    with pytest.raises(Stop):
        run_on_pool([(settings, tmp_path / "run")], BackwardsPool(survives=2), resume=True)
    checkpoint = json.loads((tmp_path / "run" / "checkpoint.json").read_text())
    assert (checkpoint["done"], checkpoint["batch"]) == ([[0, 0], [3, 4]], 1)
    run(settings, tmp_path / "run", resume=True)
    costs = ("seconds", "tokens_computed", "tokens_reused")
    assert (tmp_path / "run" / "labels.jsonl").read_bytes() == (tmp_path / "whole" / "labels.jsonl").read_bytes()
    for batch in range(5):
        mine, alone = (
            [e for e in events(tmp_path / name, without=costs) if e["batch"] == batch] for name in ("run", "whole")
        )
        assert mine == alone


def test_what_a_batch_costs_does_not_depend_on_those_before_it(tmp_path):
    """Else workers would report other costs than one process. Equal batches would make one another free."""
    rows = [{"id": f"e{i}", "text": f"text {i % 10}", "g": i, "k": 0} for i in range(20)]
    settings = config(write(tmp_path, rows), batch_size=10)
    workload = prepare(settings)
    backend = FakeBackend()
    jobs = [workload.inputs.job(batch, positions) for batch, positions in enumerate(workload.batches)]
    together = [search_batch(job, backend, on_step=lambda step: None).meter for job in [*jobs, jobs[0]]]
    assert together[0].cost.tokens_computed == together[2].cost.tokens_computed > 0


def test_the_data_is_read_from_disk_a_batch_at_a_time(tmp_path, monkeypatch):
    source = write(tmp_path, pairs(300))
    inputs = prepare(config(source, batch_size=10)).inputs
    read = []
    original = type(inputs.dataset.examples).__getitem__
    monkeypatch.setattr(
        type(inputs.dataset.examples), "__getitem__", lambda self, k: read.append(k) or original(self, k)
    )
    (tmp_path / "x.jsonl").unlink()
    job = inputs.job(0, range(0, 300, 30))
    assert read == list(range(0, 300, 30))
    assert [example.id for example in islice(job.dataset.examples, 2)] == ["e0", "e30"]


def test_runs_on_one_pool_do_not_mix(tmp_path):
    source = write(tmp_path, pairs(24))
    several = [(config(source, seed=seed, batch_size=12), tmp_path / f"pool{seed}") for seed in (0, 1)]
    done = run_on_pool(several, BackwardsPool())
    for settings, path in several:
        run(settings, tmp_path / f"alone{settings.seed}")
        assert results(path) == results(tmp_path / f"alone{settings.seed}")
    assert [item.path for item in done] == [path for _, path in several]


def test_start_labels_name_examples_as_the_data_does(tmp_path):
    source = write(tmp_path, [row | {"id": k} for k, row in enumerate(pairs(6))])
    start = write(tmp_path, [{"id": 0, "label": "no"}, {"id": 3, "label": "yes"}], "start.jsonl")
    made = prepare(config(source, **{"icm.start_labels": start}))
    assert made.inputs.start_labels == {"0": 0, "3": 1}
    numbers = {"template": "{text}:", "labels": ["0", "1"]}
    counted = write(tmp_path, [{"id": 0, "label": 1}, {"id": 3, "label": "0"}], "counted.jsonl")
    texts = write(tmp_path, [{"id": k, "text": f"text {k}"} for k in range(6)], "texts.jsonl")
    made = prepare(config(texts, task=numbers, **{"icm.start_labels": counted}))
    assert made.inputs.start_labels == {"0": 1, "3": 0}
    strange = write(tmp_path, [{"id": [0], "label": "no"}], "strange.jsonl")
    with pytest.raises(DataError, match=r"strange\.jsonl line 1: column 'id' holds list, not text"):
        prepare(config(source, **{"icm.start_labels": strange}))
    for row, said in (
        ({"id": 0, "label": "yes"}, "id '0' has a label already"),
        ({"id": 1, "label": True}, "column 'label': True is none of no, yes"),
        ({"id": 1}, "column 'label': None is none of no, yes"),
    ):
        wrong = write(tmp_path, [{"id": 0, "label": "no"}, row], "wrong.jsonl")
        with pytest.raises(DataError, match=rf"wrong\.jsonl line 2.*{said}"):
            prepare(config(source, **{"icm.start_labels": wrong}))
