"""What one exact U(D) costs: every plan on the same labelled examples, beside the machine's own limit.

``naive`` runs each prompt of the tree on its own, ``in_order`` is the order of the paper's release with its prefixes shared,
``folds`` leaves out whole folds (fewer demonstrations, so not the same U), ``depth first`` is the leave-one-out tree one append
at a time, ``tree`` the same with its bottom packed into passes under a tree mask. Token counts are exact for every row.
Seconds of naive and in_order are measured on evenly spaced queries and scaled by tokens (marked ``~``); ``--full`` measures all
of them. The limit is one forward pass over a prompt as long as the longest context, nothing cached. Overhead is the share of
wall time outside the model's forward passes. Nothing is reused between rows.

    python bench/leave_one_out.py --model bundled --n 32,64,128,256 --json leave_one_out.json
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from arguments import integers

from elicitor.backends.base import Backend, Prompt
from elicitor.backends.trie import token_cost
from elicitor.console import environment
from elicitor.data import Assignment, load_dataset
from elicitor.models import load_backend
from elicitor.plan import folds, in_order, tree_order
from elicitor.prompts import PromptEncoder
from elicitor.tasks import load_task
from elicitor.terminal import mistakes_in_a_line

RAW_TOKENS = 2048
TEXTS = [Path(__file__).parent / "candidates" / f"{name}.jsonl" for name in ("sentiment", "topic", "subj")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--n", type=integers, default="32,64,128,256", help="numbers of labelled examples")
    parser.add_argument(
        "--sample", type=int, default=6, help="queries on which long plans are timed and scores checked"
    )
    parser.add_argument("--full", action="store_true", help="time and check every query")
    parser.add_argument(
        "--halves", action="store_true", help="use half texts: 512 of them fit a window of 8,192 tokens"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    sizes = options.n

    backend = load_backend(options.model, dtype=options.dtype, cache_gb=0)
    unpacked = load_backend(options.model, dtype=options.dtype, cache_gb=0, pack_tokens=0)
    encoder, assignment = short_examples(backend, max(sizes), options.seed, halves=options.halves)
    print(f"{options.model}: {getattr(backend, 'describe', dict)()}")
    head = (
        "n",
        "plan",
        "prompt tokens",
        "demos",
        "seconds",
        "tokens/s",
        "limit",
        "of limit",
        "overhead",
        "tokens/tree",
        "seconds/tree",
        "max diff",
        "peak MB",
    )
    print(" ".join(f"{name:>13}" for name in head), flush=True)
    # The first run of a process is slower than those that follow it in a search: the tree of 32 took 8 s, then 6.4.
    backend.score(tree_prompts(encoder, assignment, min(sizes), np.random.default_rng(options.seed)))
    rows = []
    for n in sizes:
        sample = n if options.full else options.sample
        for row in measure(backend, unpacked, encoder, assignment, n, sample=sample, seed=options.seed):
            rows.append(row)
            print(" ".join(f"{cell:>13}" for cell in cells(row)), flush=True)
    print("max diff: largest difference, in nats, between tree scores and the same prompts run from scratch one by one")
    exponents = {
        plan: {
            what: growth(
                [row["n"] for row in rows if row["plan"] == plan], [r[what] for r in rows if r["plan"] == plan]
            )
            for what in ("tokens", "seconds")
        }
        for plan in ("naive", "in_order", "folds", "depth first", "tree")
        if len(sizes) > 1
    }
    for plan, found in exponents.items():
        print(f"{plan}: tokens grow as n^{found['tokens']:.2f}, seconds as n^{found['seconds']:.2f}")
    if options.json:
        facts = {name: str(value) for name, value in vars(options).items() if name != "json"}
        result = {**facts, "rows": rows, "exponents": exponents, "environment": environment()}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def short_examples(backend: Backend, n: int, seed: int, *, halves: bool = False) -> tuple[PromptEncoder, Assignment]:
    """The first ``n`` of the shipped short texts that fit one context together, with random labels."""
    texts = [json.loads(line)["text"] for file in TEXTS for line in file.read_text().splitlines()]
    if halves:
        words = [text.split() for text in texts]
        texts = [" ".join(half) for some in words for half in (some[: len(some) // 2], some[len(some) // 2 :])]
    texts = list(dict.fromkeys(texts))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.jsonl"
        file.write_text("".join(json.dumps({"id": str(k), "text": text}) + "\n" for k, text in enumerate(texts)))
        task = load_task("sentiment")
        dataset = load_dataset(str(file), task)
    encoder = PromptEncoder(backend.tokenizer, task, dataset)
    shortest = np.argsort([encoder.longest_demonstration(i) for i in range(len(dataset))], kind="stable")[:n]
    chosen = dataset.subset(tuple(sorted(int(i) for i in shortest)))
    labels = np.random.default_rng(seed).integers(2, size=n)
    return PromptEncoder(backend.tokenizer, task, chosen), Assignment(tuple(int(y) for y in labels))


def tree_prompts(encoder: PromptEncoder, assignment: Assignment, n: int, rng: np.random.Generator) -> list[Prompt]:
    """The leave-one-out prompts of the first ``n`` examples, in the tree's order."""
    return [encoder.prompt(context, assignment) for context in tree_order(range(n), rng).contexts()]


