import json
import re
import subprocess
import sys

import pytest

from elicitor.config import RunConfig, read_config

ROWS = [{"id": f"e{i}", "text": f"text {i}", "label": ["negative", "positive"][i % 2]} for i in range(12)]


def write(folder, rows, name="x.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


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
    assert f"label {RunConfig.model_fields['search'].default}" in err
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


def test_a_dry_run_measures_the_model_and_not_the_disk(elicitor, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path, ROWS)
    for _ in range(2):
        code, out, _ = elicitor(*LABEL, "--set", "backend.score_cache=true", "--dry-run", "--json")
        assert code == 0
        assert json.loads(out)["tokens_per_second"] > 0
    stored = json.loads(elicitor("cache", "info", "--json")[1])
    assert stored["answers"] == 0


@pytest.mark.parametrize(
    "search",
    [
        ["icm"],
        ["icm", "--set", "icm.utility=sampled"],
        ["icm", "--set", "icm.iterations=10"],
        ["icm", "--set", "icm.utility=sampled", "--set", "icm.iterations=9"],
        ["gibbs"],
        ["bootstrap"],
        ["bootstrap", "--set", "bootstrap.keep=0.5"],
        ["ensemble"],
        ["ensemble", "--set", "ensemble.folds=5"],
    ],
    ids=lambda words: words[-1],
)
def test_dry_run_bounds_hold(elicitor, tmp_path, search):
    write(tmp_path, [{"id": str(i), "text": f"some text {i:03d}"} for i in range(40)])
    _, out, _ = elicitor(*LABEL, "--search", *search, "--dry-run", "--json")
    least, most = json.loads(out)["tokens"]
    assert elicitor(*LABEL, "--search", *search)[0] == 0
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
    assert elicitor("label", "--config", "run.yaml", "--alpha", "30", "--set", "ensemble.rounds=4", "-o", "out")[0] == 0
    written = (tmp_path / "out" / "config.yaml").read_text()
    for line in ("seed: 5", "alpha: 30.0", "rounds: 4"):
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


SUITE = """
model: "fake:prior=1"
conditions: [zero_shot, found, golden]
seeds: [0, 1]
tasks: [{task: sentiment, data: x.jsonl}]
"""


def test_a_suite_is_priced_run_and_resumed(elicitor, tmp_path):
    write(tmp_path, ROWS)
    (tmp_path / "suite.yaml").write_text(SUITE)
    code, out, _ = elicitor("eval", "--suite", "suite.yaml", "--limit", 4, "--dry-run")
    assert (code, list(tmp_path.glob("runs"))) == (0, [])
    assert re.search(
        r"sentiment: 4 examples to label, 4 to test; search [\d,]+ to [\d,]+ tokens in \d+ to \d+ prompts", out
    )
    code, out, err = elicitor("eval", "--suite", "suite.yaml", "--limit", 4, "-o", "out")
    assert code == 0
    assert "tables and figure: out/results.md, .csv, .tex, .json, .png" in out
    assert "suite: sentiment: search with seed 1" in err
    assert "elicitor eval --suite suite.yaml --limit 4 -o out" in (tmp_path / "out" / "results.md").read_text()
    refused(elicitor("eval", "--suite", "suite.yaml", "--limit", 4, "-o", "out"), "holds a suite", "--resume")
    code, out, _ = elicitor("eval", "--suite", "suite.yaml", "--limit", 4, "-o", "out", "--resume", "--json")
    assert [row["condition"] for row in json.loads(out)["results"]["sentiment"]["rows"]] == [
        "zero_shot",
        "found",
        "golden",
    ]


def test_flags_of_eval_that_do_not_fit_are_refused(elicitor, tmp_path):
    write(tmp_path, ROWS)
    (tmp_path / "suite.yaml").write_text(SUITE)
    refused(elicitor("eval"), "needs a run folder and --test, or --suite")
    refused(elicitor("eval", "out", "--test", "x.jsonl", "--resume"), "--resume goes with --suite alone")
    refused(elicitor("eval", "out", "--suite", "suite.yaml"), "--suite got run folders")
    refused(elicitor("eval", "--suite", "missing.yaml"), "missing.yaml does not exist")
    refused(elicitor("eval", "--suite", "suite.yaml", "--resume"), "--resume needs to know the suite")


def test_all_conditions_and_several_runs(elicitor, tmp_path):
    write(tmp_path, ROWS)
    write(tmp_path, [{**row, "id": f"t{row['id']}", "text": f"{row['text']}!"} for row in ROWS], "test.jsonl")
    for seed in (0, 1):
        assert elicitor(*LABEL[:-1], f"out-{seed}", "--seed", seed)[0] == 0
    code, out, _ = elicitor(
        "eval", "out-0", "out-1", "--test", "test.jsonl", "--seeds", "0,1", "--conditions", "all", "--shots", 4
    )
    assert code == 0
    for words in ("bootstrap_consistent_confident", "condition human left out: 12 of 12", "AUROC", "2 runs)"):
        assert words in out


def test_an_audit_ends_in_a_verdict(elicitor, tmp_path):
    write(tmp_path, ROWS)
    assert elicitor(*LABEL)[0] == 0
    code, out, _ = elicitor("audit", "out", "--seeds", "1", "--abstain")
    assert code == 0
    assert out.splitlines()[-1] in ("verdict: ok", "verdict: look", "verdict: failed")
    assert (tmp_path / "out" / "abstained.jsonl").exists()
    code, out, _ = elicitor("audit", "out", "--json")
    assert {check["name"] for check in json.loads(out)["checks"]} >= {"class balance", "orientation", "seeds"}
    refused(elicitor("audit", "nowhere"), "nowhere is not a run folder")
    refused(elicitor("audit", "out", "--column", "label"), "'label' holds gold")
    refused(elicitor("audit", "out", "--against", "out"), "compared already")


def test_an_ablation_is_priced_and_run(elicitor, tmp_path):
    write(tmp_path, ROWS)
    ablate = ("ablate", "x.jsonl", "--task", "sentiment", "--model", "fake", "--seeds", "0,1", "--alpha", "10,50,90")
    code, out, _ = elicitor(*ablate, "--dry-run")
    assert code == 0
    assert re.match(r"6 searches of 12 examples; [\d,]+ to [\d,]+ tokens in [\d,]+ to [\d,]+ prompts\n", out)
    code, out, _ = elicitor(*ablate, "-o", "out")
    assert code == 0
    assert "alpha=10" in out
    assert "alpha=50" not in out
    assert {read_config(file).search for file in tmp_path.glob("out/**/config.yaml")} == {"icm"}
    refused(elicitor(*ablate[:-2]), "nothing to vary")
    refused(elicitor(*ablate, "--init", "gold", "-o", "new"), "--init got 'gold'")


def test_poems_are_written_once(elicitor, tmp_path):
    code, out, _ = elicitor("sample-poems", "p.jsonl", "--n", 4)
    assert (code, out) == (0, "4 pairs of poems: p.jsonl\n")
    first = (tmp_path / "p.jsonl").read_text()
    assert len(first.splitlines()) == 4
    refused(elicitor("sample-poems", "p.jsonl"), "p.jsonl exists", "--force")
    assert elicitor("sample-poems", "p.jsonl", "--n", 4, "--seed", 1, "--force")[0] == 0
    assert (tmp_path / "p.jsonl").read_text() != first
    refused(elicitor("sample-poems", "no/p.jsonl"), "folder no does not exist")
    refused(elicitor("sample-poems", "q.jsonl", "--n", 0), "at least 1 pair")
