"""Fine-tune a model on labels: what ``elicitor train sft`` calls.

Read `train_sft`, from a run's folder to a classifier, and `fit`, which any set of labels goes through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from elicitor.audit import abstained_ids
from elicitor.backends.base import OnStage
from elicitor.config import RunConfig
from elicitor.control import working_time
from elicitor.data import Dataset, load_dataset
from elicitor.errors import BackendError
from elicitor.evaluation import found_labels
from elicitor.inputs import task_of
from elicitor.labelling import Run, load_run
from elicitor.manifest import package_versions
from elicitor.prompts import PromptEncoder
from elicitor.runs import load_run_config
from elicitor.tasks import Task
from elicitor.train.folder import (
    finish,
    is_finished,
    is_main_process,
    last_checkpoint,
    processes,
    read_result,
    training_folder,
)
from elicitor.train.rows import Row, class_weights, make_rows, rows_hash, step_tokens, training_order
from elicitor.train.settings import TrainSettings

if TYPE_CHECKING:
    from elicitor.backends.hf_load import LoadedModel
    from elicitor.train.lora import OnTrainStep


class SftSettings(TrainSettings):
    """Settings of fine-tuning on labels."""

    class_weights: str | None = Field(
        None, description="weights of labels in the loss: balanced, or such as negative=2,positive=1"
    )


@dataclass(frozen=True, slots=True)
class Labelled:
    """Examples with the labels to train on.

    Attributes:
        task: What is asked of each example.
        dataset: The examples.
        labels: Label by position; examples without one are not trained on.
        source: Where the labels come from, such as ``found`` or ``golden``.
        left_out: Indeterminate examples that an audit set aside.
    """

    task: Task
    dataset: Dataset
    labels: Mapping[int, int]
    source: str
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training.

    Attributes:
        folder: Its folder.
        model: Name by which the result is loaded anywhere a model name goes.
        result: Content of ``training.json``: rows, tokens, steps, seconds, losses, settings.
    """

    folder: Path
    model: str
    result: dict[str, Any]


def labelled_run(
    run: Run | str | Path, *, limit: int | None = None, keep_abstained: bool = False
) -> tuple[Labelled, RunConfig]:
    """Examples of a run with their found labels, without those that its audit abstained from.

    Args:
        run: A finished run or its folder.
        limit: Use only the first examples.
        keep_abstained: Use examples that ``elicitor audit --abstain`` found indeterminate as well.

    Returns:
        The examples, and the run's settings.

    Raises:
        ElicitorError: If the run or its data cannot be read.
    """
    done = run if isinstance(run, Run) else load_run(Path(run))
    config = load_run_config(done.path)
    task = task_of(config)
    dataset = load_dataset(config.data, task, limit=config.limit)
    found = found_labels(done, task, dataset)
    abstained = set() if keep_abstained else abstained_ids(done.path)
    used = list(found)[:limit]
    labels = {i: found[i] for i in used if dataset.examples[i].id not in abstained}
    return Labelled(task, dataset, labels, "found", left_out=len(used) - len(labels)), config


