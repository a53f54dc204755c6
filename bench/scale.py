"""How labelling grows with the data: examples against seconds, peak memory and tokens, in one process and on Ray workers.

The fake backend answers at once, so what is measured is elicitor itself. Every run is a process of its own, whose peak
memory is the operating system's figure; with Ray it is the driver's, workers apart. ``bootstrap`` with one round is timed
by default, because the cost of a search depends on its batches alone, never on their number.

    python bench/scale.py --n 1000,10000,100000 --ray-workers 2 --json scale.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from arguments import integers
from leave_one_out import growth

from elicitor.console import environment
from elicitor.terminal import mistakes_in_a_line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=integers, default="1000,10000,100000", help="numbers of examples")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--model", default="fake:reusable=100000")
    parser.add_argument("--search", default="bootstrap")
    parser.add_argument("--ray-workers", type=int, default=2, help="workers of the runs with Ray; 0 leaves them out")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    head = ("n", "where", "seconds", "examples/s", "peak MB", "tokens", "tokens/example", "same labels")
    print(" ".join(f"{name:>14}" for name in head), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for n in options.n:
            data = write_examples(folder / f"{n}.jsonl", n)
            alone = measure(options, data, folder / f"{n}-alone", workers=0)
            rows.append({**alone, "n": n, "same_labels": None})
            show(rows[-1])
            if options.ray_workers:
                spread = measure(options, data, folder / f"{n}-ray", workers=options.ray_workers)
                labels = [(folder / f"{n}-{kind}" / "labels.jsonl").read_bytes() for kind in ("alone", "ray")]
                rows.append({**spread, "n": n, "same_labels": labels[0] == labels[1]})
                show(rows[-1])
    sizes = [row["n"] for row in rows if not row["workers"]]
    exponents = {
        what: growth(sizes, [row[what] for row in rows if not row["workers"]])
        for what in ("tokens", "seconds")
        if len(sizes) > 1
    }
    if exponents:
        print(f"one process: tokens grow as N^{exponents['tokens']:.3f}, seconds as N^{exponents['seconds']:.3f}")
    if options.json:
        settings = {name: str(value) for name, value in vars(options).items() if name != "json"}
        options.json.write_text(
            json.dumps({**settings, "rows": rows, "exponents": exponents, "environment": environment()}, indent=2)
            + "\n"
        )


def write_examples(file: Path, n: int) -> Path:
    """Short texts, no two alike."""
    with file.open("w") as stream:
        for k in range(n):
            text = f"Review {k}: the {k % 97}th thing on the list was {'good' if k % 3 else 'bad'}."
            stream.write(json.dumps({"id": f"e{k}", "text": text}) + "\n")
    return file


def measure(options: argparse.Namespace, data: Path, output: Path, *, workers: int) -> dict[str, Any]:
    """One run of the real command, with the peak memory of its process."""
    command = [sys.executable, "-m", "elicitor", "label", str(data), "--task", "sentiment", "--model", options.model]
    command += ["--search", options.search, "--set", "bootstrap.rounds=1", "--batch-size", str(options.batch_size)]
    command += ["--output-dir", str(output), "--json"]
    if workers:
        command += ["--ray", "local", "--ray-workers", str(workers)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"exit code {process.returncode} of {' '.join(command)}")
    metrics = json.loads((output / "metrics.json").read_text())
    return {
        "workers": workers,
        "seconds": seconds,
        "peak_mb": usage.ru_maxrss / 1024,
        "tokens": metrics["cost"]["tokens_computed"],
    }


def show(row: dict[str, Any]) -> None:
    """Print a row."""
    cells = (
        f"{row['n']:,}",
        f"{row['workers']} workers" if row["workers"] else "one process",
        f"{row['seconds']:,.1f}",
        f"{row['n'] / row['seconds']:,.0f}",
        f"{row['peak_mb']:,.0f}",
        f"{row['tokens']:,}",
        f"{row['tokens'] / row['n']:,.1f}",
        "" if row["same_labels"] is None else str(row["same_labels"]),
    )
    print(" ".join(f"{cell:>14}" for cell in cells), flush=True)


if __name__ == "__main__":
    with mistakes_in_a_line():
        main()
