import json

import pytest

from elicitor import evaluate
from elicitor.backends.fake import concept_label
from elicitor.config import build_config
from elicitor.errors import ConfigError, DataError
from elicitor.labelling import run

TASK = {"template": "{text}:", "labels": ["no", "yes"]}


def rows(numbers, *, gold=True):
    made = [{"id": f"e{i}", "text": f"text {i}"} for i in numbers]
    return [{**row, "label": concept_label(f"{row['text']}:", 2)} for row in made] if gold else made


def write(folder, name, content):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(path)


@pytest.fixture
def labelled(tmp_path):
    def make(*, model="fake:prior=2", gold=True, **flags):
        source = write(tmp_path, "train.jsonl", rows(range(24), gold=gold))
        settings = build_config(flags={"data": source, "task": TASK, "model": model, **flags})
        return run(settings, tmp_path / "run")

    return make


def by_condition(result):
    return {row.condition: row for row in result.rows}


def test_in_a_world_with_a_concept_found_labels_reach_golden(labelled, tmp_path):
    done = labelled(model="fake:prior=1,noise=2.5")
    test = write(tmp_path, "test.jsonl", rows(range(100, 200)))
    result = evaluate(done, test)
    table = by_condition(result)
    assert list(table) == ["zero_shot", "random", "found", "golden"]
    assert table["golden"].raw.value > table["zero_shot"].raw.value + 0.1
    assert table["golden"].label_accuracy == 1.0
    assert table["random"].label_accuracy == pytest.approx(0.5, abs=0.25)
    assert table["zero_shot"].demonstrations == 0
    assert table["found"].demonstrations == 24
    truth = [concept_label(f"text {i}:", 2) for i in range(24)]
    right = sum(int(item.label == ["no", "yes"][gold]) for item, gold in zip(done.labels, truth, strict=True)) / 24
    assert result.label_accuracy.estimate.value == pytest.approx(right)
    assert result.label_accuracy.curves[0][-1][2] == pytest.approx(right)
    if right == 1.0:
        assert table["found"].gap_recovered.value == pytest.approx(1.0)
    assert (table["golden"].raw.n, table["golden"].raw.seeds) == (100, 3)
    assert table["golden"].raw.lower <= table["golden"].raw.value <= table["golden"].raw.upper
    written = json.loads((done.path / "eval-test.json").read_text())
    assert written["rows"][0]["condition"] == "zero_shot"


def test_test_examples_that_were_labelled_or_lack_gold_are_left_out(labelled, tmp_path):
    content = rows(range(20, 40))
    content[10].pop("label")
    result = evaluate(labelled(), write(tmp_path, "test.jsonl", content))
    assert by_condition(result)["found"].raw.n == 15
    assert "4 of 20 test examples left out: they are among the labelled examples" in result.notes
    assert "1 of 20 test examples left out: they have no gold label" in result.notes


def test_gold_may_come_from_a_file_of_its_own(labelled, tmp_path):
    done = labelled(gold=False)
    test = write(tmp_path, "test.jsonl", rows(range(100, 120)))
    with pytest.raises(DataError, match="no gold column 'label'"):
        evaluate(done, test)
    without = evaluate(done, test, conditions=["zero_shot", "found"])
    assert without.label_accuracy is None
    gold = [{"id": row["id"], "label": row["label"]} for row in rows(range(24))]
    result = evaluate(done, test, gold_data=write(tmp_path, "gold.jsonl", gold))
    assert result.label_accuracy.estimate.n == 24
    assert not any("no gold" in note for note in result.notes)
    half = evaluate(done, test, gold_data=write(tmp_path, "half.jsonl", gold[:12]))
    assert by_condition(half)["found"].demonstrations == 12
    assert "12 of 24 labelled examples have no gold: no condition demonstrates them" in half.notes
    others = write(tmp_path, "others.jsonl", [{**row, "id": f"x{i}"} for i, row in enumerate(gold)])
    with pytest.raises(DataError, match=r"others\.jsonl knows none of the labelled examples"):
        evaluate(done, test, gold_data=others)


def test_changed_data_is_noticed(labelled, tmp_path):
    done = labelled()
    write(tmp_path, "train.jsonl", rows(range(23)))
    with pytest.raises(DataError, match="the run labelled 24"):
        evaluate(done, write(tmp_path, "test.jsonl", rows(range(100, 110))))


def test_one_test_set_that_was_labelled_whole_is_refused(labelled, tmp_path):
    with pytest.raises(DataError, match="leaves no test example"):
        evaluate(labelled(), write(tmp_path, "test.jsonl", rows(range(5))))