def train_sft(
    run: Run | str | Path,
    output_dir: str | Path,
    *,
    settings: SftSettings | None = None,
    model: str | None = None,
    limit: int | None = None,
    keep_abstained: bool = False,
    resume: bool = False,
    on_step: OnTrainStep | None = None,
    on_stage: OnStage | None = None,
) -> Trained:
    """Fine-tune a model on a run's labels, so that it answers them without demonstrations.

    Each row is the example's zero-shot prompt, and the loss is on its label's tokens alone (Wen et al. 2025, section 3).

    Args:
        run: A finished run or its folder.
        output_dir: Folder for the adapter or the model; new or empty unless ``resume``.
        settings: Settings of the training.
        model: Model to train; the one that found the labels if None.
        limit: Use only the first examples.
        keep_abstained: Use examples that ``elicitor audit --abstain`` found indeterminate as well.
        resume: Go on from the last checkpoint in ``output_dir`` if there is one.
        on_step: Told of each optimizer step.
        on_stage: Called with what begins now.

    Returns:
        The training; its ``model`` is a model name.

    Raises:
        ElicitorError: If run, data, model or settings cannot be used.
    """
    labelled, config = labelled_run(run, limit=limit, keep_abstained=keep_abstained)
    return fit(
        labelled,
        Path(output_dir),
        model=model or config.model,
        settings=settings or SftSettings(),
        resume=resume,
        on_step=on_step,
        on_stage=on_stage,
    )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A training before it begins.

    Attributes:
        loaded: Model and tokenizer.
        rows: What it learns from.
        order: Row numbers in the order in which they are seen, all epochs.
        weights: Weight of each label.
        tokens: Tokens of each optimizer step, on all processes.
    """

    loaded: LoadedModel
    rows: list[Row]
    order: list[int]
    weights: list[float]
    tokens: list[int]


def prepare_fit(labelled: Labelled, *, model: str, settings: SftSettings, on_stage: OnStage | None = None) -> Prepared:
    """Load the model and make the rows, writing nothing.

    Raises:
        ElicitorError: If model, labels or settings cannot be used.
    """
    if on_stage:
        on_stage("loading the model")
    try:
        from elicitor.backends.hf_load import context_window
        from elicitor.backends.hf_tokenizer import HfTokenizer
        from elicitor.train.lora import load_for_training
    except ImportError as error:
        raise BackendError(f"training needs {error.name}", fix="pip install 'elicitor[hf,train]'") from error
    loaded = load_for_training(model, settings)
    encoder = PromptEncoder(HfTokenizer(loaded.tokenizer), labelled.task, labelled.dataset)
    rows = make_rows(encoder, labelled.labels, max_tokens=context_window(loaded.model.config, name=model))
    weights = class_weights(settings.class_weights, rows, labelled.task.label_space)
    lengths = [len(row) for row in rows]
    order = training_order(
        lengths, epochs=settings.epochs, batch_size=settings.batch_size, rng=np.random.default_rng(settings.seed)
    )
    rows_a_step = settings.batch_size * settings.gradient_accumulation * processes()
    return Prepared(loaded, rows, order, weights, step_tokens(lengths, order, rows_a_step=rows_a_step))


def fit(
    labelled: Labelled,
    folder: Path,
    *,
    model: str,
    settings: SftSettings,
    resume: bool = False,
    on_step: OnTrainStep | None = None,
    on_stage: OnStage | None = None,
) -> Trained:
    """Fine-tune a model on labelled examples; see `train_sft`.

    Args:
        labelled: The examples and their labels.
        folder: Folder for the adapter or the model.
        model: Model to train.
        settings: Settings of the training.
        resume: Go on from the last checkpoint in the folder if there is one.
        on_step: Told of each optimizer step.
        on_stage: Called with what begins now.

    Returns:
        The training.

    Raises:
        ElicitorError: If model, labels or settings cannot be used.
    """
    prepared = prepare_fit(labelled, model=model, settings=settings, on_stage=on_stage)
    from elicitor.train.lora import save_trained, train

    loaded, space = prepared.loaded, labelled.task.label_space
    made_from = {
        "kind": "sft",
        "labels": labelled.source,
        "rows": rows_hash(prepared.rows),
        "model": model,
        "weights": loaded.weights,
        "settings": settings.model_dump(mode="json", exclude={"report_to", "checkpoint_steps"}),
    }
    with training_folder(folder, made_from, resume=resume):
        if is_finished(folder):
            return Trained(folder, read_result(folder)["model"], read_result(folder))
        if on_stage:
            on_stage(f"training on {len(prepared.rows)} labels")
        started = working_time()
        checkpoint = last_checkpoint(folder)
        trainer = make_label_trainer(prepared, folder, settings=settings, on_step=on_step)
        train(trainer, checkpoint=checkpoint)
        name = save_trained(trainer, folder, name=model, loaded=loaded)
        counts = Counter(row.label for row in prepared.rows)
        result = {
            "model": name,
            "base": model,
            "base_weights": loaded.weights,
            "labels": labelled.source,
            "task": labelled.task.name,
            "rows": len(prepared.rows),
            "label_counts": {label: counts[k] for k, label in enumerate(space.labels)},
            "left_out": labelled.left_out,
            "steps": len(prepared.tokens),
            "tokens": sum(prepared.tokens),
            "seconds": round(working_time() - started, 1),
            "resumed_at_step": int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0,
            "losses": [
                {"step": entry["step"], "loss": entry["loss"]} for entry in trainer.state.log_history if "loss" in entry
            ],
            "settings": settings.model_dump(mode="json"),
            "versions": package_versions(),
        }
        if is_main_process():
            finish(folder, result)
    return Trained(folder, name, result)


def make_label_trainer(
    prepared: Prepared, folder: Path, *, settings: SftSettings, on_step: OnTrainStep | None = None, **arguments: Any
) -> Any:
    """TRL's trainer for a prepared training.

    Args:
        prepared: Model, rows and their order.
        folder: Where checkpoints go.
        settings: Settings of the training.
        on_step: Told of each optimizer step.
        **arguments: More for ``SFTConfig``, winning over the settings.

    Returns:
        The trainer.

    Raises:
        ConfigError: If TRL refuses.
    """
    from trl import SFTConfig

    from elicitor.train.label_trainer import LabelCollator, LabelTrainer, make_dataset
    from elicitor.train.lora import StepCallback, lora_config, make_trainer, training_arguments

    given = {**training_arguments(settings, folder, steps=len(prepared.tokens)), **arguments}
    config = make_trainer(
        SFTConfig,
        **given,
        # The rows are tokens already, and their order is drawn by us: nothing depends on global random state.
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
    )
    return make_trainer(
        LabelTrainer,
        model=prepared.loaded.model,
        args=config,
        processing_class=prepared.loaded.tokenizer,
        train_dataset=make_dataset(prepared.rows, prepared.order, prepared.weights),
        data_collator=LabelCollator(prepared.loaded.tokenizer.pad_token_id),
        peft_config=lora_config(settings, prepared.loaded.model),
        callbacks=[StepCallback(on_step, prepared.tokens)] if on_step else [],
    )
