"""Backend for models that vLLM runs in this process: offline ``LLM`` with automatic prefix caching.

Prompts go in as token ids, in the order of the plan, so that what neighbours share is found in the prefix cache. The
labels' own log-probabilities are asked for by token id where this vLLM can; else the most probable tokens are, and a label
that is not among them is an error. Prompt log-probabilities are never asked for: they bypass the prefix cache.
"""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elicitor.backends.base import Cost, Generations, Progress, Prompt, Scores, TokenIds
from elicitor.backends.hf_tokenizer import HfTokenizer
from elicitor.backends.model_files import folder_hash
from elicitor.backends.questions import Question, questions
from elicitor.backends.trie import check_fit, check_room, unshared_tokens
from elicitor.config import BackendConfig
from elicitor.errors import BackendError, reason_of


class VllmBackend:
    """Scores prompts with a loaded vLLM engine.

    Args:
        engine: ``vllm.LLM``.
        sampling_params: ``vllm.SamplingParams``, the class.
        name: Name the user knows the model by.
        weights: Identifies weights, adapter and numeric settings, for `fingerprint`.
        max_logprobs: Most probable tokens to ask for, where the labels' own cannot be.
        reusable_tokens: Prompt tokens that the prefix cache is counted on to keep between calls.
        adapter: ``vllm.lora.request.LoRARequest``, if there is one.
    """

    def __init__(
        self,
        engine: Any,
        sampling_params: Any,
        *,
        name: str,
        weights: str,
        max_logprobs: int,
        reusable_tokens: int,
        adapter: Any = None,
    ) -> None:
        self._engine = engine
        self._sampling_params = sampling_params
        self._by_id = "logprob_token_ids" in inspect.signature(sampling_params).parameters
        self._name = name
        self._max_logprobs = max_logprobs
        self._reusable_tokens = reusable_tokens
        self._adapter = adapter
        self._tokenizer = HfTokenizer(engine.get_tokenizer())
        model = engine.llm_engine.model_config
        self._max_model_len = int(model.max_model_len)
        settings = f"{weights}|{model.dtype}|{self._max_model_len}|{reusable_tokens}"
        self._fingerprint = hashlib.sha256(settings.encode()).hexdigest()

    @property
    def name(self) -> str:
        """Model name as the user gave it."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Hash of weights, adapter, dtype, division over GPUs, window and vLLM's version."""
        return self._fingerprint

    @property
    def max_context_tokens(self) -> int:
        """Window that vLLM was started with."""
        return self._max_model_len

    @property
    def tokenizer(self) -> HfTokenizer:
        """The model's tokenizer."""
        return self._tokenizer

    @property
    def reusable_tokens(self) -> int:
        """As configured: vLLM decides by itself what it keeps, and computes again what it has dropped."""
        return self._reusable_tokens

    def score(self, prompts: Sequence[Prompt], *, keep: bool = False, on_progress: Progress | None = None) -> Scores:
        """Score every prompt; see `elicitor.backends.base.Backend.score`. vLLM keeps what it can, asked for or not."""
        started = time.perf_counter()
        check_fit(prompts, max_context_tokens=self.max_context_tokens, name=self._name)
        log_probs = np.zeros((len(prompts), len(prompts[0].candidates) if prompts else 0))
        asked = questions(prompts)
        computed = 0
        for question, output in zip(asked, self._generate(asked), strict=True):
            computed += len(question.tokens) - (output.num_cached_tokens or 0)
            (found,) = output.outputs[0].logprobs
            for prompt_number, candidate, token in question.reads:
                log_probs[prompt_number, candidate] += self._read(found, token)
        if on_progress:
            on_progress(computed)
        if not np.isfinite(log_probs).all():
            raise BackendError(
                f"{self._name} gave {int((~np.isfinite(log_probs)).sum())} label log-probabilities that are not finite",
                fix="set backend.dtype, or check the weights",
            )
        cost = Cost(
            prompts=len(prompts),
            tokens_computed=computed,
            tokens_reused=max(0, unshared_tokens(prompts) - computed),
            seconds=time.perf_counter() - started,
        )
        return Scores(log_probs, cost)

    def generate(
        self,
        prompt: TokenIds,
        *,
        max_new_tokens: int,
        temperature: float,
        stop: Sequence[str],
        rngs: Sequence[np.random.Generator],
        on_progress: Progress | None = None,
    ) -> Generations:
        """Draw continuations; see `elicitor.backends.base.GenerationBackend.generate`. Each generator gives a seed."""
        started = time.perf_counter()
        check_room(prompt, max_new_tokens=max_new_tokens, max_context_tokens=self.max_context_tokens, name=self._name)
        params = [
            self._sampling_params(
                max_tokens=max_new_tokens, temperature=temperature, stop=list(stop), seed=int(rng.integers(2**31))
            )
            for rng in rngs
        ]
        answers = self._engine.generate(
            [{"prompt_token_ids": list(prompt)} for _ in rngs], params, use_tqdm=False, lora_request=self._adapter
        )
        drawn = [answer.outputs[0] for answer in answers]
        computed = len(prompt) + sum(len(one.token_ids) for one in drawn)
        if on_progress:
            on_progress(computed)
        return Generations(
            texts=[one.text for one in drawn],
            finished=[one.finish_reason == "stop" for one in drawn],
            lengths=[len(one.token_ids) for one in drawn],
            cost=Cost(len(rngs), computed, len(prompt) * (len(rngs) - 1), time.perf_counter() - started),
        )

    def forget(self) -> None:
        """Empty the prefix cache."""
        self._engine.reset_prefix_cache()

    def _generate(self, asked: Sequence[Question]) -> Sequence[Any]:
        if not asked:
            return []
        return self._engine.generate(  # type: ignore[no-any-return]
            [{"prompt_token_ids": list(question.tokens)} for question in asked],
            [self._params(question) for question in asked],
            use_tqdm=False,
            lora_request=self._adapter,
        )

    def _params(self, question: Question) -> Any:
        wanted: dict[str, Any] = {"logprobs": self._max_logprobs}
        if self._by_id:
            # Releases that know the ids but go by the count alone return nothing without it; later ones ask that both agree.
            wanted = {"logprob_token_ids": list(question.wanted), "logprobs": len(question.wanted)}
        return self._sampling_params(max_tokens=1, temperature=0.0, detokenize=False, **wanted)

    def _read(self, found: Any, token: int) -> float:
        if token not in found:
            raise BackendError(
                f"the label token {token} is not among the {self._max_logprobs} most probable ones, so its probability is "
                "unknown",
                fix="use a vLLM whose SamplingParams has logprob_token_ids, or set backend.vllm.max_logprobs higher",
            )
        return float(found[token].logprob)


