"""Every script of examples/paper/ runs to its end on made-up data, goes on where it was, and its table and summary agree."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("trl")
pytest.importorskip("matplotlib")

FOLDER = Path(__file__).parents[2] / "examples" / "paper"
SCRIPTS = sorted(file for file in FOLDER.glob("*.sh") if file.name != "common.sh")
NO_FIGURE = {"figure_7"}
"""Reward models and policies are no suite, ablation or search, so there is nothing that elicitor plot draws."""


def run(script, *flags, check=True):
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", str(script), *map(str, flags)],
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.stem)
def test_a_script_ends_in_a_table_that_agrees_with_its_summary_and_goes_on(script, tiny, tmp_path):
    out = tmp_path / "out"
    flags = ["--preset", "smoke", "--train-model", tiny, "--output-dir", out]
    if script.stem == "figure_4":
        flags += ["--model", "fake", "--model", tiny]
    printed = run(script, *flags).stdout
    summary, table = json.loads((out / "summary.json").read_text()), (out / "table.md").read_text()
    assert table in printed
    assert (summary["figure"], summary["preset"]) == (script.stem, "smoke")
    measured = [row for row in summary["rows"] if row["value"] is not None]
    assert measured
    for row in measured:
        assert row["n"] is not None
        if row["measure"] != "difference":
            assert f"| {row['condition']} | {row['measure']} |" in table
            assert f"{row['value']:.3f}" in table
    assert table.count("\n| ") == 2 * (1 + bool(summary["findings"])) + len(summary["findings"]) + sum(
        row["measure"] != "difference" for row in summary["rows"]
    )
    assert (out / "figure.png").exists() == (script.stem not in NO_FIGURE)
    kept = {file: file.stat().st_mtime_ns for file in out.rglob("labels.jsonl")}
    assert kept or script.stem == "figure_7"
    run(script, *flags)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert json.loads((out / "summary.json").read_text()) == summary


@pytest.mark.slow
def test_a_dry_run_counts_prompts_and_tokens_and_writes_nothing(tmp_path):
    said = run(FOLDER / "figure_8.sh", "--dry-run", "--output-dir", tmp_path / "out").stdout
    assert "tokens in" in said
    assert "prompts" in said
    assert not (tmp_path / "out").exists()
    said = run(FOLDER / "figure_9.sh", "--dry-run", "--limit", 4, "--seeds", 3, "--output-dir", tmp_path / "out").stdout
    assert "3 searches of 4 examples" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.stem)
def test_the_laptop_preset_finds_its_data(script, shared_data, tmp_path):
    models = ["--model", "fake", "--model", "fake:gain=2"]
    said = run(
        script, "--preset", "laptop", "--dry-run", "--data-dir", shared_data, *models, "--output-dir", tmp_path
    ).stdout
    assert "tokens" in said


def test_some_tasks_of_a_script_run_alone(tmp_path):
    flags = ["--dry-run", "--tasks", "gsm8k", "--output-dir", tmp_path / "out"]
    said = run(FOLDER / "figure_1_3.sh", *flags).stdout
    assert "gsm8k: 4 examples to label" in said
    assert "truthfulqa" not in said
    done = run(FOLDER / "figure_9.sh", *flags, check=False)
    assert (done.returncode, done.stderr) == (2, "error: figure_9.sh has no tasks to choose from; leave --tasks out\n")
    done = run(FOLDER / "figure_8.sh", "--tasks", "gsm8k, alpaca", check=False)
    assert (done.returncode, done.stderr) == (2, "error: --tasks got gsm8k, alpaca; write gsm8k,alpaca\n")


def test_the_precision_is_that_of_every_search(tmp_path):
    flags = ["--preset", "smoke", "--tasks", "gsm8k", "--limit", 2, "--seeds", 0, "--no-train", "--dtype", "bfloat16"]
    run(FOLDER / "figure_1_3.sh", *flags, "--output-dir", tmp_path)
    settings = next(tmp_path.rglob("seed-0/config.yaml"))
    assert yaml.safe_load(settings.read_text())["backend"]["dtype"] == "bfloat16"


def test_short_rows_are_kept_and_none_is_an_error(tmp_path):
    rows = [{"id": str(n), "question": "q" * n, "choice": "a", "choice_2": "bb"} for n in (1, 5, 6)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows_py = [sys.executable, FOLDER / "rows.py", "short", tmp_path / "pairs.jsonl", "-o", tmp_path / "short.jsonl"]
    subprocess.run([*rows_py, "--longest", "8"], check=True)
    kept = [json.loads(line) for line in (tmp_path / "short.jsonl").read_text().splitlines()]
    assert kept == rows[:2]
    done = subprocess.run([*rows_py, "--longest", "3"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: no row has at most 3 characters; give a larger --longest\n")


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--preset", "huge"], "error: --preset got huge; use smoke, laptop, gpu or cluster"),
        (["--preset", "laptop"], "error: --preset laptop needs data; add --data-dir FOLDER"),
        (["--limit", "1"], "error: --limit got 1; give 2 or more"),
        (["--dtype", "int8"], "error: --dtype got int8; use float32, bfloat16 or float16"),
        (["--seeds", "a"], "error: --seeds got a; write 0,1,2"),
        (["--model"], "error: --model needs a value"),
        (["--modle", "fake"], "error: unknown option --modle; --help lists them"),
    ],
)
def test_a_wrong_option_is_named(flags, problem, tmp_path):
    done = run(FOLDER / "figure_8.sh", "--output-dir", tmp_path / "out", *flags, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", problem + "\n")
    assert not (tmp_path / "out").exists()


def test_help_says_what_the_figure_is_and_which_files_it_reads():
    for script in SCRIPTS:
        said = run(script, "--help").stdout
        assert f"examples/paper/{script.name} --preset laptop" in said
        assert "\nFiles: " in said
        assert "--data-dir" in said
