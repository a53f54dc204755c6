"""Adapters: a PEFT adapter in a folder, and a small file beside it that says which base model it belongs to.

Only safetensors are read. Merging an adapter into its base costs seconds once and nothing at each forward pass.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from elicitor.errors import BackendError, reason_of

BASE = "base.json"
_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class AdapterBase:
    """What an adapter was trained on.

    Attributes:
        base: Base model as the user wrote it, such as ``bundled`` or ``gguf:FILE``.
        base_weights: Identifies the base model's weights; None leaves them unchecked.
    """

    base: str
    base_weights: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)


_RECORDS = TypeAdapter(AdapterBase)


def read_base(folder: Path) -> AdapterBase:
    """Read an adapter's record and check that its other files are there.

    Args:
        folder: Folder with ``adapter_config.json``, ``adapter_model.safetensors`` and ``base.json``.

    Returns:
        The record.

    Raises:
        BackendError: If a file is missing or the record is broken.
    """
    if not folder.is_dir():
        raise BackendError(f"adapter folder {folder} does not exist", fix="check the path")
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            raise BackendError(
                f"{folder} is no adapter, {name} is missing",
                fix="give the --output-dir of a finished 'elicitor train' with LoRA; pickled weights are not read",
            )
    try:
        record = _RECORDS.validate_python(json.loads((folder / BASE).read_bytes()))
    except FileNotFoundError as error:
        raise BackendError(
            f"{folder} does not say which model its adapter belongs to",
            fix=f'write {folder / BASE} with {{"base": "hf:ORG/NAME"}}',
        ) from error
    except (ValueError, RecursionError) as error:  # neither JSON nor, it may be, UTF-8, or other values
        raise BackendError(f"{folder / BASE} is broken", fix='write {"base": "hf:ORG/NAME"} into it') from error
    return record


def adapter_hash(folder: Path) -> str:
    """Hash of an adapter's weights and configuration."""
    digest = hashlib.sha256()
    for name in (_CONFIG, _WEIGHTS):
        with (folder / name).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


@contextmanager
def reading_adapter(folder: Path) -> Iterator[None]:
    """Say in our own words that an adapter's files are damaged, incomplete or of another model.

    Args:
        folder: The adapter's folder, which is read in the block.

    Raises:
        BackendError: If so.
    """
    try:
        with warnings.catch_warnings():
            # PEFT leaves what is missing as it began, which is random or nothing, and only warns.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            yield
    except MemoryError:
        raise
    except Exception as error:  # readers of a damaged file fail in many ways
        raise BackendError(
            f"the adapter in {folder} could not be loaded: {reason_of(error)}", fix="train it again"
        ) from error


def merge(model: Any, folder: Path, *, base_weights: str) -> tuple[Any, str]:
    """Add an adapter to its base model's weights.

    Args:
        model: The base model, a transformers model.
        folder: The adapter's folder.
        base_weights: Identifies the weights of ``model``.

    Returns:
        The merged model, and what identifies its weights.

    Raises:
        BackendError: If the adapter belongs to other weights, cannot be read, or PEFT is missing.
    """
    record = read_base(folder)
    if record.base_weights is not None and record.base_weights != base_weights:
        raise BackendError(
            f"the adapter in {folder} was trained on other weights of {record.base!r} than are there now",
            fix="put back that version of the base model, or train again",
        )
    try:
        from peft import PeftModel
    except ImportError as error:
        raise BackendError("an adapter needs peft", fix="pip install 'elicitor[train]'") from error
    with reading_adapter(folder):
        merged = PeftModel.from_pretrained(model, str(folder), use_safetensors=True).merge_and_unload(safe_merge=True)
    return merged, hashlib.sha256(f"{base_weights}|{adapter_hash(folder)}".encode()).hexdigest()
