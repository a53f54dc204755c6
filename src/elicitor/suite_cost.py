"""What a suite would cost, before it runs: exact token counts of the conditions, bounds for searches."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from elicitor.backends.base import Backend, OnStage, Prompt
from elicitor.backends.trie import token_cost
from elicitor.baselines import BOOTSTRAPS, PROBES, ZERO_SHOT, Condition
from elicitor.comparison import Comparison
from elicitor.data import load_dataset
from elicitor.dry_run import bootstrap_bounds, estimate
from elicitor.labelling import prepare
from elicitor.models import load_backend
from elicitor.objective import Meter
from elicitor.prompts import PromptEncoder
from elicitor.search.bootstrap import n_kept
from elicitor.search_settings import BootstrapConfig
from elicitor.suite import SuiteConfig, prepare_suite


@dataclass(frozen=True, slots=True)
class PartCost:
    """What one task of a suite would cost.

    Attributes:
        name: Name in the suite.
        n_label: Examples to label.
        n_test: Test examples.
        search_prompts: Prompts of the searches of all seeds, least and most.
        search_tokens: Their prompt tokens.
        condition_prompts: Prompts of all conditions and seeds, least and most.
        condition_tokens: Their prompt tokens.
        seconds: Least and most, at the rate measured on this task; None for a model behind a server.
    """

    name: str
    n_label: int
    n_test: int
    search_prompts: tuple[int, int]
    search_tokens: tuple[int, int]
    condition_prompts: tuple[int, int]
    condition_tokens: tuple[int, int]
    seconds: tuple[float, float] | None


def suite_cost(
    config: SuiteConfig, *, backend: Backend | None = None, on_stage: OnStage | None = None
) -> list[PartCost]:
    """Count what a suite would cost; a few small forward passes measure the rate.

    Args:
        config: The suite.
        backend: Use this loaded model instead of loading ``config.model``.
        on_stage: Called with what begins now.

    Returns:
        One entry for each task. Conditions that turn out not to apply are counted as if they did.

    Raises:
        ElicitorError: If a file, setting or model cannot be used.
    """
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        for part in prepare_suite(config, Path(folder) / "suite", resume=False):
            settings = part.runs[0]
            backend = backend or load_backend(config.model, on_stage=on_stage, **settings.backend.model_dump())
            if on_stage:
                on_stage(f"{part.name}: counting")
            workload = prepare(settings, backend=backend)
            search = estimate(workload)
            task = workload.task
            comparison = Comparison(
                backend=backend,
                task=task,
                train=workload.dataset,
                test=load_dataset(str(part.test), task),
                usable=range(len(workload.dataset)),
                found=[],
                golden={},
                judged={},
                votes={},
                objective=settings.objective,
                plan=settings.plan,
                seeds=config.seeds,
                max_shots=config.max_shots,
                bootstrap_rounds=settings.bootstrap.rounds,
            )
            asked, conditions = _condition_costs(comparison, part.conditions)
            n_seeds = len(config.seeds)
            prompts = search.prompts[0] * n_seeds, search.prompts[1] * n_seeds
            tokens = search.tokens[0] * n_seeds, search.tokens[1] * n_seeds
            rate = search.tokens_per_second
            least, most = (tokens[end] + conditions[end] for end in (0, 1))
            costs.append(
                PartCost(
                    name=part.name,
                    n_label=len(workload.dataset),
                    n_test=len(comparison.test),
                    search_prompts=prompts,
                    search_tokens=tokens,
                    condition_prompts=asked,
                    condition_tokens=conditions,
                    seconds=None if rate is None else (least / rate, most / rate),
                )
            )
    return costs


def _condition_costs(
    comparison: Comparison, conditions: Sequence[Condition]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Prompts and their tokens, least and most of each."""
    bounds = np.zeros((2, 2), dtype=np.int64)
    for condition in conditions:
        if condition in ZERO_SHOT:
            if comparison.obstacle(condition) is None:
                bounds += _asked(comparison.prompts(condition, {}))
            continue
        if condition in PROBES:
            if comparison.obstacle(condition) is None or condition == "supervised_probe":
                texts = 2 * (len(comparison.train) + len(comparison.test)) + len(comparison.train)
                bounds += np.asarray([[texts], [_probe_tokens(comparison)]])
            continue
        for seed in comparison.seeds:
            if condition in BOOTSTRAPS:
                bounds += _bootstrapped(comparison, condition, seed)
            else:
                kept = comparison.demonstrations(seed)
                labels = _shortest_and_longest(_encoder(comparison))
                asked = {label: _behind(comparison, condition, kept, label) for label in set(labels)}
                bounds += np.stack([asked[label] for label in labels], axis=1)
    (fewest, most), (cheapest, dearest) = bounds.tolist()
    return (fewest, most), (cheapest, dearest)


def _bootstrapped(comparison: Comparison, condition: Condition, seed: int) -> np.ndarray:
    """Making labels and asking behind them, least and most, shape (2, 2): a filter may leave the shortest or the longest."""
    keep = BOOTSTRAPS[condition].keep
    encoder = _encoder(comparison)
    shortest = sorted(comparison.demonstrations(seed), key=encoder.longest_demonstration)
    shots = n_kept(len(shortest), keep)
    variant = BootstrapConfig(rounds=comparison.bootstrap_rounds, keep=keep)
    ends = []
    for end, (order, label) in enumerate(zip((shortest, shortest[::-1]), _shortest_and_longest(encoder), strict=True)):
        problem = comparison.problem(order, Meter())
        made = bootstrap_bounds(problem, variant, rng=np.random.default_rng(seed), fill=False)[1:3, end]
        ends.append(made + _behind(comparison, condition, order[:shots], label))
    return np.stack(ends, axis=1)


def _encoder(comparison: Comparison) -> PromptEncoder:
    return PromptEncoder(comparison.backend.tokenizer, comparison.task, comparison.train)


def _shortest_and_longest(encoder: PromptEncoder) -> tuple[int, int]:
    """The labels whose verbalizers have fewest and most tokens: which ones the demonstrations will have is not known."""
    lengths = list(map(len, encoder.candidates))
    return int(np.argmin(lengths)), int(np.argmax(lengths))


def _behind(comparison: Comparison, condition: Condition, positions: Sequence[int], label: int) -> np.ndarray:
    """Number and tokens of the test prompts behind demonstrations that all have one label, shape (2,)."""
    return _asked(comparison.prompts(condition, dict.fromkeys(positions, label)))[:, 0]


def _asked(prompts: Sequence[Prompt]) -> np.ndarray:
    """Number and tokens of prompts, shape (2, 1)."""
    return np.asarray([[len(prompts)], [token_cost(prompts).tokens_computed]])


def _probe_tokens(comparison: Comparison) -> int:
    """Tokens of every example with either label behind it, and of zero-shot answers to the ones that are fitted to."""
    tokenizer, task = comparison.backend.tokenizer, comparison.task
    train, test = (PromptEncoder(tokenizer, task, data) for data in (comparison.train, comparison.test))
    once = [sum(len(p) for p in (side.prompt_with([], i) for i in range(len(side.dataset)))) for side in (train, test)]
    labels = sum(map(len, train.candidates)) * (len(train.dataset) + len(test.dataset))
    return 2 * sum(once) + labels + once[0]
