import json

import pytest

pytest.importorskip("trl")

from elicitor.errors import ConfigError
from elicitor.labelling import run as label_run
from elicitor.review import Mark, add_mark
from elicitor.reviewed import start_from_review
from elicitor.runs import load_run_config
from elicitor.train import compare as module
from elicitor.train.compare import compare
from elicitor.train.sft import SftSettings

SETTINGS = SftSettings(epochs=10, batch_size=4, lora_r=4, learning_rate=1e-2, checkpoint_steps=50)


def test_conditions_differ_by_labels_alone_and_a_repeated_comparison_trains_nothing(
    run, review_files, tiny_model, tmp_path, monkeypatch
):
    def again(resume):
        return compare(
            run,
            review_files[1],
            tmp_path / "out",
            conditions=["untrained", "golden", "random"],
            settings=SETTINGS,
            model=str(tiny_model),
            resume=resume,
        )

    first = again(False)
    by_name = {row.condition: row for row in first.rows}
    assert list(by_name) == ["zero_shot", "random", "golden"]
    assert by_name["golden"].raw.value == 1.0
    assert by_name["golden"].label_accuracy == 1.0
    assert by_name["golden"].demonstrations == by_name["random"].demonstrations == 24
    assert by_name["zero_shot"].raw.value < 0.8
    assert by_name["random"].gap_recovered.value < 1
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == json.loads(json.dumps(first.to_json()))
    monkeypatch.setattr(module, "fit", lambda *_, **__: pytest.fail("trained again"))
    assert again(True) == first


def test_one_vote_of_an_annotator_for_each_example_is_a_condition(run, review_files, tiny_model, tmp_path):
    def human(votes):
        rows = [json.loads(line) for line in review_files[0].read_text().splitlines()]
        for row in rows:
            row["human_votes"] = votes(row)
        review_files[0].write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = SETTINGS.model_copy(update={"epochs": 1})
        out = tmp_path / "out"
        return compare(
            run, review_files[1], out, conditions=["human"], settings=settings, model=str(tiny_model), resume=True
        ).rows[0]

    row = human(lambda row: [1 - row["label"]] * 3)
    assert (row.condition, row.demonstrations, row.label_accuracy) == ("human", 24, 0.0)
    with pytest.raises(ConfigError, match="1 of 24 demonstrations have no human votes"):
        human(lambda row: [] if row["id"] == "r0" else [row["label"]])


def test_label_accuracy_leaves_reviewed_examples_out(run, review_files, tiny_model, tmp_path):
    for item in run.labels[:6]:
        verdict = "right" if item.label == ("negative", "positive")[int(item.id[1:]) % 2] else "wrong"
        add_mark(run.path, Mark(item.id, verdict, item.label, "2026-01-01T00:00:00Z"))
    config = start_from_review(load_run_config(run.path), run.path)
    second = label_run(config, tmp_path / "second")
    result = compare(
        second,
        review_files[1],
        tmp_path / "out",
        conditions=["untrained", "found", "golden"],
        settings=SETTINGS.model_copy(update={"epochs": 1}),
        model=str(tiny_model),
    )
    own = [item for item in second.labels if item.id not in {item.id for item in run.labels[:6]}]
    right = [item.label == ("negative", "positive")[int(item.id[1:]) % 2] for item in own]
    assert len(right) == 18
    assert {row.condition: row.label_accuracy for row in result.rows}["found"] == sum(right) / 18
    assert result.notes == ["label accuracy leaves out 6 examples: a review gave their labels to the search"]


def test_a_comparison_needs_a_new_folder_and_known_conditions(run, review_files, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    with pytest.raises(ConfigError, match="not empty"):
        compare(run, review_files[1], tmp_path / "out")
    with pytest.raises(ConfigError, match="unknown condition 'gold'"):
        compare(run, review_files[1], tmp_path / "new", conditions=["gold"])
