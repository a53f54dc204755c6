import json
import re
from pathlib import Path

import pytest

from elicitor.backends.fake import FakeBackend, concept_label
from elicitor.errors import BackendError, ConfigError, ResumeMismatchError
from elicitor.readers import read_rows
from elicitor.suite import read_suite, run_suite
from elicitor.suite_cost import suite_cost

TASK = {
    "name": "texts",
    "template": "{text}:",
    "labels": ["no", "yes"],
    "group": "g",
    "constraint": "equivalent",
    "key": "k",
}


def rows(numbers):
    return [
        {"id": f"e{i}", "text": f"text {i}", "g": f"g{i // 3}", "k": str(i), "label": concept_label(f"text {i}:", 2)}
        for i in numbers
    ]


def write(folder, name, content):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(folder / name)


@pytest.fixture
def suite_file(tmp_path):
    def make(**changes):
        data = write(tmp_path, "data.jsonl", rows(range(60)))
        test = write(tmp_path, "test.jsonl", rows(range(300, 330)))
        values = {
            "model": "fake:prior=1,noise=1",
            "conditions": ["zero_shot", "random", "bootstrap_consistent", "found", "golden"],
            "limit": 24,
            "label": {"search": "icm"},
            "tasks": [{"task": TASK, "data": data}, {"name": "other", "task": TASK, "data": data, "test": test}],
        }
        (tmp_path / "suite.yaml").write_text(json.dumps(values | changes))
        return tmp_path / "suite.yaml"

    return make


def test_a_suite_writes_tables_and_a_figure(suite_file, tmp_path):
    suite = run_suite(read_suite(suite_file()), tmp_path / "out", command="elicitor eval --suite suite.yaml")
    assert suite.names == ["texts", "other"]
    assert [result.rows[0].raw.n for result in suite.evaluations] == [36, 30]
    assert {p.suffix for p in (tmp_path / "out").glob("results.*")} == {".md", ".csv", ".tex", ".json", ".png"}
    page = (tmp_path / "out" / "results.md").read_text()
    assert "elicitor eval --suite suite.yaml" in page
    assert re.search(r"^\d{4}-\d\d-\d\d; model fake", page, re.M)
    assert (tmp_path / "out" / "results.png").read_bytes().startswith(b"\x89PNG")
    for result in suite.evaluations:
        assert result.label_accuracy.estimate.seeds == 3
        assert {row.condition: row.raw.value for row in result.rows}["golden"] > 0.7


class Failing(FakeBackend):
    left = 0

    def score(self, prompts, **options):
        Failing.left -= 1
        if Failing.left < 0:
            raise BackendError("the power went")
        return super().score(prompts, **options)


def figures(folder):
    """All figures of the results; times differ from run to run, and so does what a resumed search computes again."""
    text = (folder / "results.json").read_text()
    return re.sub(r'"(seconds|tokens_computed|tokens_reused)": [\d.e-]+', "", text)


def test_a_suite_that_broke_goes_on_where_it_was(suite_file, tmp_path):
    config = read_suite(suite_file())
    whole = run_suite(config, tmp_path / "whole", backend=FakeBackend(prior=1, noise=1))
    calls = []
    for attempt in range(100):
        Failing.left = 60
        try:
            run_suite(config, tmp_path / "out", resume=attempt > 0, backend=Failing(prior=1, noise=1))
            break
        except BackendError:
            calls.append(sorted(p.name for p in (tmp_path / "out").glob("*/eval-test/*.json")))
    assert len(calls) > 3
    assert calls[-1] == sorted({*calls[-1], *calls[0]})
    assert figures(tmp_path / "out") == figures(tmp_path / "whole")
    assert whole.evaluations[0].rows[0].raw.n == 36


def test_a_folder_with_another_suite_is_refused(suite_file, tmp_path):
    config = read_suite(suite_file())
    run_suite(config, tmp_path / "out")
    with pytest.raises(ConfigError, match="holds a suite; add --resume"):
        run_suite(config, tmp_path / "out")
    with pytest.raises(ResumeMismatchError, match="made with seeds"):
        run_suite(read_suite(suite_file(seeds=[0, 1])), tmp_path / "out", resume=True)
    with pytest.raises(ResumeMismatchError, match="made with tasks"):
        run_suite(read_suite(suite_file(), only=["other"]), tmp_path / "out", resume=True)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="not an empty folder"):
        run_suite(config, tmp_path / "used")


def test_tasks_conditions_and_seeds_are_added_to_a_suite(suite_file, tmp_path):
    few = {"conditions": ["zero_shot", "found"], "seeds": [1]}
    run_suite(read_suite(suite_file(**few), only=["other"]), tmp_path / "out")
    kept = tmp_path / "out" / "other" / "seed-1" / "labels.jsonl"
    before = kept.stat().st_mtime_ns
    config = read_suite(suite_file())
    run_suite(config, tmp_path / "out", resume=True)
    run_suite(config, tmp_path / "whole")
    assert kept.stat().st_mtime_ns == before
    assert figures(tmp_path / "out") == figures(tmp_path / "whole")


def test_limits_are_upper_bounds(suite_file, tmp_path):
    values = json.loads(Path(suite_file()).read_text())
    values["tasks"][0]["limit"] = 12
    suite = run_suite(read_suite(suite_file(tasks=values["tasks"]), limit=18, test_limit=9), tmp_path / "out")
    assert [len(read_rows(str(tmp_path / "out" / name / "label.jsonl"))) for name in suite.names] == [12, 18]
    assert [result.rows[0].raw.n for result in suite.evaluations] == [9, 9]


