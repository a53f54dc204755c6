"""One reward model out of preferences: tokens on disk, a probe for the head, then TRL's trainer with LoRA."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow
import torch
from accelerate import PartialState
from datasets import Dataset
from pydantic import Field
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import RewardConfig, RewardTrainer

from elicitor.backends.base import OnStage, Progress
from elicitor.errors import DataError
from elicitor.train.folder import TOKENS, drop_scratch, is_main_process, last_checkpoint, processes
from elicitor.train.head_start import MAX_PAIRS, fit_head, pooled_states
from elicitor.train.lora import OnTrainStep, StepCallback, lora_config, make_trainer, train, training_arguments
from elicitor.train.pairs import Preference
from elicitor.train.rendering import Rendering
from elicitor.train.reward_model import HEAD, BaseModel, RewardModel, describe, load_base
from elicitor.train.settings import TrainSettings

_ROWS = 1000
_SCHEMA = pyarrow.schema(
    [
        ("chosen_ids", pyarrow.list_(pyarrow.int32())),
        ("rejected_ids", pyarrow.list_(pyarrow.int32())),
        ("length", pyarrow.int32()),
    ]
)


class RewardSettings(TrainSettings):
    """How a reward model is trained; ``batch_size`` counts pairs."""

    PAGE: ClassVar[str] = "docs/reward.md"

    method: Literal["lora"] = Field("lora", description="a reward model is an adapter with a head")
    epochs: int = Field(1, ge=0, description="times that every pair is seen; 0: the head alone, from its probe")
    learning_rate: float = Field(1e-4, gt=0, description="highest learning rate; it warms up, then falls")
    batch_size: int = Field(2, ge=1, description="pairs in one forward pass of one device")
    gradient_accumulation: int = Field(8, ge=1, description="forward passes in one optimizer step")
    max_length: int = Field(1024, ge=8, description="tokens of a prompt with a response; the oldest are left out")
    head_l2: float = Field(0.3, gt=0, description="penalty of the probe that the head starts from")
    center: float = Field(0.01, ge=0, description="weight of the squared sum of a pair's rewards; 0: off")
    min_margin: float = Field(0.0, ge=0, description="relabelled pairs with a smaller margin, in nats, are left out")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokenised pairs on disk.

    Attributes:
        dataset: Columns ``chosen_ids``, ``rejected_ids`` and ``length``, read from disk when needed.
        truncated: Responses whose prompt lost its oldest tokens.
    """

    dataset: Dataset
    truncated: int

    @property
    def total(self) -> int:
        """Tokens of all responses with their prompts."""
        return sum(
            len(row) for name in ("chosen_ids", "rejected_ids") for row in self.dataset.with_format("numpy")[name]
        )


def write_tokens(preferences: Iterator[Preference], path: Path, *, tokenizer: Any, rendering: Rendering) -> Tokens:
    """Tokenise preferences into an Arrow file, a thousand at a time, and open it.

    Args:
        preferences: The pairs with their labels.
        path: File to write; it appears whole or not at all.
        tokenizer: The base's tokenizer.
        rendering: How a prompt with a response becomes tokens.

    Raises:
        DataError: If there are none.
    """
    state = PartialState()
    note = path.with_suffix(".truncated")
    if state.is_main_process:
        temporary = path.with_suffix(".tmp")
        rows: list[dict[str, Any]] = []
        written = truncated = 0
        with temporary.open("wb") as stream, pyarrow.ipc.new_stream(stream, _SCHEMA) as writer:
            for preference in preferences:
                cut = [rendering.tokens(tokenizer, preference.pair.prompt, text) for text in preference.ordered]
                (chosen, _), (rejected, _) = cut
                truncated += sum(was_cut for _, was_cut in cut)
                length = max(len(chosen), len(rejected))
                rows.append({"chosen_ids": chosen, "rejected_ids": rejected, "length": length})
                written += 1
                if len(rows) == _ROWS:
                    writer.write_batch(pyarrow.RecordBatch.from_pylist(rows, schema=_SCHEMA))
                    rows = []
            if rows:
                writer.write_batch(pyarrow.RecordBatch.from_pylist(rows, schema=_SCHEMA))
        if not written:
            raise DataError("there are no pairs to train a reward model on", fix="give more pairs")
        note.write_text(str(truncated), encoding="utf-8")
        temporary.replace(path)
    state.wait_for_everyone()
    return Tokens(Dataset.from_file(str(path)), int(note.read_text(encoding="utf-8")))


