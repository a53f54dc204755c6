"""A long run in short: very many steps of a search over a model that answers at once, killed on the way and resumed.

What is measured is elicitor itself: memory while it runs, the growth of its files, and how long a resumed run takes until its
next step is saved. Every batch of four examples is, so steps a second depend on the disk; without ``--folder`` it is the
system's folder for temporary files.

    python bench/soak.py --steps 10000,100000,1000000 --folder /dev/shm --json soak.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from arguments import integers
from leave_one_out import growth

from elicitor.console import environment
from elicitor.files import read_json
from elicitor.terminal import mistakes_in_a_line

BATCH, SWEEPS = 4, 50
STEPS_A_BATCH = 166
"""Events of a batch of four under `SETTINGS`: most of its 50 sweeps have four steps, until voting settles."""
ATTEMPTS = 10
"""Starts of a run; a short one may end between two looks at it, before it is killed."""
SETTINGS = {"gibbs.block_size": 1, "gibbs.sweeps": SWEEPS, "gibbs.burn_in": 40}
HEAD = (
    "steps",
    "seconds",
    "steps/s",
    "MB at 1/4",
    "MB at 3/4",
    "peak MB",
    "events MB",
    "bytes/step",
    "checkpoint B",
    "resumed in s",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=integers, default="10000,100000,1000000", help="steps, about")
    parser.add_argument("--folder", type=Path, help="where the runs are written")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    print(" ".join(f"{name:>12}" for name in HEAD), flush=True)
    rows = []
    for steps in options.steps:
        with tempfile.TemporaryDirectory(dir=options.folder) as place:
            rows.append(measure(Path(place), steps))
        print(line(rows[-1]), flush=True)
        if options.json:
            content = {"rows": rows, "settings": SETTINGS, "batch_size": BATCH, "environment": environment()}
            options.json.write_text(json.dumps(content, indent=2) + "\n")
    if len(rows) > 1:
        sizes = [row["steps"] for row in rows]
        for what in ("seconds", "events_bytes"):
            print(f"{what} grow as steps^{growth(sizes, [row[what] for row in rows]):.3f}")


def measure(folder: Path, steps: int) -> dict[str, Any]:
    """One run, killed when it has done about half, and resumed."""
    n = max(2, steps // STEPS_A_BATCH) * BATCH
    data, run = folder / "data.jsonl", folder / "run"
    with data.open("w") as file:
        file.writelines(json.dumps({"id": f"e{i}", "text": f"text {i}"}) + "\n" for i in range(n))
    command = [sys.executable, "-m", "elicitor", "label", str(data), "--task", "sentiment", "--search", "gibbs"]
    command += ["--model", "fake:reusable=100000", "--batch-size", str(BATCH), "--output-dir", str(run), "--resume"]
    command += [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    for _ in range(ATTEMPTS):
        started = time.perf_counter()
        memory = watched(command, run, until=n // 2 // BATCH)
        if batches_done(run) < n // BATCH:
            break
        shutil.rmtree(run)
    else:
        raise SystemExit(f"{steps} steps were over before the run could be killed, {ATTEMPTS} times; take more steps")
    kept = event_bytes(run)
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        ended = None
        while event_bytes(run) <= kept:
            if ended is not None:
                raise SystemExit(f"the resumed run has ended without a step, with code {ended}")
            time.sleep(0.005)
            # Before the next look at the events: a run may save its last ones and end between two looks.
            ended = process.poll()
        resumed = time.perf_counter() - begun
        memory += sampled(process, run, until=n // BATCH)
        if process.wait() != 0:
            raise SystemExit("the resumed run has failed")
    seconds = time.perf_counter() - started
    events = run / "events.jsonl"
    with events.open("rb") as file:
        done = sum(1 for _ in file)
    labels = sum(1 for _ in (run / "labels.jsonl").open())
    if labels != n:
        raise SystemExit(f"{labels} labels of {n} examples")
    return {
        "steps": done,
        "seconds": seconds,
        "memory_mb": [round(value, 1) for _, value in memory],
        "quarter_mb": at_share(memory, 0.25),
        "three_quarters_mb": at_share(memory, 0.75),
        "peak_mb": max(value for _, value in memory),
        "events_bytes": events.stat().st_size,
        "checkpoint_bytes": (run / "checkpoint.json").stat().st_size,
        "resumed_seconds": resumed,
    }


def watched(command: list[str], run: Path, *, until: int) -> list[tuple[float, float]]:
    """Start a run and kill it when so many batches are done; its memory on the way."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        memory = sampled(process, run, until=until)
        process.kill()
    return memory


def sampled(process: subprocess.Popen[bytes], run: Path, *, until: int) -> list[tuple[float, float]]:
    """(batches done, resident MB) about ten times a second until a run has done so many batches or has ended."""
    found: list[tuple[float, float]] = []
    while process.poll() is None:
        done = batches_done(run)
        status = Path(f"/proc/{process.pid}/status").read_text()
        if "VmRSS:" in status:
            found.append((done, int(status.split("VmRSS:")[1].split()[0]) / 1000))
        if done >= until:
            break
        time.sleep(0.1)
    return found


def batches_done(run: Path) -> int:
    """Batches that the checkpoint of a run calls finished."""
    if not (run / "checkpoint.json").exists():
        return 0
    return sum(last - first + 1 for first, last in read_json(run / "checkpoint.json")["done"])


def event_bytes(run: Path) -> int:
    """Bytes of events that the checkpoint of a run stands for."""
    found: int = read_json(run / "checkpoint.json")["event_bytes"]
    return found


def at_share(memory: list[tuple[float, float]], share: float) -> float:
    """Resident MB when that share of the batches was done."""
    whole = memory[-1][0]
    return next(value for done, value in memory if done >= share * whole)


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    cells = (
        f"{row['steps']:,}",
        f"{row['seconds']:,.1f}",
        f"{row['steps'] / row['seconds']:,.0f}",
        f"{row['quarter_mb']:.1f}",
        f"{row['three_quarters_mb']:.1f}",
        f"{row['peak_mb']:.1f}",
        f"{row['events_bytes'] / 1e6:.1f}",
        f"{row['events_bytes'] / row['steps']:.0f}",
        f"{row['checkpoint_bytes']:,}",
        f"{row['resumed_seconds']:.2f}",
    )
    return " ".join(f"{cell:>12}" for cell in cells)


if __name__ == "__main__":
    with mistakes_in_a_line():
        main()
