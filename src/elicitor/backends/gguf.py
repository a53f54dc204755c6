"""GGUF files, dequantised once into the user's cache folder.

Dequantising takes 20 to 100 seconds, loading the result about one. A conversion is written beside its place and renamed
into it, so a broken one is never read; a file lock lets one of several processes do the work and the others wait.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from elicitor.backends.gguf_header import check_header
from elicitor.errors import BackendError, reason_of
from elicitor.files import disk_error, make_folder, writing
from elicitor.terminal import say


def cache_folder() -> Path:
    """Where conversions are kept: ``$ELICITOR_CACHE``, else ``elicitor`` in the user's cache folder."""
    if own := os.environ.get("ELICITOR_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elicitor"


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def converted(path: Path, *, dtype: str) -> tuple[Path, str]:
    """Folder with the model of a GGUF file as safetensors, converting it if need be.

    Args:
        path: The GGUF file.
        dtype: ``float32``, ``bfloat16`` or ``float16``: precision of the converted weights.

    Returns:
        The folder, and the SHA-256 of the GGUF file.

    Raises:
        BackendError: If the file is missing, is not GGUF, or cannot be converted.
    """
    check_header(path)
    digest = file_hash(path)
    folder = cache_folder() / "gguf" / f"{digest[:32]}-{dtype}"
    if not folder.is_dir():
        import filelock

        make_folder(folder.parent)
        with writing(folder), filelock.FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                _convert(path, folder, dtype=dtype)
    return folder, digest


def _convert(path: Path, folder: Path, *, dtype: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from elicitor.backends.hf_load import check_complete, quiet

    say(f"converting {path.name} once into {folder} (20 to 100 s)", file=sys.stderr)
    for leftover in folder.parent.glob(f"{folder.name}.tmp-*"):
        # We hold the lock, so whoever began this one is dead.
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=folder.parent))
    try:
        # The converter draws a bar that redrawing on a log file would repeat a hundred times.
        bar = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
        with quiet(), bar, _read_once():
            options = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
            tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
            model, told = AutoModelForCausalLM.from_pretrained(
                path.parent,
                dtype=getattr(torch, dtype),
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
                **options,
            )
            check_complete(told, name=str(path))
            tokenizer.save_pretrained(temporary)
            model.save_pretrained(temporary)
    except Exception as error:  # readers of a damaged file fail in many ways
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, BackendError):
            raise
        if full := disk_error(error, temporary):
            raise full from error
        kind = type(error).__name__
        raise BackendError(
            f"{path} could not be converted: {kind}: {reason_of(error)}", fix="check that the file is whole"
        ) from error
    temporary.rename(folder)


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """Let the tokenizer, the configuration and the weights share one parse of the file, most of a conversion's time."""
    import gguf

    original = gguf.GGUFReader
    gguf.GGUFReader = functools.cache(original)
    try:
        yield
    finally:
        gguf.GGUFReader = original
