"""How often ICM decides alike by a part of the terms of U as by all of them, and what it reads for that.

For n labelled examples (the model's zero-shot labels) labels are proposed in blocks: for examples that have none, and the other
label for some that have one. All terms of each proposal are read once; then the sequential test of ``icm.utility=sampled`` is
played through at several levels, with many draws of the acceptance threshold for each proposal. Tokens are those of the prompts
that it would have read, each shared prefix of a block once.

    python bench/sampled.py --model bundled --n 32,64,128 --data movie_review_sentiment.jsonl --json sampled.json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from arguments import integers, numbers
from search import some_groups

from elicitor.backends.base import Backend, Prompt
from elicitor.backends.trie import token_cost
from elicitor.config import build_config
from elicitor.console import environment
from elicitor.data import Assignment
from elicitor.labelling import Workload, prepare
from elicitor.metrics import mean
from elicitor.models import load_backend
from elicitor.objective import Array, Meter, Problem
from elicitor.plan import TreeOrder
from elicitor.search.first_labels import label_everything
from elicitor.search.judging import asked_about, fresh_order
from elicitor.search.schedule import temperature, threshold
from elicitor.search.sequential import Terms, change, is_decided
from elicitor.search_settings import IcmConfig
from elicitor.terminal import mistakes_in_a_line

DRAWS = 50


@dataclass(frozen=True)
class Proposal:
    """A proposal with all of its terms, in the order in which the search reads them."""

    terms: Terms
    prompts: list[tuple[Prompt, Prompt]]

    def first(self, number: int) -> Terms:
        """What has been read once so many terms are."""
        t = self.terms
        return Terms(
            t.before[:number],
            t.after[:number],
            t.labels[:number],
            t.others,
            t.proposed,
            t.label_before,
            t.label_after,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--task", default="sentiment")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--n", type=integers, default="32,64,128", help="numbers of labelled examples")
    parser.add_argument("--blocks", type=int, default=2, help="blocks of proposals at each number")
    parser.add_argument("--levels", type=numbers, default="0.1,0.05,0.02,0.01,0.005")
    parser.add_argument("--calibration", default="batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    backend = load_backend(options.model, dtype=options.dtype)
    rows: list[dict[str, Any]] = []
    print("    n  level  proposals  agree with exact (95% interval)   terms read   tokens read")
    for n in options.n:
        blocks = proposals(options, backend, n)
        for level in options.levels:
            rows.append({"n": n, "level": level, **play(blocks, n, level, options)})
            row = rows[-1]
            print(
                f"{n:5} {level:6} {row['proposals']:10}  {row['agreement']:32}  {row['terms_read']:10.3f}  "
                f"{row['tokens_read']:10.3f}",
                flush=True,
            )
    if options.json:
        facts = {name: str(value) for name, value in vars(options).items() if name != "json"}
        facts["data"] = Path(options.data).name
        options.json.write_text(json.dumps({**facts, "rows": rows, "environment": environment()}, indent=2) + "\n")


def proposals(options: argparse.Namespace, backend: Backend, n: int) -> list[list[Proposal]]:
    """Blocks of proposals with all of their terms."""
    size = IcmConfig().block_size
    flags = {"data": options.data, "task": options.task, "model": options.model, "seed": options.seed}
    config = build_config(flags={**flags, "objective.calibration": options.calibration})
    whole = prepare(config, backend=backend)
    chosen = some_groups(whole.dataset, n + options.blocks * size // 2, options.seed)
    backend.forget()
    problem = Workload(whole.inputs, backend, (chosen,)).problem(0, meter=Meter())
    rng = np.random.default_rng(options.seed)
    labelled, _ = label_everything(problem, "zero_shot", rng=rng)
    places = rng.permutation(len(chosen)).tolist()
    unlabelled, held = places[n:], places[:n]
    assignment = labelled.with_labels(dict.fromkeys(unlabelled))
    made = []
    for number in range(options.blocks):
        half = slice(number * size // 2, (number + 1) * size // 2)
        block = (*unlabelled[half], *held[half])
        order = fresh_order(assignment, block, rng=rng)
        made.append([whole_terms(problem, assignment, order, picked) for picked in block])
    return made


def whole_terms(problem: Problem, assignment: Assignment, order: TreeOrder, picked: int) -> Proposal:
    """All terms of the label that the others predict for an example, or of the other label if it has that one."""
    row = problem.ask([asked_about(order, picked)], assignment)[0]
    offset = problem.offset(problem.ask(order.contexts(), assignment))
    likely = int(np.argmax(row - offset))
    label = 1 - likely if assignment[picked] == likely else likely
    candidate = assignment.with_labels({picked: label})
    grown = order if picked in order.tail else TreeOrder(order.base, (*order.tail, picked))
    contexts = [context for context in order.contexts() if context.target != picked]
    longer = {context.target: context for context in grown.contexts()}
    after = [longer[context.target] for context in contexts]
    terms = Terms(
        before=problem.ask(contexts, assignment),
        after=problem.ask(after, candidate),
        labels=tuple(y for context in contexts if (y := assignment[context.target]) is not None),
        others=len(contexts),
        proposed=row,
        label_before=assignment[picked],
        label_after=label,
    )
    prompts = [
        (problem.encoder.prompt(short, assignment), problem.encoder.prompt(long, candidate))
        for short, long in zip(contexts, after, strict=True)
    ]
    return Proposal(terms, prompts)


def play(blocks: list[list[Proposal]], n: int, level: float, options: argparse.Namespace) -> dict[str, Any]:
    """Decisions of the sequential test beside the exact ones, and what it read for them."""
    rng = np.random.default_rng(options.seed)
    config = build_config(flags={"data": options.data, "task": options.task}).objective
    config = config.model_copy(update={"calibration": options.calibration})
    # The temperature at which ICM adds its n-th example, if each iteration adds one.
    heat = temperature(n, IcmConfig())
    agreed: list[Array] = []
    read, tokens, all_tokens = [], 0, 0
    for block in blocks:
        sizes = [stages(proposal.terms.others) for proposal in block]
        estimates = [
            {number: change(proposal.first(number), config) for number in some}
            for proposal, some in zip(block, sizes, strict=True)
        ]
        ends = np.zeros((DRAWS, len(block)), dtype=int)
        for k, (some, found) in enumerate(zip(sizes, estimates, strict=True)):
            alike = []
            for draw in range(DRAWS):
                limit = threshold(heat, rng)
                number = next(m for m in some if m == some[-1] or is_decided(found[m], limit, read=m, level=level))
                ends[draw, k] = number
                alike.append((found[number].value > limit) == (found[some[-1]].value > limit))
                read.append(number / some[-1])
            agreed.append(np.asarray(alike, dtype=float))
        everything = [prompt for proposal in block for pair in proposal.prompts for prompt in pair]
        all_tokens += token_cost(everything).tokens_computed * 5
        for draw in range(5):
            some_prompts = [
                prompt
                for proposal, number in zip(block, ends[draw], strict=True)
                for pair in proposal.prompts[:number]
                for prompt in pair
            ]
            tokens += token_cost(some_prompts).tokens_computed
    table = np.stack(agreed, axis=1)
    names = [str(k) for k in range(table.shape[1])]
    return {
        "proposals": len(names),
        "draws": DRAWS,
        "temperature": heat,
        "agreement": str(mean(table.mean(axis=0, keepdims=True), names, rng=np.random.default_rng(0))),
        "terms_read": float(np.mean(read)),
        "tokens_read": tokens / all_tokens,
    }


def stages(others: int) -> list[int]:
    """How many terms are read before each test."""
    numbers = [min(IcmConfig().block_size, others)]
    while numbers[-1] < others:
        numbers.append(min(2 * numbers[-1], others))
    return numbers


if __name__ == "__main__":
    with mistakes_in_a_line():
        main()
