"""Run folders as the first schema wrote them: a finished run and one that was killed, read by the code of today."""

import json
import shutil
from pathlib import Path

import pytest

import elicitor as package
from elicitor.files import write_json

FIRST = Path(__file__).parent / "fixtures" / "schema-1"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copytree(FIRST, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def set_version(run, version):
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["identity"]["elicitor"] = version
    write_json(run / "manifest.json", manifest)


def test_a_finished_run_is_read_by_every_command(elicitor, folder):
    found = [json.loads(line) for line in (folder / "run" / "labels.jsonl").read_text().splitlines()]
    assert [item.label for item in package.load_run("run").labels] == [row["label"] for row in found]
    code, out, err = elicitor("eval", "run", "--test", "test.jsonl", "--json")
    assert code == 0, err
    accuracy = sum(row["label"] == ("positive" if int(row["id"][1:]) % 3 else "negative") for row in found) / 12
    assert json.loads(out)["label_accuracy"]["estimate"]["value"] == pytest.approx(accuracy)
    for words in (("audit", "run"), ("review", "run"), ("export", "run", "-o", "out"), ("report", "run")):
        code, _, err = elicitor(*words)
        assert code == 0, err
    assert "<title>run" in (folder / "run" / "report.html").read_text()
    assert len((folder / "out" / "train.jsonl").read_text().splitlines()) == 12


def test_a_killed_run_goes_on_under_its_own_version_alone(elicitor, folder):
    resume = ("label", "--resume", "--output-dir", "begun")
    set_version(folder / "begun", "0.0.9")
    code, _, err = elicitor(*resume)
    assert code == 2
    assert "elicitor = '0.0.9'" in err
    assert "another --output-dir" in err
    set_version(folder / "begun", package.__version__)
    code, _, err = elicitor(*resume)
    assert code == 0, err
    assert len((folder / "begun" / "labels.jsonl").read_text().splitlines()) == 12
