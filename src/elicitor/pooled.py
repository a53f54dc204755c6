"""Many searches and many conditions on one pool of workers; the driver keeps every result as it comes.

All batches of all runs are one list of work, and so are the conditions of an evaluation, so no worker waits for another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from elicitor.answers import Answers
from elicitor.backends.base import Backend, OnPart, OnStage, Progress
from elicitor.baselines import Condition
from elicitor.batch_search import BatchJob
from elicitor.batching import Batches
from elicitor.comparison import Comparison
from elicitor.config import RunConfig
from elicitor.control import between_steps, controlled
from elicitor.distributed import WorkerPool
from elicitor.errors import ConfigError
from elicitor.inputs import Inputs, read_inputs
from elicitor.labelling import Run, conclude, keep_result, open_folder
from elicitor.runs import RunFolder, refuse_used
from elicitor.tracking import tracker_names


def run_on_pool(
    runs: Sequence[tuple[RunConfig, Path]],
    pool: WorkerPool,
    *,
    resume: bool = False,
    on_progress: Progress | None = None,
    on_stage: OnStage | None = None,
    on_part: OnPart | None = None,
) -> list[Run]:
    """Run or resume labelling runs, their batches in any order.

    Args:
        runs: Settings and folder of each; all name the same model with the same backend settings.
        pool: Workers.
        resume: Go on with what the folders hold.
        on_progress: Called after each batch with its tokens.
        on_stage: Called when workers begin to load and when the search begins.
        on_part: Called with finished and all batches after each one.

    Returns:
        The finished runs, each with the labels and metrics that `elicitor.labelling.run` would give.

    Raises:
        ElicitorError: If settings, data, task or model cannot be used, or a batch is lost too often.
        Stopped: If another process asked one of the runs to stop; all of them can be resumed.
    """
    for config, output_dir in runs:
        if tracker_names(config.report_to):
            raise ConfigError(
                "trackers follow the steps of a search, and workers tell of whole batches only",
                fix="leave out --report-to or --ray",
            )
        if not resume:
            refuse_used(output_dir)
    with ExitStack() as locks:
        opened: list[tuple[Inputs, Batches, RunFolder]] = []
        for config, output_dir in runs:
            inputs = read_inputs(config)
            pieces = math.ceil(len(inputs.dataset) / inputs.config.batch_size)
            model = pool.load(inputs.config, pieces=pieces, on_stage=on_stage)
            batches = inputs.batches(pool.sizes(inputs), max_context_tokens=model.max_context_tokens)
            folder = locks.enter_context(open_folder(inputs, batches, model, output_dir, resume=resume))
            locks.enter_context(controlled(output_dir))
            opened.append((inputs, batches, folder))
        total = sum(len(batches) for _, batches, _ in opened)
        done = total - sum(len(folder.left(len(batches))) for _, batches, folder in opened)
        if on_stage:
            examples = sum(len(inputs.dataset) for inputs, _, _ in opened)
            on_stage(f"searching, {examples} examples in {total} batches")
        for result in pool.search(_jobs(opened)):
            keep_result(opened[result.run][2], result)
            done += 1
            if on_progress:
                on_progress(result.meter.cost.tokens_computed)
            if on_part:
                on_part(done, total)
            between_steps()
        return [conclude(folder, inputs, batches) for inputs, batches, folder in opened]


def _jobs(opened: Sequence[tuple[Inputs, Batches, RunFolder]]) -> Iterator[BatchJob]:
    for number, (inputs, batches, folder) in enumerate(opened):
        begun = folder.checkpoint()
        for batch in folder.left(len(batches)):
            yield replace(inputs.job(batch, batches[batch], checkpoint=begun), run=number)


def answers_on_pool(
    comparison: Comparison, conditions: Sequence[Condition], pool: WorkerPool, *, folder: Path
) -> Iterator[tuple[Condition, Answers | str]]:
    """Ask conditions on workers.

    Args:
        comparison: What the conditions share; of its backend no more than the fingerprint is used here.
        conditions: Which.
        pool: Workers.
        folder: Where finished conditions are kept, and finished seeds of those that have demonstrations.

    Yields:
        Each condition with its answers, or with the reason why it does not apply, in the order in which they come.

    Raises:
        ElicitorError: If a condition fails, or is lost too often.
    """
    parts: dict[Condition, dict[int, Answers]] = {}
    left: dict[Condition, dict[int, Comparison]] = {}
    for condition in conditions:
        if kept := comparison.kept(condition, folder):
            yield condition, kept
            continue
        parts[condition], left[condition] = {}, {}
        for number, one in enumerate(comparison.by_seed(condition)):
            if one is not comparison and (kept := one.kept(condition, one.seed_folder(folder))):
                parts[condition][number] = kept
            else:
                left[condition][number] = one
        if not left[condition]:
            yield condition, _join(comparison, condition, parts[condition], folder)
    questions = [_Question(condition, number, one) for condition, some in left.items() for number, one in some.items()]
    for condition, number, given in pool.map(_answer, questions, name=str):
        one = left[condition].pop(number)
        if isinstance(given, Answers):
            parts[condition][number] = given
            if one is not comparison:
                one.keep(given, one.seed_folder(folder))
        # Whether a condition applies does not hang on the seed: all of them say the same.
        if not left[condition]:
            yield condition, given if isinstance(given, str) else _join(comparison, condition, parts[condition], folder)


@dataclass(frozen=True, slots=True)
class _Question:
    """A condition to ask under one seed, or under all where they are not answered apart."""

    condition: Condition
    number: int
    comparison: Comparison

    def __str__(self) -> str:
        """What it is called in errors; no two are called alike."""
        return f"condition {self.condition}, seeds {', '.join(map(str, self.comparison.seeds))}"


def _join(comparison: Comparison, condition: Condition, parts: Mapping[int, Answers], folder: Path) -> Answers:
    """Answers of all seeds, kept where those of one process are."""
    answers = Answers.joined([parts[number] for number in sorted(parts)])
    comparison.keep(answers, folder)
    return answers


def _answer(backend: Backend, question: _Question) -> tuple[Condition, int, Answers | str]:
    comparison, condition = replace(question.comparison, backend=backend), question.condition
    return condition, question.number, comparison.obstacle(condition) or comparison.answers(condition)
