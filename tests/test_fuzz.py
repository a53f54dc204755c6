"""The short form of bench/fuzz.py, and the long one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

for module in ("gguf", "httpx", "starlette", "pyarrow", "jinja2", "matplotlib", "torch", "transformers", "peft"):
    pytest.importorskip(module)

BENCH = Path(__file__).parents[1] / "bench" / "fuzz.py"


def fuzz(examples, folder):
    command = [
        sys.executable,
        str(BENCH),
        "--examples",
        str(examples),
        "--seed",
        "0",
        "--json",
        str(folder / "fuzz.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return json.loads((folder / "fuzz.json").read_text())["groups"]


def judged(groups, examples):
    assert sum(group["tried"] for group in groups) >= examples * 0.9
    for group in groups:
        assert group["tried"] == group["accepted"] + group["refused"]
        assert group["accepted"]
        assert group["refused"]


def test_broken_input_is_refused_or_read_right(tmp_path):
    judged(fuzz(1000, tmp_path), 1000)


@pytest.mark.slow
def test_much_broken_input_is_refused_or_read_right(tmp_path):
    judged(fuzz(20_000, tmp_path), 20_000)
