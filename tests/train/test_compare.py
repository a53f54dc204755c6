import json

import pytest

pytest.importorskip("trl")

from elicitor.errors import ConfigError
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


def test_a_comparison_needs_a_new_folder_and_known_conditions(run, review_files, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    with pytest.raises(ConfigError, match="not empty"):
        compare(run, review_files[1], tmp_path / "out")
    with pytest.raises(ConfigError, match="unknown condition 'gold'"):
        compare(run, review_files[1], tmp_path / "new", conditions=["gold"])
