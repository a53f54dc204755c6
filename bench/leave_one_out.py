"""What the leave-one-out tree saves: naive, in_order and tree on the same labelled examples, with exactness.

Token counts are exact for every row. Seconds of a plan that would take too long are measured on evenly spaced queries of
it and scaled by tokens (marked ``~``); ``--full`` measures all of them. Nothing is reused between rows.

    python bench/leave_one_out.py --model bundled --n 32,64,128,256 --json leave_one_out.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elicitor.backends.base import Backend, Prompt
from elicitor.backends.trie import token_cost
from elicitor.console import environment
from elicitor.data import Assignment, load_dataset
from elicitor.models import load_backend
from elicitor.plan import in_order, tree_order
from elicitor.prompts import PromptEncoder
from elicitor.tasks import load_task

RAW_TOKENS = 2048
TEXTS = [Path(__file__).parent / "candidates" / f"{name}.jsonl" for name in ("sentiment", "topic", "subj")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--n", default="32,64,128,256", help="numbers of labelled examples")
    parser.add_argument(
        "--sample", type=int, default=6, help="queries on which long plans are timed and scores checked"
    )
    parser.add_argument("--full", action="store_true", help="time and check every query")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    sizes = [int(part) for part in options.n.split(",")]

    backend = load_backend(options.model, dtype=options.dtype)
    encoder, assignment = short_examples(backend, max(sizes), options.seed)
    raw = raw_rate(backend, options.seed)
    print(f"{options.model}: raw prefill of {RAW_TOKENS:,} tokens {raw:,.0f} tokens/s")
    head = (
        "n",
        "plan",
        "prompt tokens",
        "demos",
        "seconds",
        "tokens/s",
        "of raw",
        "tokens/tree",
        "seconds/tree",
        "max diff",
    )
    print(" ".join(f"{name:>13}" for name in head), flush=True)
    rows = []
    for n in sizes:
        sample = n if options.full else options.sample
        for row in measure(backend, encoder, assignment, n, sample=sample, seed=options.seed, raw=raw):
            rows.append(row)
            print(" ".join(f"{cell:>13}" for cell in cells(row)), flush=True)
    print("max diff: largest difference, in nats, between tree scores and the same prompts run from scratch one by one")
    if options.json:
        result = {"model": options.model, "raw_tokens_per_second": raw, "rows": rows, "environment": environment()}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def short_examples(backend: Backend, n: int, seed: int) -> tuple[PromptEncoder, Assignment]:
    """The first ``n`` of the shipped short texts that fit one context together, with random labels."""
    texts = [json.loads(line)["text"] for file in TEXTS for line in file.read_text().splitlines()]
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


def measure(
    backend: Backend, encoder: PromptEncoder, assignment: Assignment, n: int, *, sample: int, seed: int, raw: float
) -> list[dict[str, Any]]:
    """The three rows of one size; naive is every prompt of the tree run on its own."""
    order = tree_order(range(n), np.random.default_rng(seed))
    tree = [encoder.prompt(context, assignment) for context in order.contexts()]
    plain = [encoder.prompt(context, assignment) for context in in_order(range(n))]
    started = time.perf_counter()
    scores = backend.score(tree)
    tree_seconds = time.perf_counter() - started
    tree_tokens = scores.cost.tokens_computed

    picked = evenly_spaced(n, sample)
    started = time.perf_counter()
    scratch = np.concatenate([backend.score([tree[k]]).log_probs for k in picked])
    naive_seconds = time.perf_counter() - started
    timed = sum(token_cost([tree[k]]).tokens_computed for k in picked)
    naive_tokens = sum(token_cost([prompt]).tokens_computed for prompt in tree)
    difference = float(np.abs(scratch - scores.log_probs[picked]).max())

    some = [plain[k] for k in picked]
    started = time.perf_counter()
    some_tokens = backend.score(some).cost.tokens_computed
    in_order_seconds = time.perf_counter() - started
    in_order_tokens = token_cost(plain).tokens_computed

    queries = sum(len(encoder.query(i)) for i in range(n))

    def row(plan: str, tokens: int, seconds: float, timed_tokens: int) -> dict[str, Any]:
        share = timed_tokens / tokens
        return {
            "n": n,
            "plan": plan,
            "tokens": tokens,
            "demonstration_tokens": tokens - queries,
            "seconds": seconds / share,
            "share_timed": share,
            "tokens_per_second": timed_tokens / seconds,
            "share_of_raw": timed_tokens / seconds / raw,
            "tokens_over_tree": tokens / tree_tokens,
            "demonstration_tokens_over_tree": (tokens - queries) / (tree_tokens - queries),
            "seconds_over_tree": seconds / share / tree_seconds,
            "max_difference_nats": difference if plan == "tree" else None,
            "checked_queries": len(picked) if plan == "tree" else None,
        }

    return [
        row("naive", naive_tokens, naive_seconds, timed),
        row("in_order", in_order_tokens, in_order_seconds, some_tokens),
        row("tree", tree_tokens, tree_seconds, tree_tokens),
    ]


def cells(row: dict[str, Any]) -> Sequence[str]:
    """A row as text."""
    scaled = "" if row["share_timed"] > 0.999 else "~"
    difference = row["max_difference_nats"]
    return (
        str(row["n"]),
        row["plan"],
        f"{row['tokens']:,}",
        f"{row['demonstration_tokens']:,}",
        f"{scaled}{row['seconds']:,.1f}",
        f"{row['tokens_per_second']:,.0f}",
        f"{row['share_of_raw']:.2f}",
        f"{row['tokens_over_tree']:.2f}",
        f"{scaled}{row['seconds_over_tree']:.2f}",
        "" if difference is None else f"{difference:.1e}",
    )


def evenly_spaced(n: int, count: int) -> list[int]:
    """At most ``count`` indices below ``n``, from both ends inwards."""
    return sorted({int(k) for k in np.linspace(0, n - 1, min(n, count)).round()})


def raw_rate(backend: Backend, seed: int) -> float:
    """Tokens a second of one long prompt, the better of two."""
    ids = np.random.default_rng(seed).integers(100, 250, size=(3, RAW_TOKENS)).tolist()
    rates = []
    for tokens in ids:
        started = time.perf_counter()
        backend.score([Prompt((tuple(tokens),), ((1,), (2,)))])
        rates.append(RAW_TOKENS / (time.perf_counter() - started))
    return max(rates[1:])


if __name__ == "__main__":
    main()
