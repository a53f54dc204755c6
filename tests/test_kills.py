"""The short form of bench/kills.py, and the long one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

for module in ("jinja2", "matplotlib", "sklearn"):
    pytest.importorskip(module)

BENCH = Path(__file__).parents[1] / "bench" / "kills.py"


def strike(folder, kills, *more):
    file = folder / "kills.json"
    command = [sys.executable, str(BENCH), "--kills", str(kills), "--json", str(file), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2400)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    commands = json.loads(file.read_text())["commands"].values()
    assert sum(sum(command["kills"].values()) for command in commands) == kills
    assert all(command["trials"] for command in commands)
    # Who loses a worker goes on by itself.
    survived = sum(command["kills"].get("SIGKILL of a worker", 0) for command in commands)
    assert sum(command["resumes"] for command in commands) == kills - survived


def test_what_is_killed_goes_on_to_the_same_end(tmp_path):
    strike(tmp_path, 40, "--groups", "search,evaluate")


@pytest.mark.slow
def test_much_that_is_killed_goes_on_to_the_same_end(tmp_path):
    for module in ("torch", "trl", "peft", "gguf", "ray"):
        pytest.importorskip(module)
    strike(tmp_path, 300)