class Timed:
    """Scores prompts and tells seconds in all and inside the model's forward passes."""

    def __init__(self, backend: Any, prompts: Sequence[Prompt]) -> None:
        model = getattr(backend, "_model", None)
        self.inside = 0.0
        begun = 0.0

        def before(*_: Any) -> None:
            nonlocal begun
            begun = time.perf_counter()

        def after(*_: Any) -> None:
            self.inside += time.perf_counter() - begun

        hooks = [model.register_forward_pre_hook(before), model.register_forward_hook(after)] if model else []
        started = time.perf_counter()
        self.scores = backend.score(prompts)
        self.seconds = time.perf_counter() - started
        for hook in hooks:
            hook.remove()

    @property
    def tokens(self) -> int:
        """Prompt tokens computed."""
        return int(self.scores.cost.tokens_computed)


def measure(
    backend: Backend,
    unpacked: Backend,
    encoder: PromptEncoder,
    assignment: Assignment,
    n: int,
    *,
    sample: int,
    seed: int,
) -> list[dict[str, Any]]:
    """The rows of one size; naive is every prompt of the tree run on its own."""
    rng = np.random.default_rng(seed)
    tree = tree_prompts(encoder, assignment, n, rng)
    plain = [encoder.prompt(context, assignment) for context in in_order(range(n))]
    left_out = [encoder.prompt(context, assignment) for context in folds(range(n), rng, n_folds=8)]
    limit = raw_rate(backend, seed, length=max(len(prompt) for prompt in tree))
    picked = evenly_spaced(n, sample)

    packed = Timed(backend, tree)
    one_by_one = Timed(unpacked, tree)
    in_folds = Timed(backend, left_out)
    alone = [Timed(backend, [tree[k]]) for k in picked]
    some = Timed(backend, [plain[k] for k in picked])
    scratch = np.concatenate([timed.scores.log_probs for timed in alone])
    differences = {
        "tree": float(np.abs(scratch - packed.scores.log_probs[picked]).max()),
        "depth first": float(np.abs(scratch - one_by_one.scores.log_probs[picked]).max()),
    }
    queries = sum(len(encoder.query(i)) for i in range(n))

    def row(plan: str, tokens: int, timed: Sequence[Timed]) -> dict[str, Any]:
        seconds, ran = sum(t.seconds for t in timed), sum(t.tokens for t in timed)
        share = ran / tokens
        return {
            "n": n,
            "plan": plan,
            "tokens": tokens,
            "demonstration_tokens": tokens - queries,
            "seconds": seconds / share,
            "share_timed": share,
            "tokens_per_second": ran / seconds,
            "limit_tokens_per_second": limit,
            "share_of_limit": ran / seconds / limit,
            "overhead": 1 - sum(t.inside for t in timed) / seconds if any(t.inside for t in timed) else None,
            "tokens_over_tree": tokens / packed.tokens,
            "seconds_over_tree": seconds / share / packed.seconds,
            "max_difference_nats": differences.get(plan),
            "checked_queries": len(picked) if plan in differences else None,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        }

    return [
        row("naive", sum(token_cost([prompt]).tokens_computed for prompt in tree), alone),
        row("in_order", token_cost(plain).tokens_computed, [some]),
        row("folds", in_folds.tokens, [in_folds]),
        row("depth first", one_by_one.tokens, [one_by_one]),
        row("tree", packed.tokens, [packed]),
    ]


def cells(row: dict[str, Any]) -> Sequence[str]:
    """A row as text."""
    scaled = "" if row["share_timed"] > 0.999 else "~"
    difference, overhead = row["max_difference_nats"], row["overhead"]
    return (
        str(row["n"]),
        row["plan"],
        f"{row['tokens']:,}",
        f"{row['demonstration_tokens']:,}",
        f"{scaled}{row['seconds']:,.1f}",
        f"{row['tokens_per_second']:,.0f}",
        f"{row['limit_tokens_per_second']:,.0f}",
        f"{row['share_of_limit']:.2f}",
        "" if overhead is None else f"{overhead:.1%}",
        f"{row['tokens_over_tree']:.2f}",
        f"{scaled}{row['seconds_over_tree']:.2f}",
        "" if difference is None else f"{difference:.1e}",
        f"{row['peak_mb']:,.0f}",
    )


def growth(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Exponent of a power law: slope of a straight line through logarithms, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def evenly_spaced(n: int, count: int) -> list[int]:
    """At most ``count`` indices below ``n``, from both ends inwards."""
    return sorted({int(k) for k in np.linspace(0, n - 1, min(n, count)).round()})


def raw_rate(backend: Any, seed: int, *, length: int = RAW_TOKENS) -> float:
    """Tokens a second of one forward pass over a long prompt, the best of three."""
    model = getattr(backend, "_model", None)
    rates = []
    for tokens in np.random.default_rng(seed).integers(100, 250, size=(3, length)).tolist():
        started = time.perf_counter()
        if model is None:
            backend.score([Prompt((tuple(tokens),), ((1,), (2,)))])
        else:
            import torch

            with torch.inference_mode():
                model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False, logits_to_keep=1)
        rates.append(length / (time.perf_counter() - started))
    return max(rates)


if __name__ == "__main__":
    with mistakes_in_a_line():
        main()
