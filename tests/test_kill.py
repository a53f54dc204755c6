"""The real command, killed again and again."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from processes import running


def command(folder, model, output, *more):
    words = [
        "label",
        str(folder / "x.jsonl"),
        "--task",
        "sentiment",
        "--model",
        model,
        "--output-dir",
        str(output),
        *more,
    ]
    return [sys.executable, "-m", "elicitor", *words]


def write_texts(folder, n):
    rows = [{"id": f"e{i}", "text": f"The {i}th thing was {'good' if i % 3 else 'bad'}."} for i in range(n)]
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def decisions(output):
    """Events without what a restart may change: times, and tokens computed once more."""
    changing = {"seconds", "tokens_computed", "tokens_reused"}
    events = [json.loads(line) for line in (output / "events.jsonl").read_text().splitlines()]
    return [{key: value for key, value in event.items() if key not in changing} for event in events]


def kill_until_done(start, output, *, most_kills, longest, seed):
    """Kill the run at random instants, up to some seconds after some new events; the number of kills that hit."""
    draw = random.Random(seed)
    kills = 0
    while kills < most_kills:
        wanted = n_events(output) + draw.randint(0, 3)
        with running(start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None and n_events(output) < wanted:
                time.sleep(0.005)
            try:
                _, err = process.communicate(timeout=draw.uniform(0, longest))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
                continue
        assert process.returncode == 0, err
        return kills
    subprocess.run(start, check=True, capture_output=True)
    return kills


def n_events(output):
    file = output / "events.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def test_a_run_killed_many_times_ends_in_the_same_labels(tmp_path):
    write_texts(tmp_path, 24)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    model = "fake:delay=0.15,noise=1.5"
    options = ("--search", "icm", "--batch-size", "12")
    subprocess.run(command(tmp_path, model, whole, *options), check=True, capture_output=True)
    start = command(tmp_path, model, broken, "--resume", *options)
    kills = kill_until_done(start, broken, most_kills=10, longest=0.3, seed=0)
    assert kills >= 5
    assert (broken / "labels.jsonl").read_bytes() == (whole / "labels.jsonl").read_bytes()
    assert decisions(broken) == decisions(whole)


def test_a_second_writer_is_refused_while_the_first_goes_on(tmp_path):
    write_texts(tmp_path, 24)
    start = command(tmp_path, "fake:delay=0.05", tmp_path / "out", "--resume")
    with running(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        while not (tmp_path / "out" / "checkpoint.json").exists():
            time.sleep(0.02)
        # Stopped, it holds its lock however long the second one takes to begin.
        first.send_signal(signal.SIGSTOP)
        second = subprocess.run(start, capture_output=True, text=True)
        first.send_signal(signal.SIGCONT)
        assert second.returncode == 2
        assert second.stderr.splitlines()[-1].startswith("error: ")
        assert "another process" in second.stderr
        assert first.wait() == 0


@pytest.mark.slow
def test_the_bundled_model_resumes_to_the_same_labels(tmp_path):
    write_texts(tmp_path, 12)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    # Of so many steps that a fast machine is not through before the third kill.
    options = ("--search", "icm")
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    subprocess.run(command(tmp_path, "bundled", whole, *options), check=True, capture_output=True, env=environment)
    start = command(tmp_path, "bundled", broken, "--resume", *options)
    assert kill_until_done(start, broken, most_kills=3, longest=1, seed=1) == 3
    labels = [
        [(row["id"], row["label"]) for row in map(json.loads, (path / "labels.jsonl").read_text().splitlines())]
        for path in (whole, broken)
    ]
    assert labels[0] == labels[1]
