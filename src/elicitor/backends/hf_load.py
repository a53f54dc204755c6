"""Loading transformers models: files in, a model in memory out, safetensors only."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from elicitor.backends.adapter import merge
from elicitor.backends.model_files import folder_hash
from elicitor.errors import BackendError, reason_of


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A transformers model in memory.

    Attributes:
        model: On the CPU, adapters merged.
        tokenizer: Its tokenizer.
        weights: Identifies the weights.
    """

    model: Any
    tokenizer: Any
    weights: str


def load_model(
    source: str,
    *,
    name: str,
    weights: str | None,
    adapters: Sequence[Path],
    dtype: str,
    trust_remote_code: bool = False,
    kind: Any = AutoModelForCausalLM,
    **options: Any,
) -> LoadedModel:
    """Load a model and its tokenizer from a folder or the hub, safetensors only.

    Args:
        source: Folder or hub name.
        name: Name the user knows it by.
        weights: Identifies the weights; by default the hub's commit, or a hash over the folder's files.
        adapters: Folders of PEFT adapters to merge into the model, in this order.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        trust_remote_code: Run Python code that the repository carries.
        kind: Auto class of transformers that makes the model.
        **options: More for its ``from_pretrained``, such as ``num_labels``.

    Returns:
        The model, its tokenizer and what identifies the weights.

    Raises:
        BackendError: If the model or an adapter cannot be found or loaded.
    """
    trust = {"trust_remote_code": trust_remote_code}
    try:
        with quiet():
            config = AutoConfig.from_pretrained(source, **trust)
            tokenizer = AutoTokenizer.from_pretrained(source, **trust)
            tokenizer("")  # wrong values in its files show when it is used
            if kind is AutoModelForCausalLM:
                options = {"config": config, **options}
            options |= {"dtype": getattr(torch, dtype), "use_safetensors": True, "output_loading_info": True}
            model, told = kind.from_pretrained(source, **trust, **options)
    except MemoryError:
        raise
    except Exception as error:  # readers of a damaged file fail in many ways
        fix = "see 'elicitor models' for names"
        if "trust_remote_code" in str(error):
            fix = "read the code that comes with it, and set backend.trust_remote_code=true if you trust it"
        elif isinstance(error, SafetensorError):
            fix = "download its weights again, they are damaged"
        elif not isinstance(error, OSError | ValueError | ImportError | KeyError | RuntimeError):
            fix = "download its files again, one of them cannot be read"
        raise BackendError(f"model {name!r} could not be loaded: {reason_of(error)}", fix=fix) from error
    # A head of its own is new where a language model is loaded for something else.
    check_complete(told, within="" if kind is AutoModelForCausalLM else f"{model.base_model_prefix}.", name=name)
    weights = weights or getattr(config, "_commit_hash", None) or folder_hash(Path(source))
    for folder in adapters:
        with quiet():
            model, weights = merge(model, folder, base_weights=weights)
    return LoadedModel(model, tokenizer, weights)


def check_complete(told: Mapping[str, Any], *, within: str = "", name: str) -> None:
    """Refuse a model some of whose weights are in no file: transformers draws them at random and only says so.

    Args:
        told: What ``from_pretrained`` tells of its loading.
        within: Beginning of the names that count.
        name: Name the user knows the model by.

    Raises:
        BackendError: If a weight is missing.
    """
    if lost := sorted(key for key in told["missing_keys"] if key.startswith(within)):
        raise BackendError(
            f"the files of model {name!r} lack {len(lost)} of its weights, such as {lost[0]}",
            fix="download it again, all of its files",
        )


def context_window(config: Any, *, name: str) -> int:
    """Longest sequence that a model was made for, in tokens.

    Args:
        config: The model's configuration.
        name: Name the user knows it by.

    Raises:
        BackendError: If the configuration names none.
    """
    for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        if value := getattr(config.get_text_config(), key, None):
            return int(value)
    raise BackendError(f"the configuration of {name} names no context length", fix="add max_position_embeddings")


def choose_device(device: str) -> torch.device:
    """The device of that name; ``auto`` is CUDA if there is one.

    Raises:
        BackendError: If it cannot be used here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise BackendError(f"device {device!r} cannot be used here", fix="set backend.device=cpu") from error
    return place


def choose_dtype(dtype: str, device: torch.device) -> str:
    """The precision of that name; ``auto`` is float32 on a CPU, where bfloat16's rounding could change a resumed run."""
    if dtype != "auto":
        return dtype
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    return "float32"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from writing bars and notices over our own output, and its callers' use of old names to itself."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
