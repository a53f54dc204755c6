"""Long runs: what grows with the steps, and what may not."""

import json
import subprocess
import sys
from pathlib import Path

from elicitor.checkpoint import Checkpoint
from elicitor.config import build_config
from elicitor.manifest import build_manifest
from elicitor.runs import RunFolder

BENCH = Path(__file__).parents[1] / "bench"


def test_events_grow_with_the_steps_and_the_checkpoint_does_not(tmp_path):
    words = [sys.executable, str(BENCH / "soak.py"), "--steps", "332,1328", "--json", str(tmp_path / "soak.json")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    short, long = json.loads((tmp_path / "soak.json").read_text())["rows"]
    assert 3.5 < long["steps"] / short["steps"] < 4.5
    assert 0.95 < (long["events_bytes"] / long["steps"]) / (short["events_bytes"] / short["steps"]) < 1.05
    assert long["checkpoint_bytes"] < 1.1 * short["checkpoint_bytes"]


def test_a_resume_reads_no_events(tmp_path):
    config = build_config(flags={"data": "x.jsonl", "task": "sentiment", "model": "fake"})
    manifest = build_manifest(data_fingerprint="d", model_fingerprint="m", model={}, batches=((0,),))
    with RunFolder.create(tmp_path / "run", config, manifest) as folder:
        folder.append([{"n": n} for n in range(100)])
        folder.save(Checkpoint(batch=0, state={}, rng={}))
    events = tmp_path / "run" / "events.jsonl"
    # Not one line of this could be read.
    unreadable = b"\xff" * events.stat().st_size
    events.write_bytes(unreadable + b"and what came after the checkpoint")
    with RunFolder.resume(tmp_path / "run", config, manifest) as folder:
        assert folder.checkpoint().batch == 0
    assert events.read_bytes() == unreadable
