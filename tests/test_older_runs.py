"""Run folders that an earlier version wrote: read, evaluated, audited, exported and resumed by this one.

tests/fixtures/run-schema-1 was written by the first version with a schema, on twelve made-up reviews and the fake model: a
finished run with its evaluation and audit, and the same run killed in its second batch. tests/fixtures/run-search-2 is a run
of today's number of searches, killed likewise, and the labels it would have had. Neither is ever written anew.
"""

import json
import shutil
from pathlib import Path

import pytest

from elicitor.files import write_json

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def older(elicitor, tmp_path):
    """The command, in a folder that holds the older runs."""
    shutil.copytree(FIXTURES / "run-schema-1", tmp_path, dirs_exist_ok=True)
    return elicitor


@pytest.fixture
def killed(elicitor, tmp_path):
    """The command, in a folder that holds a run whose searches decide as today's do."""
    shutil.copytree(FIXTURES / "run-search-2", tmp_path, dirs_exist_ok=True)
    return elicitor


def manifest(run, **changed):
    """Change entries of a run's manifest; None takes one out."""
    values = json.loads((run / "manifest.json").read_text()) | changed
    write_json(run / "manifest.json", {key: value for key, value in values.items() if value is not None})


@pytest.mark.parametrize(
    ("words", "writes"),
    [
        (("eval", "finished", "--test", "test.jsonl"), "finished/eval-test.json"),
        (("audit", "finished", "--seeds", "1", "--abstain"), "finished/audit.json"),
        (("export", "finished", "--output-dir", "out"), "out/train.jsonl"),
        (("report", "finished"), "finished/report.html"),
        (("report", "unfinished"), "unfinished/report.html"),
    ],
)
def test_every_command_reads_it(older, tmp_path, words, writes):
    if words[0] == "report":
        pytest.importorskip("jinja2")
    file = tmp_path / writes
    before = json.loads(file.read_text()) if file.exists() else None
    file.unlink(missing_ok=True)
    code, _, err = older(*words)
    assert code == 0, err
    assert file.stat().st_size > 100
    if words[0] == "audit":
        # The same verdicts as then, and the search of the other seed is not made anew.
        after = json.loads(file.read_text())
        assert [(c["name"], c["verdict"]) for c in after["checks"]] == [
            (c["name"], c["verdict"]) for c in before["checks"]
        ]


def test_an_unfinished_one_goes_on_to_the_labels_it_would_have_had(killed, tmp_path):
    code, _, err = killed("label", "--resume", "--output-dir", "unfinished")
    assert code == 0, err
    assert (tmp_path / "unfinished/labels.jsonl").read_bytes() == (tmp_path / "labels.jsonl").read_bytes(), (
        "a search decides otherwise than before: let manifest.SEARCH grow, and this test expect a refusal"
    )


def test_another_version_may_go_on_and_is_named(killed, tmp_path):
    versions = json.loads((tmp_path / "unfinished/manifest.json").read_text())["versions"]
    manifest(tmp_path / "unfinished", versions=versions | {"elicitor": "0.0.9"})
    assert killed("label", "--resume", "--output-dir", "unfinished")[0] == 0
    after = json.loads((tmp_path / "unfinished/manifest.json").read_text())
    assert after["versions"]["elicitor"] == "0.0.9"
    assert after["resumed_with"] == [versions["elicitor"]]


def test_a_search_that_decides_otherwise_is_not_gone_on_with(older, tmp_path):
    code, _, err = older("label", "--resume", "--output-dir", "unfinished")
    assert code == 2
    assert "manifest entry search = 1, now it is 2; use the version of elicitor that began it" in err
    assert not (tmp_path / "unfinished/labels.jsonl").exists()


@pytest.mark.parametrize(
    ("schema", "said"),
    [(2, "use the version of elicitor that wrote it, or a newer one"), (None, "search again: elicitor label --config")],
)
@pytest.mark.parametrize("words", [("label", "--resume", "--output-dir"), ("eval", "--test", "test.jsonl"), ("audit",)])
def test_another_schema_is_refused_with_the_way_out(older, tmp_path, schema, said, words):
    manifest(tmp_path / "finished", schema=schema)
    before = {file: file.read_bytes() for file in (tmp_path / "finished").rglob("*") if file.is_file()}
    code, _, err = older(*words, "finished")
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    after = {file: file.read_bytes() for file in before}
    assert after == before