def load(source: str, *, name: str, config: BackendConfig) -> VllmBackend:
    """Start vLLM with a model.

    Args:
        source: Folder or hub name.
        name: Name the user knows it by.
        config: How it is run.

    Returns:
        The backend.

    Raises:
        BackendError: If vLLM is not installed, or cannot load the model or the adapter.
    """
    try:
        import vllm
        from vllm.lora.request import LoRARequest
    except ImportError as error:
        raise BackendError(f"model {name!r} needs {error.name}", fix="pip install 'elicitor[vllm]'") from error
    options = config.vllm
    adapter = None
    if options.adapter is not None:
        if not (Path(options.adapter) / "adapter_model.safetensors").is_file():
            raise BackendError(
                f"{options.adapter} holds no adapter_model.safetensors", fix="give the folder of a LoRA adapter"
            )
        adapter = LoRARequest("adapter", 1, str(options.adapter))
    try:
        engine = vllm.LLM(
            model=source,
            enable_prefix_caching=True,
            tensor_parallel_size=options.tensor_parallel_size,
            pipeline_parallel_size=options.pipeline_parallel_size,
            gpu_memory_utilization=options.gpu_memory_utilization,
            dtype=config.dtype,
            max_model_len=options.max_model_len,
            max_logprobs=options.max_logprobs,
            enable_lora=adapter is not None,
            max_lora_rank=options.max_lora_rank,
            trust_remote_code=config.trust_remote_code,
            load_format="safetensors",
            seed=0,
        )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        raise BackendError(
            f"vLLM could not load {name!r}: {reason_of(error)}", fix="check the name and backend.vllm"
        ) from error
    parts = [
        vllm.__version__,
        _weights(engine, source),
        folder_hash(Path(options.adapter)) if options.adapter else "",
        f"{options.tensor_parallel_size}x{options.pipeline_parallel_size}",
    ]
    return VllmBackend(
        engine,
        vllm.SamplingParams,
        name=name,
        weights="|".join(parts),
        max_logprobs=options.max_logprobs,
        reusable_tokens=options.reusable_tokens,
        adapter=adapter,
    )


def _weights(engine: Any, source: str) -> str:
    """Hash of a folder's files, or the commit that the hub gave."""
    if Path(source).is_dir():
        return folder_hash(Path(source))
    commit = getattr(engine.llm_engine.model_config.hf_config, "_commit_hash", None)
    if commit is None:
        raise BackendError(
            f"the revision of {source!r} is unknown, so a run could not be resumed safely",
            fix="download the model and give its folder",
        )
    return str(commit)
