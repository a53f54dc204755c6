"""What every trainer shares: a model by its name, ready to train, the adapter's shape, arguments, and progress."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig
from transformers import AutoModelForCausalLM, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback, WandbCallback

from elicitor.backends.adapter import BASE, AdapterBase
from elicitor.backends.hf_load import LoadedModel, choose_device, choose_dtype, load_model, quiet
from elicitor.control import Stopped
from elicitor.errors import BackendError, ConfigError, DataError, ElicitorError, reason_of
from elicitor.files import disk_error, write_json
from elicitor.models import locate
from elicitor.tracking import TENSORBOARD, project, tracker_names
from elicitor.train.controlled import ControlCallback
from elicitor.train.folder import CHECKPOINTS, adopt, is_main_process, place_beside
from elicitor.train.settings import TrainSettings

_CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in TrainingArguments.__dataclass_fields__
)
"""Name of the argument; transformers renamed it and warns of the old one."""


@dataclass(frozen=True, slots=True)
class TrainStep:
    """Where a training stands.

    Attributes:
        step: Optimizer steps done.
        steps: Optimizer steps in all.
        tokens: Tokens of this step, padding left out, on this process.
        loss: Mean loss since it was last logged, None before.
    """

    step: int
    steps: int
    tokens: int
    loss: float | None


OnTrainStep = Callable[[TrainStep], None]


def training_dtype(settings: TrainSettings) -> str:
    """Precision in which the weights are loaded.

    Full training keeps its weights in float32 unless told otherwise, because steps of a small learning rate vanish in 16
    bits; under an adapter the base model does not move and may be as small as it is for scoring.
    """
    if settings.dtype == "auto" and settings.method == "full":
        return "float32"
    return choose_dtype(settings.dtype, choose_device(settings.device))


def load_for_training(
    name: str, settings: TrainSettings, *, kind: Any = AutoModelForCausalLM, **options: Any
) -> LoadedModel:
    """A model and its tokenizer, by the names that ``--model`` takes.

    Args:
        name: ``bundled``, ``hf:NAME``, ``gguf:FILE``, a folder, or ``adapter:FOLDER``, which is merged first.
        settings: Say precision and device.
        kind: Auto class of transformers, such as ``AutoModelForSequenceClassification``.
        **options: More for its ``from_pretrained``, such as ``num_labels=1``.

    Returns:
        The model on the CPU, in training mode, with a tokenizer that has a padding token.

    Raises:
        BackendError: If the model cannot be found or loaded, or is no local one.
    """
    dtype = training_dtype(settings)
    source = locate(name)
    location, weights = source.files(dtype=dtype)
    loaded = load_model(
        location, name=name, weights=weights, adapters=source.adapters, dtype=dtype, kind=kind, **options
    )
    if loaded.tokenizer.pad_token_id is None:
        # Padding is masked out, so any token will do; most base models name none.
        loaded.tokenizer.pad_token = loaded.tokenizer.eos_token or loaded.tokenizer.convert_ids_to_tokens(0)
    loaded.model.train()
    return loaded


def lora_config(settings: TrainSettings, model: torch.nn.Module, *, task_type: str = "CAUSAL_LM") -> LoraConfig | None:
    """The adapter to train, or None for full training.

    Args:
        settings: How large it is and where.
        model: What it is for.
        task_type: PEFT's name of what the model is trained for.

    Raises:
        ConfigError: If a layer is named that the model does not have; PEFT would leave it out without a word.
    """
    if settings.method == "full":
        return None
    targets: str | list[str] = "all-linear"
    if settings.lora_targets != "all-linear":
        given = settings.lora_targets
        targets = [name.strip() for name in (given.split(",") if isinstance(given, str) else given)]
        # As PEFT matches them: a whole path, or the end of one.
        layers = [f".{name}" for name, _ in model.named_modules()]
        if unknown := [name for name in targets if not any(layer.endswith(f".{name}") for layer in layers)]:
            raise ConfigError(
                f"lora_targets names {unknown[0]!r}, and the model has no such layer",
                fix="use all-linear, or names such as q_proj,v_proj",
            )
    return LoraConfig(
        task_type=task_type,
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
    )


def training_arguments(settings: TrainSettings, folder: Path, *, steps: int) -> dict[str, Any]:
    """Arguments that any of TRL's configurations takes.

    Args:
        settings: The training's settings.
        folder: Its folder; checkpoints go below it.
        steps: Optimizer steps in all.

    Returns:
        Arguments by name.
    """
    on_cpu = choose_device(settings.device).type == "cpu"
    dtype = training_dtype(settings)
    return {
        "output_dir": str(folder / CHECKPOINTS),
        "max_steps": steps,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        _CHECKPOINTING: settings.gradient_checkpointing,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule if settings.schedule != "constant" else "constant_with_warmup",
        "warmup_steps": math.ceil(settings.warmup * steps),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "seed": settings.seed,
        "use_cpu": on_cpu,
        # Full training on a GPU computes in bfloat16 and keeps float32 weights.
        "bf16": dtype == "bfloat16" or (not on_cpu and torch.cuda.is_bf16_supported()),
        "fp16": False,
        "dataloader_pin_memory": not on_cpu,
        "save_strategy": "steps",
        "save_steps": settings.checkpoint_steps or max(1, math.ceil(steps / 10)),
        "save_total_limit": 1,
        "logging_steps": max(1, min(10, steps // 20)),
        "report_to": tracker_names(settings.report_to),
        "project": project("trackio"),
        "run_name": folder.name,
        "disable_tqdm": True,
    }


def process_state(settings: TrainSettings) -> PartialState:
    """The processes that train together, as a launcher started them.

    Asked for before anything else of accelerate: the first one to ask decides for the process, and accelerate takes processes
    without a GPU for single ones unless told.

    Args:
        settings: The training's settings.
    """
    return PartialState(cpu=choose_device(settings.device).type == "cpu")


class StepCallback(TrainerCallback):  # type: ignore[misc]
    """Tells an observer of each optimizer step.

    Args:
        observer: Called after each step.
        tokens: Tokens of each step on this process, by number of the step from 0; empty if unknown.
    """

    def __init__(self, observer: OnTrainStep, tokens: Sequence[int] = ()) -> None:
        self._observer = observer
        self._tokens = tokens
        self._loss: float | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Remember the newest loss."""
        self._loss = (logs or {}).get("loss", self._loss)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell the observer."""
        done = state.global_step
        tokens = self._tokens[done - 1] if done <= len(self._tokens) else 0
        self._observer(TrainStep(done, state.max_steps, tokens, self._loss))


class _BegunCallback(TrainerCallback):  # type: ignore[misc]
    """Knows whether a step has begun, before which a checkpoint is read."""

    begun = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """It has."""
        self.begun = True


def train(trainer: Any, *, checkpoint: Path | None) -> Any:
    """Run a TRL trainer without its own output on standard output.

    Args:
        trainer: The trainer.
        checkpoint: Where to go on, or None to begin.

    Returns:
        What ``trainer.train`` returns.

    Raises:
        BackendError: If the loss is not finite at the end.
        DataError: If the checkpoint is damaged, or holds what is no state of a training.
        Stopped: If another process asked for it; a checkpoint has been saved.
    """
    trainer.remove_callback(PrinterCallback)
    control, begun = ControlCallback(), _BegunCallback()
    trainer.add_callback(control)
    trainer.add_callback(begun)
    # Trackers print to standard output, which is kept for results.
    with quiet(), contextlib.redirect_stdout(sys.stderr):
        try:
            output = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        except Exception as error:  # readers of a damaged file fail in many ways
            other = isinstance(error, ElicitorError | MemoryError | torch.OutOfMemoryError) or disk_error(error)
            if checkpoint is None or begun.begun or other:
                raise
            # Tensors and numbers alone are read from a checkpoint; whatever would run code is refused as well.
            raise DataError(
                f"{checkpoint} holds something else than a training's state ({type(error).__name__})",
                fix="remove it, then --resume again",
            ) from error
    if control.stopped:
        raise Stopped
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if not all(math.isfinite(loss) for loss in losses):
        raise BackendError("the training loss is not finite", fix="lower the learning rate, or use dtype=float32")
    return output


def save_trained(trainer: Any, folder: Path, *, name: str, loaded: LoadedModel) -> str:
    """Write what was trained: an adapter with the record of its base, or a whole model with its tokenizer.

    A kill leaves either no model or a whole one: files are written beside their place and moved into it.

    Args:
        trainer: A trainer that has ended.
        folder: The training's folder.
        name: Base model as the user wrote it.
        loaded: The base model.

    Returns:
        The name under which the result is loaded.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    is_adapter = hasattr(model, "peft_config")
    if is_main_process():
        saved = place_beside(folder)
        model.save_pretrained(str(saved), safe_serialization=True)
        (saved / "README.md").unlink(missing_ok=True)
        if is_adapter:
            write_json(saved / BASE, AdapterBase(name, loaded.weights).to_json())
        else:
            loaded.tokenizer.save_pretrained(str(saved))
        adopt(folder, saved, last=BASE if is_adapter else "config.json")
    return f"adapter:{folder}" if is_adapter else str(folder)


def make_trainer(trainer_type: Callable[..., Any], **arguments: Any) -> Any:
    """Make a TRL trainer, its refusals in our own words.

    Args:
        trainer_type: Class of the trainer.
        **arguments: What it takes.

    Returns:
        The trainer.

    Raises:
        ConfigError: If TRL refuses these arguments or a tracker is not installed.
    """
    try:
        with quiet():
            made = trainer_type(**arguments)
    except (ValueError, RuntimeError, ImportError) as error:
        if "DataParallel" in str(error):
            raise ConfigError(
                "several GPUs are visible to one process",
                fix="start with 'accelerate launch -m elicitor ...', or set CUDA_VISIBLE_DEVICES to one of them",
            ) from error
        raise ConfigError(
            f"TRL refuses this training: {reason_of(error)}", fix="change the setting it names"
        ) from error
    if isinstance(made, Trainer):
        for callback in made.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
                # Its own choice is a folder among the checkpoints, which are removed at the end.
                callback.logging_dir = str(Path(made.args.output_dir).parent / TENSORBOARD)
            if isinstance(callback, WandbCallback):
                os.environ.setdefault("WANDB_PROJECT", project("wandb"))
    return made
