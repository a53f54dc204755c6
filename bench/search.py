"""Whole searches over the same examples: tokens, seconds, final exact U and label accuracy, against released-style ICM.

``released`` is ICM as the paper's authors released it: contexts in the order of the data, U(D) evaluated anew in full at each
step, nothing kept from one step to the next. It gets one iteration an example, which is the least that labels all of them,
and is charged for those alone; what it leaves without a label is filled in from its final context. ``icm`` and ``sampled`` go
on until every example has a label or they end, the others to their end; ``ensemble`` is what ``elicitor label`` does by
default. ``sampled`` judges proposals by a part of the terms of U. The final U(D) of all labels is evaluated once more, under
one order of demonstrations for all; gold is read afterwards. Rows come as they are done, the slowest last.

    python bench/search.py --model bundled --n 64 --data movie_review_sentiment.jsonl --json search.json
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from arguments import integers, names
from leave_one_out import raw_rate

from elicitor.backends.base import Backend
from elicitor.config import RunConfig, build_config
from elicitor.console import environment
from elicitor.data import Assignment, Dataset
from elicitor.gold import load_gold
from elicitor.labelling import Workload, prepare
from elicitor.metrics import accuracy
from elicitor.models import load_backend
from elicitor.objective import Meter, Problem
from elicitor.search import finish, make_search
from elicitor.search.events import AnyEvent, Proposal
from elicitor.tasks import Task
from elicitor.terminal import mistakes_in_a_line

ARMS: dict[str, dict[str, Any]] = {
    "released": {"search": "icm", "plan.kind": "in_order", "backend.cache_gb": 0},
    "ensemble": {"search": "ensemble"},
    "bootstrap": {"search": "bootstrap"},
    "gibbs": {"search": "gibbs"},
    "icm": {"search": "icm"},
    "sampled": {"search": "icm", "icm.utility": "sampled"},
}
UNTIL_LABELLED = ("released", "icm", "sampled")
HEAD = (
    "seed", "arm", "tokens", "seconds", "tokens/", "seconds/", "of raw", "overhead", "exact U", "accuracy", "labels"
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="file with gold, which no search sees")
    parser.add_argument("--task", default="sentiment")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--n", type=int, default=64, help="examples, the first ones of a seeded shuffle")
    parser.add_argument("--arms", type=names(ARMS), default=",".join(ARMS))
    parser.add_argument("--seeds", type=integers, default="0")
    parser.add_argument("--calibration", default="batch")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    first = settings(options, ARMS["released"], 0).backend.cache_gb
    backends = {first: load_backend(options.model, dtype=options.dtype, cache_gb=first)}
    raw = raw_rate(backends[first], 0)
    print(f"{options.model}, n = {options.n}: raw prefill {raw:,.0f} tokens/s")
    print(" ".join(f"{name:>12}" for name in HEAD), flush=True)
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        for arm in options.arms:
            bound = {"icm.iterations": options.n} if arm == "released" else {}
            config = settings(options, {**ARMS[arm], **bound}, seed)
            memory = config.backend.cache_gb
            if memory not in backends:
                backends[memory] = load_backend(options.model, dtype=options.dtype, cache_gb=memory)
            rows.append({"arm": arm, "seed": seed, **measure(arm, config, backends[memory], options.n)})
            print(line(rows[-1], rows, raw), flush=True)
            if options.json:
                facts = {name: str(value) for name, value in vars(options).items() if name != "json"}
                facts["data"] = Path(options.data).name
                result = {**facts, "raw_tokens_per_second": raw, "rows": rows, "environment": environment()}
                options.json.write_text(json.dumps(result, indent=2) + "\n")


def settings(options: argparse.Namespace, arm: dict[str, Any], seed: int) -> RunConfig:
    """Settings of one search; examples beyond n are left out afterwards, by a shuffle that all arms share."""
    flags = {"data": options.data, "task": options.task, "model": options.model, "seed": seed}
    return build_config(flags={**flags, "objective.calibration": options.calibration, **arm})


def measure(arm: str, config: RunConfig, backend: Backend, n: int) -> dict[str, Any]:
    """One search, its cost, and what its labels are worth."""
    whole = prepare(config, backend=backend)
    workload = Workload(whole.inputs, backend, (some_groups(whole.dataset, n, config.seed),))
    backend.forget()
    meter = Meter()
    problem = workload.problem(0, meter=meter)
    rng = np.random.default_rng([config.seed, 0])
    search = make_search(config, batch=0, tune=_no_training)
    started = time.perf_counter()
    state, _ = search.start(problem, rng=rng)
    events: list[AnyEvent] = []
    while state.finished is None and (arm not in UNTIL_LABELLED or state.assignment.unlabelled):
        state, more = search.step(problem, state, rng=rng)
        events += more
    seconds = time.perf_counter() - started
    spent, evaluations = meter.cost, meter.evaluations
    searched = len(state.assignment.labelled)
    final, _, _ = finish(problem, state, batch=0, rng=rng)
    labels = final.assignment
    return {
        "finished": state.finished or "every example has a label",
        "labelled_by_search": searched,
        "evaluations": evaluations,
        "prompts": spent.prompts,
        "tokens": spent.tokens_computed,
        "tokens_reused": spent.tokens_reused,
        "seconds": seconds,
        "seconds_in_backend": spent.seconds,
        "overhead": 1 - spent.seconds / seconds,
        "decisions": decisions(events),
        **worth(problem, labels, whole.task, config.data),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


def decisions(events: list[AnyEvent]) -> dict[str, int]:
    """How proposals were judged, and how many terms of U were read for those that a part could have decided."""
    judged = [event for event in events if isinstance(event, Proposal) and event.utility_proposed is not None]
    sampled = [event for event in judged if event.terms is not None]
    return {
        "judged": len(judged),
        "accepted": sum(event.accepted for event in judged),
        "by_a_part": sum(event.terms_read is not None for event in sampled),
        "terms_read": sum(event.terms_read or event.terms or 0 for event in sampled),
        "terms": sum(event.terms or 0 for event in sampled),
    }


def some_groups(dataset: Dataset, n: int, seed: int) -> tuple[int, ...]:
    """Positions of at most ``n`` examples, whole groups in a seeded order; ascending."""
    members: dict[str, list[int]] = {}
    for position, example in enumerate(dataset.examples):
        members.setdefault(example.group_id, []).append(position)
    groups = list(members.values())
    chosen: list[int] = []
    for k in np.random.default_rng(seed).permutation(len(groups)):
        if len(chosen) + len(groups[k]) <= n:
            chosen += groups[k]
        if len(chosen) == n:
            break
    return tuple(sorted(chosen))


def worth(problem: Problem, labels: Assignment, task: Task, data: str) -> dict[str, Any]:
    """U of labels under the order of demonstrations that all searches are compared by, and how many agree with gold."""
    golden = load_gold(data, task).labels
    correct = [y == golden[e.id] for y, e in zip(labels.labels, problem.dataset.examples, strict=True)]
    groups = [task.cluster(example) for example in problem.dataset.examples]
    right = accuracy(np.asarray([correct]), groups, rng=np.random.default_rng(0))
    return {
        "exact_utility": problem.utility(labels, rng=np.random.default_rng(12345)).total,
        "label_accuracy": {"value": right.value, "lower": right.lower, "upper": right.upper, "n": right.n},
        "shares": np.bincount([y for y in labels.labels if y is not None], minlength=2).tolist(),
    }


def line(row: dict[str, Any], rows: list[dict[str, Any]], raw: float) -> str:
    """A row of the table; ratios are against released-style ICM of the same seed."""
    base = next((other for other in rows if (other["arm"], other["seed"]) == ("released", row["seed"])), None)
    right = row["label_accuracy"]
    cells = (
        row["seed"],
        row["arm"],
        f"{row['tokens']:,}",
        f"{row['seconds']:,.1f}",
        f"{base['tokens'] / row['tokens']:.2f}" if base else "",
        f"{base['seconds'] / row['seconds']:.2f}" if base else "",
        f"{row['tokens'] / row['seconds'] / raw:.2f}",
        f"{row['overhead']:.1%}",
        f"{row['exact_utility']:.2f}",
        f"{right['value']:.3f}",
        "/".join(map(str, row["shares"])),
    )
    interval = "[no interval]" if right["lower"] is None else f"[{right['lower']:.3f}, {right['upper']:.3f}]"
    return " ".join(f"{cell:>12}" for cell in cells) + f"  {interval}"


def _no_training(_: object) -> Any:
    raise NotImplementedError("searches that train are not compared here")


if __name__ == "__main__":
    with mistakes_in_a_line():
        main()