def test_unknown_conditions_and_repeated_seeds_are_refused(labelled, tmp_path):
    done, test = labelled(), write(tmp_path, "test.jsonl", rows(range(100, 110)))
    with pytest.raises(ConfigError, match="unknown condition 'gold'"):
        evaluate(done, test, conditions=["gold"])
    for seeds in ([1, 1], [-1], [], [2**63]):
        with pytest.raises(ConfigError, match="different seeds"):
            evaluate(done, test, seeds=seeds)


def test_seeds_share_examples_and_order_across_conditions(labelled, tmp_path):
    """With the very same labels two conditions must give the very same scores."""
    done = labelled(model="fake:prior=9")
    truth = [["no", "yes"][concept_label(f"text {i}:", 2)] for i in range(24)]
    assert [item.label for item in done.labels] == truth
    table = by_condition(evaluate(done, write(tmp_path, "test.jsonl", rows(range(100, 140)))))
    assert table["found"].raw == table["golden"].raw
    assert table["found"].calibrated == table["golden"].calibrated


def test_noised_gold_is_as_accurate_as_the_found_labels(labelled, tmp_path):
    done = labelled(model="fake:prior=1,noise=2.5")
    test = write(tmp_path, "test.jsonl", rows(range(100, 140)))
    table = by_condition(evaluate(done, test, conditions=["zero_shot", "found", "noised_gold"]))
    assert list(table) == ["zero_shot", "found", "noised_gold"]
    assert table["noised_gold"].label_accuracy == pytest.approx(table["found"].label_accuracy)
    assert table["noised_gold"].demonstrations == 24


def test_several_runs_stand_for_the_seeds_and_their_spread_is_in_the_interval(labelled, tmp_path):
    source = write(tmp_path, "train.jsonl", rows(range(24)))
    runs = []
    for seed in range(3):
        settings = build_config(flags={"data": source, "task": TASK, "model": "fake:prior=0.2,noise=3", "seed": seed})
        runs.append(run(settings, tmp_path / f"run-{seed}"))
    test = write(tmp_path, "test.jsonl", rows(range(100, 140)))
    result = evaluate(runs, test)
    assert result.label_accuracy.estimate.seeds == 3
    assert len(result.label_accuracy.curves) == 3
    assert result.search_cost.prompts == sum(done.metrics["cost"]["prompts"] for done in runs)
    with pytest.raises(ConfigError, match="got 2 runs for 3 seeds"):
        evaluate(runs[:2], test)
    other = run(
        build_config(flags={"data": source, "task": TASK, "model": "fake:prior=0.5", "seed": 3}), tmp_path / "o"
    )
    with pytest.raises(ConfigError, match="differ in more than their seed"):
        evaluate([runs[0], runs[1], other], test)


def test_statistics_of_a_row_fit_together(labelled, tmp_path):
    done = labelled(model="fake:prior=1,noise=2.5")
    table = by_condition(evaluate(done, write(tmp_path, "test.jsonl", rows(range(100, 200)))))
    found, golden = table["found"], table["golden"]
    assert found.found_less_this is None
    gain = golden.found_less_this
    assert gain.estimate.value == pytest.approx(found.raw.value - golden.raw.value)
    assert (gain.p_value < 0.05) == (not gain.estimate.lower <= 0 <= gain.estimate.upper)
    assert 0.5 < golden.auroc.value <= 1
    assert golden.auroc.value >= table["zero_shot"].auroc.value
    assert 0 <= golden.calibration_error.value < 0.5


def test_all_conditions_leave_out_what_does_not_apply(labelled, tmp_path):
    result = evaluate(
        labelled(gold=False),
        write(tmp_path, "test.jsonl", rows(range(100, 120))),
        conditions=["zero_shot", "zero_shot_chat", "human", "found", "golden"],
        leave_out=True,
    )
    assert list(by_condition(result)) == ["zero_shot", "found"]
    assert [note.split(":")[0] for note in result.notes] == [
        f"condition {name} left out" for name in ("zero_shot_chat", "human", "golden")
    ]


def test_more_than_two_labels(tmp_path):
    names = ["red", "green", "blue"]
    task = {"template": "{text}:", "labels": names}

    def content(numbers):
        return [{"id": f"e{i}", "text": f"text {i}", "label": names[concept_label(f"text {i}:", 3)]} for i in numbers]

    source = write(tmp_path, "train.jsonl", content(range(30)))
    settings = build_config(flags={"data": source, "task": task, "model": "fake:prior=2,noise=1,gain=6"})
    done = run(settings, tmp_path / "run")
    result = evaluate(
        done,
        write(tmp_path, "test.jsonl", content(range(100, 160))),
        conditions=["zero_shot", "random", "bootstrap", "found", "noised_gold", "golden"],
    )
    table = by_condition(result)
    assert result.n_labels == 3
    assert table["found"].label_accuracy > 0.9
    assert table["found"].auroc is None
    assert table["golden"].raw.value > 0.9 > table["random"].raw.value
