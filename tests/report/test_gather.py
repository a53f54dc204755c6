import json
import shutil

import pytest

from elicitor.errors import ConfigError, DataError
from elicitor.files import iter_rows, read_json, read_rows
from elicitor.report import gather
from elicitor.runs import CHECKPOINT, EVENTS, LABELS, METRICS


def only(views):
    (run,) = views.runs
    return run


@pytest.fixture
def copy(finished, tmp_path):
    """The finished run, to be changed."""
    return shutil.copytree(finished, tmp_path / "copy")


def unfinished(folder, *, lines):
    """Cut a run back to so many events, as it stood in the middle."""
    for name in (LABELS, METRICS):
        (folder / name).unlink()
    whole = (folder / EVENTS).read_bytes().splitlines(keepends=True)
    kept = b"".join(whole[:lines])
    (folder / EVENTS).write_bytes(kept + whole[lines][:20])
    checkpoint = read_json(folder / CHECKPOINT)
    (folder / CHECKPOINT).write_text(json.dumps(checkpoint | {"done": [], "event_bytes": len(kept), "crc32": None}))


def test_a_run_is_read_with_its_evaluation_and_audit(finished):
    run = only(gather([finished]))
    assert run.finished
    assert run.name == "a <b>run"
    assert (run.n, run.seed, run.task) == (24, 0, "hostile")
    assert sum(run.counts.values()) == 24
    assert [named.name for named in run.results] == ["test"]
    assert run.results[0].result.rows[0].raw.n == 30
    assert run.audit.n_examples == 24
    assert run.label_accuracy == run.results[0].result.label_accuracy.estimate
    assert [example.id for example in run.examples] == [row["id"] for row in read_rows(finished / LABELS)]
    assert all(example.gold is None for example in run.examples)
    assert run.reliability == []
    assert sum(b.count for b in run.margins) == 24
    assert run.trace.held == {row["id"]: row["label"] for row in read_rows(finished / LABELS)}


def test_gold_gives_accuracy_and_reliability_that_agree_with_eval(finished, data):
    run = only(gather([finished], gold=data[0]))
    evaluated = only(gather([finished]))
    assert run.label_accuracy.value == evaluated.label_accuracy.value
    assert run.label_accuracy.n == 24
    right = sum(example.gold == example.label for example in run.examples)
    assert right / 24 == run.label_accuracy.value
    assert sum(b.count for b in run.reliability) == 24
    assert sum(b.accuracy.value * b.count for b in run.reliability) == pytest.approx(right)
    assert all(0 <= b.accuracy.lower <= b.accuracy.value <= b.accuracy.upper <= 1 for b in run.reliability)
    assert all(b.accuracy.lower < b.accuracy.upper for b in run.reliability)
    assert run.trace.points[-1].accuracy == pytest.approx(run.label_accuracy.value)


def test_gold_of_other_examples_is_refused(finished, tmp_path):
    (tmp_path / "gold.jsonl").write_text('{"id": "elsewhere", "text": "t", "gold": "no"}\n')
    with pytest.raises(DataError, match="knows none of the examples"):
        gather([finished], gold=tmp_path / "gold.jsonl")


def test_a_run_in_work_is_read_up_to_its_checkpoint(copy):
    unfinished(copy, lines=9)
    run = only(gather([copy]))
    assert not run.finished
    assert run.n == len(run.trace.held) < 24
    assert len(run.examples) == 24
    assert all(example.log_odds is None for example in run.examples)
    assert (
        run.utility == list(iter_rows(copy / EVENTS, until=read_json(copy / CHECKPOINT)["event_bytes"]))[-1]["utility"]
    )
    assert run.cost["tokens_computed"] > 0
    assert any("not finished" in note for note in run.notes)


def test_texts_are_missing_with_a_note_where_the_data_changed(copy, data, tmp_path):
    moved = tmp_path / "other.jsonl"
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace(str(data[0]), str(moved)))
    run = only(gather([copy]))
    assert [example.texts for example in run.examples] == [()] * 24
    assert "texts of the examples are missing" in run.notes[0]
    moved.write_text(data[0].read_text().replace("text 3", "text three"))
    assert "has changed since the run" in only(gather([copy])).notes[0]


def test_examples_beyond_the_limit_are_left_out_but_counted(finished):
    run = only(gather([finished], examples=5))
    assert len(run.examples) == 5
    assert run.n == 24
    assert sum(b.count for b in run.margins) == 24
    assert any("first 5 of 24" in note for note in run.notes)


def test_long_texts_are_cut_with_a_note(finished, monkeypatch):
    monkeypatch.setattr("elicitor.report.run_view.TEXT_BUDGET", 300)
    monkeypatch.setattr("elicitor.report.run_view._SHORTEST", 10)
    run = only(gather([finished]))
    assert run.examples[7].texts[0].endswith(" [cut]")
    assert any("cut at 12 characters" in note for note in run.notes)


def test_names_tell_folders_apart(copy, tmp_path):
    twin = shutil.copytree(copy, tmp_path / "twin" / "copy")
    assert [run.name for run in gather([copy, twin]).runs] == [f"{tmp_path.name}/copy", "twin/copy"]
    with pytest.raises(ConfigError, match="given twice"):
        gather([copy, copy])


def test_what_is_no_folder_of_ours_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no folder of a search, suite, ablation or training"):
        gather([tmp_path])
    with pytest.raises(ConfigError, match="no folder was given"):
        gather([])


def test_a_broken_evaluation_is_named(copy):
    (copy / "eval-test.json").write_text('{"task": "hostile"}')
    with pytest.raises(DataError, match=r"eval-test\.json"):
        gather([copy])


def test_a_training_in_work_shows_losses_of_its_newest_whole_checkpoint(tmp_path):
    (tmp_path / "training.yaml").write_text("kind: sft\nmodel: fake\nsettings: {epochs: 1}\n")
    for step, log in ((4, '{"log_history": [{"step": 2, "loss": 1.5}, {"step": 4, "eval_loss": 9}]}'), (8, '{"log_h')):
        (tmp_path / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
        (tmp_path / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json").write_text(log)
    (training,) = gather([tmp_path]).trainings
    assert not training.finished
    assert training.losses == [(2, 1.5)]
    assert (tmp_path / "checkpoints" / "checkpoint-8").exists()


def test_gold_reaches_the_report_alone(finished, data):
    before = {file: file.read_bytes() for file in finished.rglob("*") if file.is_file()}
    gather([finished], gold=data[0])
    assert {file: file.read_bytes() for file in finished.rglob("*") if file.is_file()} == before


def test_a_summary_is_json_without_single_examples(finished, data):
    summary = gather([finished], gold=data[0]).summary()
    text = json.dumps(summary, allow_nan=False)
    assert summary["runs"][0]["label_accuracy"]["n"] == 24
    assert "text 7" not in text


def test_an_evaluation_without_rows_is_refused(copy):
    (file,) = copy.glob("eval-*.json")
    file.write_text(json.dumps({**read_json(file), "rows": []}))
    with pytest.raises(DataError, match=r"eval-test\.json: rows: List should have at least 1 item"):
        gather([copy])


@pytest.mark.parametrize("result", [{"losses": [5]}, {"losses": [{"step": 1}]}, {"label_counts": [1]}, {"curve": 3}])
def test_a_trainings_result_of_other_types_is_refused(tmp_path, result):
    (tmp_path / "training.yaml").write_text("kind: sft\n")
    (tmp_path / "training.json").write_text(json.dumps(result))
    with pytest.raises(DataError, match=r"training\.json: "):
        gather([tmp_path])
