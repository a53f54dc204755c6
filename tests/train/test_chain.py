"""The whole of examples/assistant_cpu.sh at the smallest size: every command takes what the one before it left."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "examples" / "assistant_cpu.sh"


def test_the_chain_from_made_up_pairs_to_a_win_rate_runs_and_goes_on_where_it_was(tiny, tmp_path):
    sizes = {"LABEL": "12", "REST": "44", "TEST": "16", "PROMPTS": "56", "STEPS": "1", "MODEL": str(tiny)}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))

    def chain():
        return subprocess.run(
            ["bash", str(SCRIPT), "", str(tmp_path / "out")],
            env={**os.environ, **sizes, "DTYPE": "float32", "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    first = chain()
    assert first.returncode == 0, first.stderr[-3000:]
    rates = re.findall(
        r"judged by (\S+): win rate 0\.\d+ \[0\.\d+, [01]\.\d+\], n = 16 duels on 16 prompts", first.stdout
    )
    assert rates == [str(tmp_path / "out" / "rm-found"), str(tmp_path / "out" / "rm-golden"), str(tiny)]
    unlabelled = (tmp_path / "out" / "label.jsonl").read_text() + (tmp_path / "out" / "rest.jsonl").read_text()
    assert '"label"' not in unlabelled
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("training.json")}
    again = chain()
    assert again.returncode == 0, again.stderr[-3000:]
    assert {file: file.stat().st_mtime_ns for file in made} == made
    assert len(made) == 3
    assert re.findall(r"win rate.*", again.stdout) == re.findall(r"win rate.*", first.stdout)
