"""What a training would cost, before it is started: counted tokens, and the rate of two steps that leave no trace."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elicitor.backends.base import OnStage
from elicitor.train.settings import TrainSettings
from elicitor.train.sft import Labelled, SftSettings, make_label_trainer, prepare_fit


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """Estimate of a training.

    Attributes:
        rows: Examples.
        steps: Optimizer steps.
        tokens: Tokens of all epochs, padding left out.
        padding: Padding tokens for each token.
        parameters: Parameters of the model, the adapter's included.
        trained_parameters: Those that are trained.
        tokens_per_second: Measured in the second of two steps.
        seconds: Time at that rate.
        example: Text of the first example, with its label.
    """

    rows: int
    steps: int
    tokens: int
    padding: float
    parameters: int
    trained_parameters: int
    tokens_per_second: float
    seconds: float
    example: str

    def to_json(self) -> dict[str, Any]:
        """The estimate as JSON values."""
        return asdict(self)


def training_cost(
    labelled: Labelled, *, model: str, settings: SftSettings, on_stage: OnStage | None = None
) -> TrainingCost:
    """Count tokens and steps, and time two steps.

    Args:
        labelled: Examples and labels.
        model: Model to train.
        settings: Settings of the training.
        on_stage: Called with what begins now.

    Returns:
        The estimate.

    Raises:
        ElicitorError: If model, labels or settings cannot be used.
    """
    prepared = prepare_fit(labelled, model=model, settings=settings, on_stage=on_stage)
    if on_stage:
        on_stage("timing two steps")
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        quiet = settings.model_copy(update={"report_to": "none"})
        steps = min(2, len(prepared.tokens))
        trainer = make_label_trainer(
            prepared,
            Path(folder),
            settings=quiet,
            on_step=lambda _: times.append(time.monotonic()),
            max_steps=steps,
            warmup_steps=0,
            save_strategy="no",
        )
        started = time.monotonic()
        from elicitor.train.lora import train

        train(trainer, checkpoint=None)
    rate = prepared.tokens[steps - 1] / max(times[-1] - ([started, *times][-2]), 1e-9)
    sizes = [(p.numel(), p.requires_grad) for p in trainer.model.parameters()]
    tokens = sum(prepared.tokens)
    first = prepared.rows[0]
    return TrainingCost(
        rows=len(prepared.rows),
        steps=len(prepared.tokens),
        tokens=tokens,
        padding=padded_tokens([len(row) for row in prepared.rows], prepared.order, settings) / tokens - 1,
        parameters=sum(size for size, _ in sizes),
        trained_parameters=sum(size for size, trained in sizes if trained),
        tokens_per_second=rate,
        seconds=tokens / rate,
        example=str(prepared.loaded.tokenizer.decode([*first.prompt, *first.completion])),
    )


def padded_tokens(lengths: list[int], order: list[int], settings: TrainSettings) -> int:
    """Tokens that go through the model, padding included."""
    size = settings.batch_size
    batches = [[lengths[row] for row in order[i : i + size]] for i in range(0, len(order), size)]
    return sum(max(batch) * len(batch) for batch in batches)
