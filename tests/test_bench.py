"""The scripts of bench/ end a user's mistake as the command does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"


def said_of_a_mistake(script, *arguments):
    done = subprocess.run(
        [sys.executable, str(BENCH / script), *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_bad_data_are_one_line(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"id": "1", "txt": "a"}\n')
    flags = ("--data", f"sentiment={tmp_path / 'bad.jsonl'}", "--model", "fake", "--seeds", "0")
    said = said_of_a_mistake("quality.py", *flags)
    assert said.startswith(f"error: {tmp_path / 'bad.jsonl'} line 1: column 'text' is missing")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "arguments", "told"),
    [
        ("search.py", ["--data", "x.jsonl", "--arms", "icm,foo"], "unknown 'foo': choose from released,"),
        ("search.py", ["--data", "x.jsonl", "--seeds", "0,x"], "argument --seeds: invalid integers value: '0,x'"),
        ("quality.py", ["--data", "sentiment"], "'sentiment' is not TASK=FILE"),
        ("leave_one_out.py", ["--model", "nonsense:x"], "error: model 'nonsense:x' has no known form"),
        ("profile_tree.py", ["--model", "fake"], "error: fake is not computed here; name bundled, gguf:FILE"),
    ],
)
def test_bad_arguments_are_told(script, arguments, told):
    assert told in said_of_a_mistake(script, *arguments)


def test_the_profile_of_a_tree_adds_up(tmp_path):
    file = tmp_path / "profile.json"
    words = [sys.executable, str(BENCH / "profile_tree.py"), "--n", "8", "--json", str(file)]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    limit, tree, again = json.loads(file.read_text())["rows"]
    assert (limit["what"], tree["what"], again["what"]) == ("limit", "tree", "limit")
    assert limit["tokens"] == again["tokens"] == 2 * limit["keys_a_token"]
    assert tree["tokens"] > limit["tokens"]
    for row in (limit, tree, again):
        assert 0 < row["products_seconds"] + row["attention_seconds"] < row["cpu_seconds"]
        assert row["products_seconds"] > 0
        assert row["attention_seconds"] > 0


def test_two_tasks_on_one_file_are_two(tmp_path):
    (tmp_path / "x.jsonl").write_text(
        "".join(f'{{"id": "{k}", "text": "text {k}", "label": {k % 2}}}\n' for k in range(8))
    )
    (tmp_path / "other.yaml").write_text('name: other\ntemplate: "Is {text} good?"\nlabels: ["0", "1"]\n')
    data = f"sentiment={tmp_path / 'x.jsonl'},{tmp_path / 'other.yaml'}={tmp_path / 'x.jsonl'}"
    file = tmp_path / "quality.json"
    words = ["--data", data, "--model", "fake", "--n", "6", "--seeds", "0", "--arms", "bootstrap", "--json", str(file)]
    for _ in range(2):
        done = subprocess.run([sys.executable, str(BENCH / "quality.py"), *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        rows = [(row["task"], row["data"]) for row in json.loads(file.read_text())["rows"]]
        assert rows == [("sentiment", "x.jsonl"), ("other", "x.jsonl")]
    file.write_text(file.read_text()[:300])
    assert "quality.json is not JSON" in said_of_a_mistake("quality.py", *words)
