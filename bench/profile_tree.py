"""What stops the leave-one-out tree from reaching the machine's limit: where the time of one exact U(D) goes.

The tree and one forward pass over a prompt as long as its longest context (the limit, measured before and after it) are run on
the same short texts, with matrix products and attention timed apart. Seconds are CPU seconds of the process, so that
other work on the machine does not count; give one thread (``OMP_NUM_THREADS=1``), for idle threads spin.

    OMP_NUM_THREADS=1 python bench/profile_tree.py --model bundled --n 32,512 --json profile_tree.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arguments import integers
from leave_one_out import short_examples, tree_prompts
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from elicitor.console import environment
from elicitor.errors import BackendError
from elicitor.models import load_backend
from elicitor.terminal import mistakes_in_a_line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled", help="a model of transformers: bundled, gguf:FILE, hf:NAME")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--n", type=integers, default="32,256", help="numbers of labelled examples, half texts each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    backend: Any = load_backend(options.model, dtype=options.dtype, cache_gb=0)
    model = getattr(backend, "_model", None)
    if model is None:
        raise BackendError(f"{options.model} is not computed here", fix="name bundled, gguf:FILE, hf:NAME or a folder")
    print(f"{options.model}: {backend.describe()}, {torch.get_num_threads()} threads")
    head = ("n", "what", "tokens", "CPU s", "tokens/CPU s", "products", "attention", "rest", "keys/token")
    print(" ".join(f"{name:>13}" for name in head), flush=True)
    rows = []
    for n in options.n:
        encoder, assignment = short_examples(backend, n, options.seed, halves=True)
        tree = tree_prompts(encoder, assignment, n, np.random.default_rng(options.seed))
        length = max(len(prompt) for prompt in tree)
        ids = torch.tensor(np.random.default_rng(options.seed).integers(100, 250, size=(1, length)))

        def limit(ids: torch.Tensor = ids) -> int:
            with torch.inference_mode():
                model(input_ids=ids.to(model.device), use_cache=False, logits_to_keep=1)
            return len(ids[0])

        def whole(tree: Any = tree) -> int:
            return int(backend.score(tree).cost.tokens_computed)

        limit()
        for what, work in (("limit", limit), ("tree", whole), ("limit", limit)):
            rows.append({"n": n, "what": what, **profile(model, work)})
            print(line(rows[-1]), flush=True)
    if options.json:
        facts = {name: str(value) for name, value in vars(options).items() if name != "json"}
        options.json.write_text(json.dumps({**facts, "rows": rows, "environment": environment()}, indent=2) + "\n")


def profile(model: Any, work: Callable[[], int]) -> dict[str, Any]:
    """What some forward passes of a model spend their time on.

    Args:
        model: A transformers model.
        work: Runs it and returns the number of tokens it computed.

    Returns:
        Tokens, CPU seconds in all, in matrix products and in attention, and how many keys a token saw on average.
    """
    with timed(model) as found:
        begun = time.process_time()
        tokens = work()
        seconds = time.process_time() - begun
    return {
        "tokens": tokens,
        "cpu_seconds": seconds,
        "products_seconds": found["products"],
        "attention_seconds": found["attention"],
        "keys_a_token": found["keys"] / found["queries"],
    }


@contextmanager
def timed(model: Any) -> Iterator[dict[str, float]]:
    """Add up CPU seconds in a model's linear layers and in its attention, its queries, and the keys they see."""
    found = dict.fromkeys(("products", "attention", "queries", "keys"), 0.0)
    begun = 0.0

    def before(*_: Any) -> None:
        nonlocal begun
        begun = time.process_time()

    def after(*_: Any) -> None:
        found["products"] += time.process_time() - begun

    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    hooks = [layer.register_forward_pre_hook(before) for layer in layers]
    hooks += [layer.register_forward_hook(after) for layer in layers]
    name = model.config.get_text_config()._attn_implementation
    attend = ALL_ATTENTION_FUNCTIONS[name]

    def watched(module: Any, query: Any, key: Any, *rest: Any, **options: Any) -> Any:
        start = time.process_time()
        output = attend(module, query, key, *rest, **options)
        found["attention"] += time.process_time() - start
        queries, keys = query.shape[0] * query.shape[2], key.shape[2]
        found["queries"] += queries
        # The new tokens see one another in a triangle, or in branches of it.
        found["keys"] += queries * (keys - query.shape[2] / 2)
        return output

    ALL_ATTENTION_FUNCTIONS.register(name, watched)
    try:
        yield found
    finally:
        ALL_ATTENTION_FUNCTIONS.register(name, attend)
        for hook in hooks:
            hook.remove()


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    seconds, products, attention = (row[f"{name}_seconds"] for name in ("cpu", "products", "attention"))
    cells = (
        f"{row['n']}",
        row["what"],
        f"{row['tokens']:,}",
        f"{seconds:.1f}",
        f"{row['tokens'] / seconds:.1f}",
        f"{products / seconds:.0%}",
        f"{attention / seconds:.0%}",
        f"{1 - (products + attention) / seconds:.0%}",
        f"{row['keys_a_token']:,.0f}",
    )
    return " ".join(f"{cell:>13}" for cell in cells)


if __name__ == "__main__":
    with mistakes_in_a_line():
        main()