def test_a_task_may_have_conditions_and_settings_of_its_own(suite_file, tmp_path):
    values = json.loads(Path(suite_file()).read_text())
    values["tasks"][1] |= {"conditions": ["zero_shot", "found"], "label": {"objective": {"alpha": 20}}}
    file = suite_file(tasks=values["tasks"], label={"objective": {"calibration": "batch"}})
    suite = run_suite(read_suite(file), tmp_path / "out")
    assert [len(result.rows) for result in suite.evaluations] == [5, 2]
    settings = (tmp_path / "out" / "other" / "seed-0" / "config.yaml").read_text()
    assert "alpha: 20" in settings
    assert "calibration: batch" in settings


@pytest.mark.parametrize("label", [{"model": "fake:gain=9"}, {"backend": {"dtype": "bfloat16"}}])
def test_a_task_with_a_model_of_its_own_is_refused_before_anything_is_written(suite_file, tmp_path, label):
    config = read_suite(suite_file())
    last = config.tasks[-1].model_copy(update={"label": label})
    config = config.model_copy(update={"tasks": (*config.tasks[:-1], last)})
    with pytest.raises(ConfigError, match="names another model, or other settings of it"):
        run_suite(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tasks": []}, "tasks"),
        ({"models": "fake"}, "models"),
        ({"conditions": ["gold"]}, "unknown condition 'gold'"),
        ({"seeds": [1, 1]}, "different seeds"),
        ({"seeds": [0, -1]}, "different seeds"),
        ({"tasks": [{"task": "sentiment", "data": "x"}, {"task": "sentiment", "data": "y"}]}, "called 'sentiment'"),
        ({"tasks": [{"task": "sentiment"}]}, "tasks.0.data"),
    ],
)
def test_a_wrong_suite_file_is_named(suite_file, changes, problem):
    with pytest.raises(ConfigError, match=problem):
        read_suite(suite_file(**changes))


def test_a_choice_of_no_task_is_refused(suite_file):
    with pytest.raises(ConfigError, match="no task is chosen"):
        read_suite(suite_file(), only=[])


def test_some_tasks_of_a_suite_run_alone(suite_file, tmp_path):
    whole = read_suite(suite_file())
    alone = read_suite(suite_file(), only=["other"])
    assert alone.tasks == whole.tasks[1:]
    assert read_suite(suite_file(), only=["other", "texts"]) == whole
    with pytest.raises(ConfigError, match="has no task 'othr'") as refusal:
        read_suite(suite_file(), only=["texts", "othr"])
    assert refusal.value.fix == "its tasks are texts, other"
    with pytest.raises(ConfigError, match="has no task ''"):
        read_suite(suite_file(), only=[""])


def test_settings_of_a_task_are_those_of_label(suite_file, tmp_path):
    config = read_suite(suite_file(label={"search": "bootstrap", "objective": {"alpha": 30}}))
    run_suite(config, tmp_path / "out")
    kept = (tmp_path / "out" / "texts" / "seed-1" / "config.yaml").read_text()
    assert "search: bootstrap" in kept
    assert "alpha: 30" in kept
    with pytest.raises(ConfigError, match="unknown setting 'serch'"):
        run_suite(read_suite(suite_file(label={"serch": "icm"})), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_cost_is_counted_before_anything_runs(suite_file, tmp_path):
    config = read_suite(suite_file())
    costs = suite_cost(config, backend=FakeBackend(prior=1, noise=1))
    suite = run_suite(config, tmp_path / "out", backend=FakeBackend(prior=1, noise=1))
    for cost, result in zip(costs, suite.evaluations, strict=True):
        assert cost.n_label == 24
        spent = sum(row.cost.tokens_computed for row in result.rows)
        assert cost.condition_tokens[0] <= spent <= cost.condition_tokens[1]
        asked = sum(row.cost.prompts for row in result.rows)
        assert cost.condition_prompts[0] <= asked <= cost.condition_prompts[1]
        assert cost.search_prompts[0] <= result.search_cost.prompts <= cost.search_prompts[1]
        assert cost.search_tokens[0] <= result.search_cost.tokens_computed <= cost.search_tokens[1]


@pytest.mark.parametrize("condition", ["bootstrap", "bootstrap_confident", "bootstrap_consistent_confident", "golden"])
def test_every_condition_costs_what_was_counted(suite_file, tmp_path, condition):
    data = [row | {"text": row["text"] + " and more" * (k % 4)} for k, row in enumerate(rows(range(60)))]
    file = write(tmp_path, "longer.jsonl", data)
    config = read_suite(
        suite_file(conditions=[condition], tasks=[{"task": TASK, "data": file}], seeds=[0, 1], max_shots=9)
    )
    (cost,) = suite_cost(config, backend=FakeBackend(prior=1, noise=1))
    (result,) = run_suite(config, tmp_path / "out", backend=FakeBackend(prior=1, noise=1)).evaluations
    (row,) = [row for row in result.rows if row.condition == condition]
    assert cost.condition_prompts[0] <= row.cost.prompts <= cost.condition_prompts[1]
    assert cost.condition_tokens[0] <= row.cost.tokens_computed <= cost.condition_tokens[1]


def test_rows_as_they_were_are_what_is_labelled(suite_file, tmp_path):
    run_suite(read_suite(suite_file()), tmp_path / "out")
    original = {row["id"]: row for row in rows(range(60))}
    for row in read_rows(str(tmp_path / "out" / "texts" / "label.jsonl")):
        assert row.values == original[row.values["id"]]
