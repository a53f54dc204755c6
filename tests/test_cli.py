import json
import subprocess
import sys

import pytest

from elicitor import cli

ROWS = [{"id": f"e{i}", "text": f"text {i}", "label": ["negative", "positive"][i % 2]} for i in range(12)]


def write(folder, rows, name="x.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def elicitor(monkeypatch, capsys, tmp_path):
    """Runs the command in this process, in an empty folder; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["elicitor", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as left:
            code = left.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def refused(result, *words):
    code, out, err = result
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


LABEL = ("label", "x.jsonl", "--task", "sentiment", "--model", "fake", "--output-dir", "out")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["x.jsonl has no rows"]),
        ('{"id": "a", "text": "t"}\n{"id": "b", "txt": "t"}\n', ["x.jsonl line 2", "'text'"]),
        ('{"id": "a", "text": "t"}\n{"id": "a", "text": "u"}\n', ["x.jsonl line 2", "id 'a'", "line 1"]),
        (
            '{"id": "a", "text": "t", "label": "mixed"}\n',
            ["x.jsonl line 1", "'label'", "'mixed'", "negative, positive"],
        ),
        ('{"id": "a", "text": "t"\n', ["x.jsonl line 1 column"]),
        (b'{"id": "a", "text": "caf\xe9"}\n', ["x.jsonl line 1 is not UTF-8", "iconv"]),
    ],
)
def test_bad_data_is_one_line_and_leaves_nothing(elicitor, tmp_path, content, words):
    (tmp_path / "x.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(elicitor(*LABEL), *words)
    assert {path.name for path in tmp_path.iterdir()} == {"x.jsonl"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("label", "none.jsonl", "--task", "sentiment", "--model", "fake"), ["none.jsonl", "does not exist"]),
        (("label", "x.jsonl", "--task", "sentimant", "--model", "fake"), ["'sentimant'", "did you mean 'sentiment'"]),
        (("label", "x.jsonl", "--task", "sentiment", "--model", "gpt"), ["model 'gpt'", "bundled, hf:NAME"]),
        (("label", "x.jsonl", "--task", "sentiment", "--model", "gguf:none.gguf"), ["none.gguf", "does not exist"]),
        (("label", "x.jsonl", "--task", "sentiment", "--model", "fake:gian=1"), ["'gian=1'", "gain"]),
        (("label", "x.jsonl", "--task", "sentiment", "--model", "fake:context=20"), ["x.jsonl line 1", "example 'e0'"]),
        ((*LABEL, "--set", "objective.alhpa=3"), ["objective.alhpa", "alpha"]),
        ((*LABEL, "--set", "objective.alpha=-3"), ["objective.alpha"]),
        ((*LABEL, "--set", "nonsense"), ["key=value"]),
        ((*LABEL, "--config", "none.yaml"), ["none.yaml"]),
        (("label", "x.jsonl", "--model", "fake"), ["task"]),
        (("label", "--task", "sentiment", "--model", "fake"), ["data"]),
        (("label", "x.jsonl", "--task", "sentiment", "--resume"), ["--output-dir"]),
        ((*LABEL[:-1], "x.jsonl/run"), ["x.jsonl/run cannot be written: Not a directory", "--output-dir"]),
        (("eval", "out", "--test", "x.jsonl"), ["out is not a run folder"]),
        (("eval", "out", "--test", "x.jsonl", "--seeds", "a,b"), ["--seeds"]),
        (("eval", "out", "--test", "x.jsonl", "--limit", "0"), ["--limit"]),
    ],
)
def test_bad_arguments_are_one_line_and_leave_nothing(elicitor, tmp_path, arguments, words):
    write(tmp_path, ROWS)
    refused(elicitor(*arguments), *words)
    assert {path.name for path in tmp_path.iterdir()} == {"x.jsonl"}


def test_evaluation_needs_gold_in_the_set(elicitor, tmp_path):
    write(tmp_path, ROWS)
    assert elicitor(*LABEL)[0] == 0
    write(tmp_path, [{"id": "t1", "text": "other"}], "bare.jsonl")
    refused(elicitor("eval", "out", "--test", "bare.jsonl"), "bare.jsonl has no gold column 'label'", "--gold-column")
    write(tmp_path, [{"id": "t1", "text": "other", "label": "mixed"}], "wrong.jsonl")
    refused(elicitor("eval", "out", "--test", "wrong.jsonl"), "wrong.jsonl line 1", "'mixed'", "negative, positive")
    assert not list((tmp_path / "out").glob("eval-*"))


def test_label_then_eval_as_json(elicitor, tmp_path):
    write(tmp_path, ROWS)
    code, out, err = elicitor(*LABEL, "--json", "--limit", "10")
    assert code == 0
    assert json.loads(out)["n_examples"] == 10
    assert "label icm" in err
    assert len((tmp_path / "out" / "labels.jsonl").read_text().splitlines()) == 10
    write(tmp_path, [{**row, "id": f"t{k}", "text": f"other {k}"} for k, row in enumerate(ROWS)], "test.jsonl")
    code, out, _ = elicitor("eval", "out", "--test", "test.jsonl", "--json", "--limit", "6")
    assert code == 0
    assert [row["condition"] for row in json.loads(out)["rows"]] == ["zero_shot", "random", "found", "golden"]
    assert json.loads(out)["rows"][0]["raw"]["n"] == 6
    code, out, _ = elicitor("eval", "out", "--test", "test.jsonl")
    assert code == 0
    assert "golden" in out


def test_what_a_run_says_at_its_end(elicitor, tmp_path):
    write(tmp_path, ROWS)
    code, out, _ = elicitor(*LABEL)
    assert code == 0
    assert "12 labels" in out
    assert "computed" in out
    assert "reused" in out
    assert "out/labels.jsonl" in out


def test_dry_run_shows_cost_and_two_prompts_and_writes_nothing(elicitor, tmp_path):
    write(tmp_path, ROWS)
    code, out, _ = elicitor(*LABEL, "--dry-run")
    assert code == 0
    assert "--- prompt 2 ---" in out
    assert "Review: text 0\nSentiment:" in out
    code, out, _ = elicitor(*LABEL, "--dry-run", "--json")
    least, most = json.loads(out)["tokens"]
    assert 0 < least <= most
    assert {path.name for path in tmp_path.iterdir()} == {"x.jsonl"}


def test_dry_run_bounds_hold(elicitor, tmp_path):
    write(tmp_path, [{"id": str(i), "text": f"some text {i:03d}"} for i in range(40)])
    _, out, _ = elicitor(*LABEL, "--dry-run", "--json")
    least, most = json.loads(out)["tokens"]
    assert elicitor(*LABEL)[0] == 0
    spent = json.loads((tmp_path / "out" / "metrics.json").read_text())["cost"]["tokens_computed"]
    assert 0.9 * least <= spent <= most


def test_resume_needs_no_other_flags(elicitor, tmp_path):
    write(tmp_path, ROWS)
    assert elicitor(*LABEL, "--alpha", "30")[0] == 0
    before = (tmp_path / "out" / "labels.jsonl").read_bytes()
    assert elicitor("label", "--resume", "--output-dir", "out")[0] == 0
    assert (tmp_path / "out" / "labels.jsonl").read_bytes() == before
    refused(elicitor(*LABEL), "out holds a run", "--resume")
    refused(elicitor("label", "--resume", "--output-dir", "out", "--alpha", "40"), "objective.alpha = 30.0")


def test_settings_come_from_a_file_and_flags_win(elicitor, tmp_path):
    write(tmp_path, ROWS)
    (tmp_path / "run.yaml").write_text("data: x.jsonl\ntask: sentiment\nmodel: fake\nseed: 5\nobjective: {alpha: 20}\n")
    assert elicitor("label", "--config", "run.yaml", "--alpha", "30", "--set", "icm.iterations=4", "-o", "out")[0] == 0
    written = (tmp_path / "out" / "config.yaml").read_text()
    for line in ("seed: 5", "alpha: 30.0", "iterations: 4"):
        assert line in written


def test_models_and_env(elicitor):
    code, out, _ = elicitor("models", "--json")
    assert code == 0
    assert {"bundled", "fake"} <= {row["name"] for row in json.loads(out)}
    code, out, _ = elicitor("env", "--json")
    assert code == 0
    assert json.loads(out)["python"] == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.parametrize(
    "code", ["import elicitor", "import sys; sys.argv = ['elicitor', '--help']; from elicitor.cli import app; app()"]
)
def test_import_and_help_load_nothing_heavy(code):
    check = (
        "import atexit, sys\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'scipy', 'sklearn'}\n"
        "atexit.register(lambda: print('loaded', sorted(heavy & set(sys.modules))))\n"
    )
    done = subprocess.run([sys.executable, "-c", check + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded []"