def fit_reward_model(
    preferences: Callable[[], Iterator[Preference]],
    folder: Path,
    *,
    settings: RewardSettings,
    base_name: str,
    facts: dict[str, Any],
    on_stage: OnStage | None = None,
    on_progress: Progress | None = None,
    on_step: OnTrainStep | None = None,
) -> RewardModel:
    """Train a reward model, or go on with one that was begun.

    The head starts from a linear probe (`elicitor.train.head_start`); then head and adapter learn the Bradley-Terry loss.

    Args:
        preferences: Gives the pairs with their labels, each time it is called.
        folder: Where the reward model goes; checkpoints and tokens are kept in it until it is done.
        settings: How to train.
        base_name: Name of the base model.
        facts: What else its JSON says.
        on_stage: Called with what begins.
        on_progress: Called after each forward pass of the probe with its tokens.
        on_step: Called after each step of training.

    Returns:
        The trained model.

    Raises:
        ElicitorError: If the base cannot be loaded or there are no pairs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if on_stage:
        on_stage(f"loading {base_name}")
    base = load_base(base_name, dtype=settings.dtype, device=settings.device)
    rendering = Rendering.of(base.tokenizer, max_length=min(settings.max_length, base.max_tokens))
    tokens = write_tokens(preferences(), folder / TOKENS, tokenizer=base.tokenizer, rendering=rendering)
    checkpoint = last_checkpoint(folder)
    if checkpoint is None:
        if on_stage:
            on_stage(f"probe for the head of {folder.name}")
        start_head(base, tokens.dataset, l2=settings.head_l2, seed=settings.seed, on_progress=on_progress)
    if on_stage:
        on_stage(f"training {folder.name}, {len(tokens.dataset):,} pairs")
    lora = lora_config(settings, base.model, task_type="SEQ_CLS")
    assert lora is not None
    lora.modules_to_save = [HEAD]
    trainer = make_trainer(
        _PairTrainer,
        model=base.model,
        args=_arguments(settings, folder, tokens),
        train_dataset=tokens.dataset,
        processing_class=base.tokenizer,
        peft_config=lora,
        callbacks=[StepCallback(on_step)] if on_step else [],
    )
    if settings.epochs:
        train(trainer, checkpoint=checkpoint)
    about = describe(
        base, rendering, pairs=len(tokens.dataset), truncated=tokens.truncated, settings=settings.model_dump(), **facts
    )
    trained = trainer.accelerator.unwrap_model(trainer.model)
    model = RewardModel(base, trained, rendering=rendering, about=about, folder=folder)
    if is_main_process():
        model.save()
        drop_scratch(folder)
    trainer.accelerator.wait_for_everyone()
    return model


def start_head(base: BaseModel, dataset: Dataset, *, l2: float, seed: int, on_progress: Progress | None = None) -> None:
    """Put a linear probe of the base into its head.

    Args:
        base: The base; its head is written to.
        dataset: Tokenised pairs, of which at most `MAX_PAIRS` are read.
        l2: Penalty of the probe.
        seed: Draws the pairs.
        on_progress: Called after each forward pass with its tokens.
    """
    draw = np.random.default_rng(seed).permutation(len(dataset))[:MAX_PAIRS]
    rows = dataset.select(np.sort(draw))
    padding = base.tokenizer.pad_token_id
    base.model.eval()
    chosen, rejected = (
        pooled_states(base.model, rows[name][:], padding=padding, on_progress=on_progress)
        for name in ("chosen_ids", "rejected_ids")
    )
    weights = fit_head(chosen - rejected, l2=l2)
    head = getattr(base.model, HEAD)
    with torch.no_grad():
        head.weight.copy_(torch.as_tensor(weights[None, :]))


class _EpochOrder(LengthGroupedSampler):  # type: ignore[misc]
    """Pairs of similar length side by side, dealt by seed and epoch alone: an epoch that is gone on with is the one it was."""

    def __init__(self, batch_size: int, lengths: list[int], *, seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch, also when it goes on within one."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        drawn = np.random.SeedSequence([self._seed, self._epoch]).generate_state(1)[0]
        self.generator.manual_seed(int(drawn))
        yield from super().__iter__()


class _PairTrainer(RewardTrainer):  # type: ignore[misc]
    """TRL's trainer, whose order of the pairs hangs on the global random state, which a resume does not have in time."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Any:
        grouped = super()._get_train_sampler(train_dataset)
        return _EpochOrder(grouped.batch_size, grouped.lengths, seed=self.args.seed)


def optimizer_steps(settings: RewardSettings, pairs: int) -> int:
    """Steps of a training on so many pairs."""
    each = settings.batch_size * settings.gradient_accumulation * processes()
    return math.ceil(pairs / each) * settings.epochs


def _arguments(settings: RewardSettings, folder: Path, tokens: Tokens) -> RewardConfig:
    shared = training_arguments(settings, folder, steps=max(1, optimizer_steps(settings, len(tokens.dataset))))
    # The base's weights have their precision already; the adapter and the head stay in float32, and so do rewards.
    own = {
        "bf16": False,
        "max_length": None,
        "center_rewards_coefficient": settings.center or None,
        "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": False,
    }
    return RewardConfig(**{**shared, **own})
