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
    assert result.label_accuracy.curve[-1][2] == pytest.approx(right)
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
    with pytest.raises(ConfigError, match="different seeds"):
        evaluate(done, test, seeds=[1, 1])


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
