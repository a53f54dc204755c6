"""The reward pipeline: labels of a part -> initial reward model -> it labels the rest -> final reward model.

Wen et al. (2025, section 4.4): the search labels 6,000 pairs, an initial reward model trained on them labels about 400,000
more, and the final reward model is trained on all. Each stage leaves a whole artefact in the folder, so a training killed
at any instant goes on from there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from elicitor.backends.base import OnPart, OnStage, Progress
from elicitor.control import working_time
from elicitor.errors import DataError
from elicitor.inputs import task_of
from elicitor.manifest import package_versions
from elicitor.runs import has_run, load_run_config
from elicitor.tasks import Task, load_task
from elicitor.train.folder import (
    FINAL,
    INITIAL,
    REWARD_MODEL,
    finish,
    is_finished,
    is_main_process,
    read_result,
    training_folder,
)
from elicitor.train.lora import OnTrainStep, process_state
from elicitor.train.pairs import Labelled, LabelSource, Pair, iter_pairs, labelled_pairs
from elicitor.train.relabel import preferences as relabelled_preferences
from elicitor.train.relabel import relabel, summarize
from elicitor.train.reward_fit import RewardSettings, fit_reward_model
from elicitor.train.reward_model import RewardModel

RELABELLED = "relabelled.jsonl"


@dataclass(frozen=True, slots=True)
class RewardWork:
    """Inputs of a reward training, read and checked, nothing written yet.

    Attributes:
        labelled: Pairs of the part that has labels.
        model: Base model's name.
        rest: File of further pairs, None to train on the labelled part alone.
        task: Task of both.
        limit: Use only so many rows of the rest.
        n_rest: Pairs of the rest that are not in the labelled part.
        fingerprint: Hash of everything that is read, for resuming.
    """

    labelled: Labelled
    model: str
    rest: str | None
    task: Task
    limit: int | None
    n_rest: int
    fingerprint: str

    def rest_pairs(self) -> Iterator[Pair]:
        """Pairs of the rest, those of the labelled part left out."""
        if self.rest is None:
            return
        known = {(item.pair.prompt, frozenset(item.pair.responses)) for item in self.labelled.preferences}
        for pair in iter_pairs(self.rest, self.task, limit=self.limit):
            if (pair.prompt, frozenset(pair.responses)) not in known:
                yield pair


def prepare_reward(
    source: str | Path,
    *,
    model: str | None = None,
    rest: str | None = None,
    labels: LabelSource = "found",
    task: str = "preference",
    seed: int = 0,
    limit: int | None = None,
    rest_limit: int | None = None,
    keep_abstained: bool = False,
    on_stage: OnStage | None = None,
) -> RewardWork:
    """Read and check everything a reward training needs.

    Args:
        source: Run folder of ``elicitor label``, or a file of pairs with gold or votes.
        model: Base model; by default that of the run, or ``bundled``.
        rest: File of further pairs.
        labels: Which labels the labelled part carries.
        task: Task of a file.
        seed: Draws votes and random labels.
        limit: Use only the first labelled pairs.
        rest_limit: Use only the first rows of the rest.
        keep_abstained: Use found labels that ``elicitor audit --abstain`` called indeterminate as well.
        on_stage: Called with what begins.

    Raises:
        ElicitorError: If something cannot be used.
    """
    if on_stage:
        on_stage("reading the pairs")
    labelled = labelled_pairs(source, labels, seed=seed, limit=limit, task=task, keep_abstained=keep_abstained)
    config = load_run_config(Path(source)) if has_run(Path(source)) else None
    pair_task = task_of(config) if config else load_task(task)
    base = model or (config.model if config else "bundled")
    work = RewardWork(labelled, base, rest, pair_task, rest_limit, 0, "")
    digest = hashlib.sha256()
    for item in labelled.preferences:
        digest.update(json.dumps([item.pair.prompt, item.pair.responses, item.chosen]).encode())
    n_rest = 0
    for pair in work.rest_pairs():
        digest.update(json.dumps([pair.id, pair.prompt, pair.responses]).encode())
        n_rest += 1
    if rest is not None and n_rest == 0:
        raise DataError(f"{rest} holds no pairs but those that have labels", fix="leave out --rest, or give more pairs")
    return RewardWork(labelled, base, rest, pair_task, rest_limit, n_rest, digest.hexdigest())


def train_reward(
    work: RewardWork,
    folder: Path,
    settings: RewardSettings,
    *,
    labels: LabelSource = "found",
    resume: bool = False,
    on_stage: OnStage | None = None,
    on_progress: Progress | None = None,
    on_part: OnPart | None = None,
    on_step: OnTrainStep | None = None,
) -> dict[str, Any]:
    """Train a reward model, with an initial one that labels the rest if there is a rest.

    Args:
        work: What `prepare_reward` read.
        folder: Folder to write: ``final`` (and ``initial``, ``relabelled.jsonl``) with a reward model each.
        settings: How to train both.
        labels: Which labels the labelled part carries, for the record.
        resume: Go on with the training in ``folder``.
        on_stage: Called with what begins.
        on_progress: Called after each forward pass of scoring with its tokens.
        on_part: Called while the rest is labelled.
        on_step: Called after each optimizer step.

    Returns:
        Content of ``training.json``.

    Raises:
        ElicitorError: If the base cannot be loaded, or the folder holds something else.
    """
    made_from = {
        "kind": "reward",
        "model": work.model,
        "labels": labels,
        "data": work.fingerprint,
        "rest": work.n_rest,
        "settings": settings.model_dump(mode="json", exclude={"report_to", "checkpoint_steps"}),
    }
    started = working_time()
    state = process_state(settings)
    with training_folder(folder, made_from, resume=resume):
        state.wait_for_everyone()
        if is_finished(folder):
            return read_result(folder)
        fit = partial(
            fit_reward_model,
            settings=settings,
            base_name=work.model,
            on_stage=on_stage,
            on_progress=on_progress,
            on_step=on_step,
        )
        own = work.labelled.preferences
        output = folder / RELABELLED
        stages: dict[str, Any] = {}
        if work.rest is not None:
            if not (folder / INITIAL / REWARD_MODEL).is_file():
                fit(lambda: iter(own), folder / INITIAL, facts={"labels": labels})
            if on_stage:
                on_stage(f"the initial reward model labels {work.n_rest:,} pairs")
            initial = RewardModel.load(folder / INITIAL, dtype=settings.dtype, device=settings.device)
            relabel(initial, work.rest_pairs, output, total=work.n_rest, on_progress=on_progress, on_part=on_part)
            stages["relabelled"] = asdict(summarize(output))
            del initial
        if not (folder / FINAL / REWARD_MODEL).is_file():

            def everything() -> Iterator[Any]:
                yield from own
                if work.rest is not None:
                    yield from relabelled_preferences(output, work.rest_pairs(), min_margin=settings.min_margin)

            fit(everything, folder / FINAL, facts={"labels": labels, "labelled": len(own)})
        final = json.loads((folder / FINAL / REWARD_MODEL).read_text(encoding="utf-8"))
        result = {
            "kind": "reward",
            "model": work.model,
            "labels": labels,
            "labelled": len(own),
            "without_label": work.labelled.without,
            "contradictory": work.labelled.contradictory,
            "indeterminate": work.labelled.indeterminate,
            **stages,
            "final_pairs": final["pairs"],
            "truncated": final["truncated"],
            "seconds": working_time() - started,
            "versions": package_versions(),
        }
        if is_main_process():
            finish(folder, result)
        state.wait_for_everyone()
        return result
