r"""Quality for the tokens spent: label accuracy and exact U of each search on several data sets and seeds.

Each search runs to its end as ``elicitor label`` runs it, on whole groups of at most ``--n`` examples that the seed draws; gold
is read afterwards. Rows are written as they come, and rows that the file already has are not computed again, so a long
comparison can be stopped and gone on with.

    python bench/quality.py --model bundled --n 32 --seeds 0,1,2,3,4 --json quality.json \
        --data sentiment=movie_review_sentiment.jsonl,truthfulqa=truthfulqa_paper_train.jsonl
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from arguments import integers, names
from search import some_groups, worth

from elicitor.backends.base import Backend
from elicitor.batch_search import BatchStep, search_batch
from elicitor.config import RunConfig, build_config
from elicitor.console import environment
from elicitor.data import Assignment
from elicitor.files import read_json, write_json
from elicitor.gold import load_gold
from elicitor.labelling import Workload, prepare
from elicitor.metrics import mean
from elicitor.models import load_backend
from elicitor.objective import Meter
from elicitor.terminal import mistakes_in_a_line

ARMS: dict[str, dict[str, Any]] = {
    "icm": {"search": "icm"},
    "sampled": {"search": "icm", "icm.utility": "sampled"},
    "gibbs": {"search": "gibbs"},
    "bootstrap": {"search": "bootstrap"},
    "ensemble": {"search": "ensemble"},
    "scalable": {"search": "scalable"},
}
DEFAULT = "ensemble"
"""What ``elicitor label`` does by default."""
KEY = ("task", "data", "arm", "seed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        type=task_files,
        required=True,
        help="TASK=FILE, with commas; gold is in the file and no search sees it",
    )
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--n", type=int, default=32, help="examples, at most")
    parser.add_argument("--arms", type=names(ARMS), default=",".join(ARMS))
    parser.add_argument("--seeds", type=integers, default="0,1,2,3,4")
    parser.add_argument("--calibration", default="batch")
    parser.add_argument("--json", type=Path, help="write the figures to this file, and go on from those in it")
    options = parser.parse_args()

    settings = {name: getattr(options, name) for name in ("model", "dtype", "n", "calibration")}
    rows = known_rows(options.json, settings)
    backend: Backend | None = None
    for seed in options.seeds:
        for task, file in options.data:
            for arm in options.arms:
                key = (*named(task, file), arm, seed)
                if key in {tuple(row[name] for name in KEY) for row in rows}:
                    continue
                backend = backend or load_backend(options.model, dtype=options.dtype)
                flags: dict[str, Any] = {
                    "data": file,
                    "task": task,
                    "model": options.model,
                    "seed": seed,
                    "backend.dtype": options.dtype,
                }
                flags |= {"objective.calibration": options.calibration, **ARMS[arm]}
                if arm == "scalable":
                    flags["scalable.train"] = {"dtype": options.dtype}
                config = build_config(flags=flags)
                row = dict(zip(KEY, key, strict=True)) | measure(config, backend, options.n)
                rows.append(row)
                print(line(row), flush=True)
                if options.json:
                    result = {
                        **settings,
                        "summary": summary(rows),
                        "differences": differences(rows),
                        "rows": rows,
                        "environment": environment(),
                    }
                    write_json(options.json, result)
    print()
    for entry in summary(rows):
        print(
            f"{entry['task']:14} {entry['data']:32} {entry['arm']:>10}  {len(entry['seeds'])} seeds  "
            f"accuracy {entry['accuracy']}  U {entry['utility']}  tokens {entry['tokens']:,.0f}  collapsed {entry['collapsed']}"
        )
    for entry in differences(rows):
        print(
            f"{entry['task']:14} {entry['data']:32} {DEFAULT} - {entry['arm']}  {len(entry['seeds'])} seeds  "
            f"accuracy {entry['accuracy']}  U {entry['utility']}  "
            f"tokens of {entry['arm']} / {DEFAULT} {entry['tokens_ratio']:.2f}"
        )


def task_files(text: str) -> list[tuple[str, str]]:
    """TASK=FILE, with commas between."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(task and file for task, _, file in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not TASK=FILE, with commas between")
    if len({named(task, file) for task, _, file in pairs}) < len(pairs):
        raise argparse.ArgumentTypeError(f"{text!r} names a task and a file twice; rename one of the files")
    return [(task, file) for task, _, file in pairs]


def named(task: str, file: str) -> tuple[str, str]:
    """Task and file as rows name them, without their folders."""
    return Path(task).stem, Path(file).name


