"""What a run will cost, before it runs: prompts, prompt tokens, time, and two prompts to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from elicitor.backends.base import RemoteBackend
from elicitor.backends.score_cache import uncached
from elicitor.backends.trie import token_cost
from elicitor.config import RunConfig
from elicitor.data import Assignment
from elicitor.labelling import Workload
from elicitor.objective import MIN_TAIL, Meter, Problem
from elicitor.plan import Context
from elicitor.prompt_tokens import (
    both_counts,
    evaluation_tokens,
    first_labelled,
    plan_prompts,
    proposal_tokens,
    rest_tokens,
)
from elicitor.search.bootstrap import n_kept
from elicitor.search.ensemble import deal_folds
from elicitor.search.first_labels import first_count
from elicitor.search.gibbs import block_contexts, deal_blocks
from elicitor.search_settings import BootstrapConfig, EnsembleConfig, GibbsConfig, IcmConfig, ScalableConfig

_GRID = 10
"""Sizes of the labelled set at which tokens are counted exactly; between them they are interpolated."""

_RATE_TOKENS = 4_096
"""Prompt tokens by which the rate is measured at most: a dry run of long texts must not take minutes."""

_TRAINED = 3
"""Forward passes that take as long as training on the same tokens: one forward, and backward about two."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """Estimate of a run.

    Attributes:
        n_examples: Examples to label.
        batch_sizes: Examples of each batch.
        evaluations: (least, most) evaluations of U(D): least if every first label is accepted and none changes later,
            most if every further step changes one.
        prompts: (least, most) queries.
        tokens: (least, most) prompt tokens computed, each shared prefix once, and tokens trained on, each time.
        tokens_sent: (least, most) prompt tokens of all queries, shared prefixes counted again: what a hosted model bills, less
            its discount for what its prefix cache held.
        price: (least, most) price of ``tokens_sent``; None where no price is known.
        tokens_per_second: Measured on this machine with one small evaluation; None for a model behind a server, to which a
            dry run sends nothing.
        seconds: (least, most) time; None if it is unknown.
        rendered_prompts: Two prompts as text, the first zero-shot, the second with two demonstrations.
    """

    n_examples: int
    batch_sizes: list[int]
    evaluations: tuple[int, int]
    prompts: tuple[int, int]
    tokens: tuple[int, int]
    tokens_sent: tuple[int, int]
    price: tuple[float, float] | None
    tokens_per_second: float | None
    seconds: tuple[float, float] | None
    rendered_prompts: list[str]


def estimate(workload: Workload) -> DryRun:
    """Estimate what a run will cost.

    Args:
        workload: The run's inputs.

    Returns:
        Bounds that hold for any labels the search may find, as far as demonstrations of all labels are equally long.
    """
    rng = np.random.default_rng(workload.config.seed)
    totals = np.zeros((4, 2), dtype=np.int64)
    trained = np.zeros(2, dtype=np.int64)
    for batch in range(len(workload.batches)):
        problem = workload.problem(batch, meter=Meter())
        totals += _bounds(workload, problem, rng=rng)
        if workload.config.search == "scalable":
            trained += training_tokens(problem, workload.config)
    totals[2:] += trained
    evaluations, prompts, tokens, sent = ((least, most) for least, most in totals.tolist())
    backend = workload.backend
    price = backend.price_per_million if isinstance(backend, RemoteBackend) else None
    # Sending prompts to a server may cost money, and a dry run must not.
    is_remote = isinstance(backend, RemoteBackend)
    rate = None if is_remote else _measured_rate(workload.problem(0, meter=Meter()), rng=rng)
    return DryRun(
        n_examples=len(workload.dataset),
        batch_sizes=[len(batch) for batch in workload.batches],
        evaluations=evaluations,
        prompts=prompts,
        tokens=tokens,
        tokens_sent=sent,
        price=None if price is None else (sent[0] * price / 1e6, sent[1] * price / 1e6),
        tokens_per_second=rate,
        seconds=None if rate is None else tuple((totals[2] + (_TRAINED - 1) * trained) / rate),
        rendered_prompts=_render_two(workload.problem(0, meter=Meter())),
    )


def _bounds(workload: Workload, problem: Problem, *, rng: np.random.Generator) -> np.ndarray:
    """Rows: evaluations, prompts, tokens computed, tokens sent; columns: least, most."""
    n = len(problem.dataset)
    if workload.config.search == "bootstrap":
        return bootstrap_bounds(problem, workload.config.bootstrap, rng=rng)
    if workload.config.search == "ensemble":
        return ensemble_bounds(problem, workload.config.ensemble, rng=rng)
    if workload.config.search == "gibbs":
        return gibbs_bounds(problem, workload.config.gibbs, rng=rng)
    if workload.config.search == "scalable":
        return scalable_bounds(problem, workload.config.scalable)
    seeds = first_count(problem, workload.config.icm)
    budget = workload.config.icm.iterations or 3 * n
    growth = np.arange(seeds, min(n, seeds + budget) + 1)
    sizes = np.unique(np.linspace(growth[0], growth[-1], _GRID).astype(int))
    computed, unshared = (
        np.interp(growth, sizes, row) for row in evaluation_tokens(problem, sizes.tolist(), rng=rng).T
    )
    alone = np.interp(growth, sizes, proposal_tokens(problem, sizes.tolist()))
    if workload.config.icm.utility == "sampled":
        bounds = _sampled_bounds(problem, workload.config.icm, growth, budget, computed, unshared, alone)
    else:
        bounds = _exact_bounds(problem, growth, budget, computed, unshared, alone)
    if growth[-1] < n:
        # Too few iterations for all examples: the rest is filled in, and more of it where fewer labels were accepted.
        bounds += _filled(problem, int(growth[-1]), rng=rng)[:, None]
        stalled = np.asarray([1, seeds, computed[0], unshared[0]], dtype=np.int64) + _filled(problem, seeds, rng=rng)
        bounds[:, 0] = np.minimum(bounds[:, 0], stalled)
    return bounds


def _exact_bounds(
    problem: Problem, growth: np.ndarray, budget: int, computed: np.ndarray, unshared: np.ndarray, alone: np.ndarray
) -> np.ndarray:
    """Bounds where all terms of U decide; arguments and result as in `_sampled_bounds`."""
    renewed, tokens = _growth_tokens(problem, growth, computed, alone)
    grow = np.asarray(
        [
            len(growth),
            growth.sum() + len(growth),
            computed[0] + tokens,
            unshared.sum() + unshared[:-1][renewed].sum() + alone[:-1].sum(),
        ]
    )
    rest = max(0, budget - (len(growth) - 1))
    # A changed label is judged twice under a new order, once with the label before and once with the one after.
    twice = 2 if problem.plan.kind == "tree" and _is_kept(problem, computed[-1]) else 1
    again = np.asarray([twice, twice * growth[-1], twice * computed[-1], twice * unshared[-1]])
    return np.stack([grow, grow + rest * again], axis=1).astype(np.int64)


def _sampled_bounds(
    problem: Problem,
    config: IcmConfig,
    growth: np.ndarray,
    budget: int,
    computed: np.ndarray,
    unshared: np.ndarray,
    alone: np.ndarray,
) -> np.ndarray:
    """Bounds where a part of the terms of U decides: the first few of each proposal, or all under an order of its own.

    Args:
        problem: What it would label.
        config: Its settings.
        growth: Labelled examples from the first labels to the end.
        budget: Iterations at most.
        computed: Prompt tokens of one U(D) at each of those numbers.
        unshared: The same with no prefix shared.
        alone: Prompt tokens of asking about one example behind as many.
    """
    positions = range(len(problem.dataset))
    query = float(np.mean([len(problem.encoder.query(i)) for i in positions]))
    read = np.minimum(config.block_size, growth[:-1])
    least = np.asarray(
        [
            2,
            growth[0] + growth[-1] + (1 + read).sum(),
            computed[0] + query * (1 + read).sum(),
            unshared[0] + unshared[-1],
        ]
    )
    steps = np.concatenate([growth[1:], np.full(max(0, budget - len(growth) + 1), growth[-1])])
    # Before and after; once more for a proposal that contradicts others, which is judged exactly under a new order.
    times = 3 if problem.constraints.all else 2
    most = np.asarray(
        [
            2 + times * len(steps),
            growth[0] + growth[-1] + (1 + times * steps).sum(),
            computed[0] + computed[-1] + (np.interp(steps, growth, alone + times * computed)).sum(),
            unshared[0] + unshared[-1] + (np.interp(steps, growth, alone + times * unshared)).sum(),
        ]
    )
    return np.stack([least, most], axis=1).astype(np.int64)


def bootstrap_bounds(
    problem: Problem, config: BootstrapConfig, *, rng: np.random.Generator, fill: bool = True
) -> np.ndarray:
    """Least and most that a bootstrap can cost.

    Args:
        problem: What it would label; where a filter leaves labels out, the first examples are counted as those that stay.
        config: Its settings.
        rng: Orders demonstrations.
        fill: Whether what a filter leaves out gets its labels at the end, as in a run.

    Returns:
        Shape (4, 2): evaluations, prompts, tokens computed, tokens sent; least and most.
    """
    n = len(problem.dataset)
    kept = n_kept(n, config.keep)
    whole = evaluation_tokens(problem, [kept], rng=rng)[0]
    rounds = np.asarray([1, 1 + config.rounds])
    start = n if config.start == "zero_shot" else 0
    zero_shot = both_counts([problem.encoder.prompt(Context(i, ()), Assignment.empty(n)) for i in range(start)])
    bounds = np.stack([rounds, rounds * kept + start, *(np.outer(whole, rounds) + zero_shot[:, None])])
    if kept == n:
        return bounds
    # What a filter leaves out is asked about after every round.
    times = np.asarray([1, config.rounds])
    bounds += np.stack([[0, 0], times * (n - kept), *np.outer(rest_tokens(problem, kept), times)])
    return np.asarray(bounds + _filled(problem, kept, rng=rng)[:, None]) if fill else bounds


def ensemble_bounds(problem: Problem, config: EnsembleConfig, *, rng: np.random.Generator) -> np.ndarray:
    """Least and most that rounds of folds can cost: it may end with the first round, or go through all; then U(D) once.

    Args:
        problem: What it would label.
        config: Its settings.
        rng: Deals folds and orders demonstrations.

    Returns:
        Shape (4, 2): evaluations, prompts, tokens computed, tokens sent; least and most.
    """
    n = len(problem.dataset)
    full = first_labelled(problem, n)
    shots = problem.plan.max_demonstrations if problem.plan.kind == "sampled" else n
    a_round = np.zeros(2, dtype=np.int64)
    for fold in deal_folds(n, config.folds, rng=rng):
        others = tuple(sorted(set(range(n)) - set(fold)))[:shots]
        a_round += both_counts([problem.encoder.prompt(Context(i, others), full) for i in fold])
    start = n if config.start == "zero_shot" else 0
    once = both_counts([problem.encoder.prompt(Context(i, ()), Assignment.empty(n)) for i in range(start)])
    once = once + evaluation_tokens(problem, [n], rng=rng)[0]
    rounds = np.asarray([1, config.rounds])
    return np.stack([[1, 1], n * (1 + rounds) + start, *(np.outer(a_round, rounds) + once[:, None])])


def gibbs_bounds(problem: Problem, config: GibbsConfig, *, rng: np.random.Generator) -> np.ndarray:
    """Least and most that Gibbs sampling can cost: it may end with the first sweep that votes, or go through all.

    Args:
        problem: What it would label.
        config: Its settings.
        rng: Deals blocks and orders demonstrations.

    Returns:
        Shape (4, 2): evaluations, prompts, tokens computed, tokens sent; least and most.
    """
    n = len(problem.dataset)
    seeds = first_count(problem, config)
    asked = range(seeds if config.start == "zero_shot" and not problem.start_labels else 0)
    once = both_counts([problem.encoder.prompt(Context(i, ()), Assignment.empty(n)) for i in asked])
    once = once + evaluation_tokens(problem, [seeds, n], rng=rng).sum(axis=0)
    once = once + _sweep_tokens(problem, config, range(seeds), rng=rng)
    later = _sweep_tokens(problem, config, range(n), rng=rng)
    sweeps = np.asarray([config.burn_in + 1, config.sweeps])
    prompts = len(asked) + seeds + n * (sweeps + 1)
    return np.stack([[2, 2], prompts, *(once[:, None] + np.outer(later, sweeps - 1))])


def scalable_bounds(problem: Problem, config: ScalableConfig) -> np.ndarray:
    """Least and most that fold-wise relabelling asks, its trainings apart: it may end with the first round.

    Args:
        problem: What it would label.
        config: Its settings.

    Returns:
        Shape (4, 2): evaluations, prompts, tokens computed, tokens sent; least and most.
    """
    n = len(problem.dataset)
    once = both_counts([problem.encoder.prompt(Context(i, ()), Assignment.empty(n)) for i in range(n)])
    passes = np.asarray([1, config.rounds]) + (config.start == "zero_shot")
    return np.stack([[0, 0], n * passes, *np.outer(once, passes)])


def training_tokens(problem: Problem, config: RunConfig) -> np.ndarray:
    """Least and most tokens that fold-wise relabelling trains on, each as often as it is seen; shape (2,)."""
    from elicitor.train.fine_tuned import scalable_settings

    n = len(problem.dataset)
    rows = sum(len(problem.encoder.query(i)) for i in range(n))
    rows += n * (len(problem.encoder.start) + problem.encoder.longest_candidate)
    # Of F folds each is left out once, so all are seen F - 1 times.
    seen = min(config.scalable.folds, len(problem.dataset.groups())) - 1
    return np.asarray([1, config.scalable.rounds]) * rows * seen * scalable_settings(config).epochs


def _sweep_tokens(
    problem: Problem, config: GibbsConfig, labelled: Sequence[int], *, rng: np.random.Generator
) -> np.ndarray:
    """Prompt tokens of one sweep that begins with some labels, see `both_counts`; which labels are drawn does not matter."""
    full = first_labelled(problem, len(problem.dataset))
    known, tokens = set(labelled), np.zeros(2, dtype=np.int64)
    for block in deal_blocks(problem, config, rng=rng):
        asked = [
            [problem.encoder.prompt(context, full) for context in contexts]
            for _, contexts in block_contexts(problem, block, sorted(known), rng=rng)
        ]
        together = both_counts([prompt for prompts in asked for prompt in prompts])
        kept = _is_kept(problem, together[0])
        tokens += together if kept else np.sum([both_counts(prompts) for prompts in asked], axis=0)
        known |= set(block)
    return tokens


def _growth_tokens(
    problem: Problem, growth: np.ndarray, fresh: np.ndarray, alone: np.ndarray
) -> tuple[np.ndarray, float]:
    """Adding one label after another, each kept: at which steps the order is renewed, and the prompt tokens computed.

    See `elicitor.objective.Problem.comparable` for the renewals.
    """
    positions = range(len(problem.dataset))
    demonstration = float(np.mean([problem.encoder.longest_demonstration(i) for i in positions]))
    query = float(np.mean([len(problem.encoder.query(i)) for i in positions]))
    base, tail, tokens = int(growth[0]), 0, 0.0
    renewed = np.zeros(len(growth) - 1, dtype=bool)
    for step, n in enumerate(growth[:-1]):
        if problem.plan.kind != "tree" or not _is_kept(problem, fresh[step] + (tail + 1) * n * demonstration):
            tokens += fresh[step + 1] + alone[step]
            continue
        if tail + 1 > max(MIN_TAIL, base // 2):
            tokens += fresh[step]
            renewed[step] = True
            base, tail = int(n), 0
        tail += 1
        # The new demonstration behind each context, every query after it, and what the proposal reads.
        tokens += (n + 1) * (demonstration + query)
    return renewed, tokens


def _is_kept(problem: Problem, tokens: float) -> bool:
    return tokens <= problem.backend.reusable_tokens


def _filled(problem: Problem, known: int, *, rng: np.random.Generator) -> np.ndarray:
    """What it costs at the end to label all but the first examples and evaluate U(D) once more; rows of `_bounds`."""
    n = len(problem.dataset)
    if known == n:
        return np.zeros(4, dtype=np.int64)
    tokens = rest_tokens(problem, known) + evaluation_tokens(problem, [n], rng=rng)[0]
    return np.asarray([1, n - known + n, *tokens])


def _measured_rate(problem: Problem, *, rng: np.random.Generator) -> float:
    """Prompt tokens a second in one evaluation, after one to warm up; nothing is kept or reused.

    Of at most 16 examples, of fewer where their texts are long.
    """
    for size in (16, 8, 4, 2):
        prompts = plan_prompts(problem, min(size, len(problem.dataset)), rng=rng)
        if token_cost(prompts).tokens_computed <= _RATE_TOKENS:
            break
    # What stands on disk would be found, or be found at the second time, and take no time.
    backend = uncached(problem.backend)
    backend.score(prompts)
    measured = backend.score(prompts).cost
    return measured.tokens_computed / max(measured.seconds, 1e-9)


def _render_two(problem: Problem) -> list[str]:
    assignment = first_labelled(problem, len(problem.dataset))
    contexts = [Context(0, ()), Context(0, tuple(range(1, min(3, len(problem.dataset)))))]
    return [
        problem.backend.tokenizer.decode([t for s in problem.encoder.prompt(c, assignment).segments for t in s])
        for c in contexts
    ]