def known_rows(file: Path | None, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of an earlier call, which must have had the same settings."""
    if file is None or not file.exists():
        return []
    before = read_json(file)
    rows: list[dict[str, Any]] = before.get("rows", [])
    if any(before.get(name) != value for name, value in settings.items()) or any(KEY[0] not in row for row in rows):
        raise SystemExit(f"{file} was made with other settings: name another file")
    return rows


def measure(config: RunConfig, backend: Backend, n: int) -> dict[str, Any]:
    """One search: what it cost, what came of it, and how accuracy rose with the tokens spent."""
    whole = prepare(config, backend=backend)
    workload = Workload(whole.inputs, backend, (some_groups(whole.dataset, n, config.seed),))
    problem = workload.problem(0, meter=Meter())
    golden = load_gold(config.data, whole.task).labels
    gold = [golden[example.id] for example in problem.dataset.examples]
    curve: list[dict[str, Any]] = []

    def watch(step: BatchStep) -> None:
        held = [(y, g) for y, g in zip(step.state.assignment.labels, gold, strict=True) if y is not None]
        curve.append(
            {
                "tokens": (step.moment.meter or {})["cost"]["tokens_computed"],
                "labelled": len(held),
                "accuracy": sum(y == g for y, g in held) / len(held),
                "utility": step.state.utility.total,
            }
        )

    started = time.perf_counter()
    result = search_batch(workload.inputs.job(0, workload.batches[0]), backend, on_step=watch)
    seconds = time.perf_counter() - started
    labels = Assignment(tuple(problem.dataset.label_space.labels.index(found["label"]) for found in result.labels))
    return {
        "n": len(gold),
        "finished": result.metrics["finished"],
        "filled": result.metrics["filled"],
        "prompts": result.meter.cost.prompts,
        "tokens": result.meter.cost.tokens_computed,
        "seconds": seconds,
        **worth(problem, labels, whole.task, config.data),
        "curve": curve,
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds with intervals; a seed draws examples and search alike."""
    cells: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        cells[row["task"], row["data"], row["arm"]].append(row)
    return [
        {
            "task": task,
            "data": data,
            "arm": arm,
            "seeds": [row["seed"] for row in some],
            "accuracy": over_seeds([row["label_accuracy"]["value"] for row in some], bounds=(0, 1)),
            "utility": over_seeds([row["exact_utility"] for row in some]),
            "tokens": float(np.mean([row["tokens"] for row in some])),
            "collapsed": sum(min(row["shares"]) == 0 for row in some),
        }
        for (task, data, arm), some in cells.items()
    ]


def differences(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The default search less each other one, seed by seed on the same examples; seeds that both have."""
    cells: dict[tuple[str, str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        cells[row["task"], row["data"], row["arm"]][row["seed"]] = row
    found = []
    for (task, data, arm), other in cells.items():
        default = cells.get((task, data, DEFAULT), {})
        seeds = sorted(default.keys() & other.keys())
        if arm == DEFAULT or not seeds:
            continue
        pairs = [(default[seed], other[seed]) for seed in seeds]
        found.append(
            {
                "task": task,
                "data": data,
                "arm": arm,
                "seeds": seeds,
                "accuracy": over_seeds(
                    [a["label_accuracy"]["value"] - b["label_accuracy"]["value"] for a, b in pairs], bounds=(-1, 1)
                ),
                "utility": over_seeds([a["exact_utility"] - b["exact_utility"] for a, b in pairs]),
                "tokens_ratio": sum(b["tokens"] for _, b in pairs) / sum(a["tokens"] for a, _ in pairs),
            }
        )
    return found


def over_seeds(values: list[float], *, bounds: tuple[float, float] | None = None) -> str:
    """Mean over seeds with a 95% interval, by bootstrap over seeds."""
    seeds = list(map(str, range(len(values))))
    return str(mean(np.asarray([values]), seeds, rng=np.random.default_rng(0), bounds=bounds))


def line(row: dict[str, Any]) -> str:
    right = row["label_accuracy"]
    return (
        f"{row['task']} {row['data']} {row['arm']} seed {row['seed']}: accuracy {right['value']:.3f}, "
        f"U {row['exact_utility']:.1f}, {row['tokens']:,} tokens, {row['seconds']:.0f} s, labels {row['shares']}, "
        f"{row['finished']}"
    )


if __name__ == "__main__":
    with mistakes_in_a_line():
        main()
