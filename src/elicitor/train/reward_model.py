"""A reward model: a base model with a LoRA adapter and one linear head, loaded from its folder and asked for scores.

The folder holds ``adapter_model.safetensors`` (adapter and head), ``adapter_config.json`` and ``reward_model.json``: the
base's name and fingerprint, how prompts are rendered, what it was trained on. Nothing in it is pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from elicitor.backends.adapter import reading_adapter
from elicitor.backends.base import Progress
from elicitor.backends.hf_load import choose_device, choose_dtype, load_model, quiet
from elicitor.backends.hf_states import batches
from elicitor.errors import BackendError, DataError, ResumeMismatchError
from elicitor.files import read_json, write_json
from elicitor.manifest import package_versions
from elicitor.models import locate
from elicitor.train.folder import REWARD_MODEL, adopt, place_beside, reward_folder
from elicitor.train.rendering import Message, Rendering

WEIGHTS = "adapter_model.safetensors"
HEAD = "score"
"""Name of the head in transformers' models for sequence classification."""
BATCH_TOKENS = 2048
"""Tokens of one forward pass when scoring, padding included."""
_FORMAT = 1

Rewarder = Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]
"""Anything that gives one reward for each prompt and response."""


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model with a scalar head that has not been trained, and its tokenizer.

    Attributes:
        name: Name the user knows it by.
        fingerprint: Identifies its weights, whatever the precision.
        model: Sequence-classification model with one output, head in float32 and zero.
        tokenizer: Its tokenizer, padding on the right with a token that ends no sequence.
        max_tokens: Its window.
    """

    name: str
    fingerprint: str
    model: Any
    tokenizer: Any
    max_tokens: int


def load_base(name: str, *, dtype: str = "auto", device: str = "auto") -> BaseModel:
    """Load a base model for rewards by its model name.

    The head is kept in float32 and fed in float32: rewards that were rounded to bfloat16 would tie.

    Args:
        name: ``bundled``, ``hf:NAME``, ``gguf:FILE``, ``adapter:FOLDER`` or a folder.
        dtype: Precision of the weights; see `elicitor.backends.hf_load.choose_dtype`.
        device: ``auto`` is CUDA if there is one.

    Raises:
        BackendError: If the model cannot be found or loaded, or has no linear head.
    """
    place = choose_device(device)
    precision = choose_dtype(dtype, place)
    source = locate(name)
    location, weights = source.files(dtype=precision)
    loaded = load_model(
        location,
        name=name,
        weights=weights,
        adapters=source.adapters,
        dtype=precision,
        kind=AutoModelForSequenceClassification,
        num_labels=1,
    )
    model, tokenizer = loaded.model, loaded.tokenizer
    head = getattr(model, HEAD, None)
    if not isinstance(head, torch.nn.Linear):
        raise BackendError(f"model {name!r} has no linear head {HEAD!r}", fix="use a decoder such as Llama or Qwen")
    head.float()
    torch.nn.init.zeros_(head.weight)
    head.register_forward_pre_hook(_as_float32)
    tokenizer.padding_side = "right"
    tokenizer.pad_token = _padding(tokenizer)
    text_config = model.config.get_text_config()
    text_config.pad_token_id = tokenizer.pad_token_id
    return BaseModel(name, loaded.weights, model.to(place), tokenizer, int(text_config.max_position_embeddings))


def _as_float32(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.float() for tensor in inputs)


def _padding(tokenizer: Any) -> str:
    """A padding token that ends no sequence: the head reads the last token that is not padding."""
    for token in (tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token, *tokenizer.all_special_tokens):
        if token is not None and token != tokenizer.eos_token:
            return str(token)
    raise BackendError("the tokenizer has no special token to pad with", fix="add a padding token to it")


class RewardModel:
    """Scores responses.

    Args:
        base: The base model.
        model: The base's model under its adapter.
        rendering: How a prompt with a response becomes tokens.
        about: What the folder's JSON says.
        folder: Where it is on disk.
    """

    def __init__(
        self, base: BaseModel, model: Any, *, rendering: Rendering, about: Mapping[str, Any], folder: Path
    ) -> None:
        self.base = base
        self.model = model.eval()
        self.rendering = rendering
        self.about = dict(about)
        self.folder = folder
        self.truncated = 0
        """Responses scored so far whose prompt lost its oldest tokens."""

    @classmethod
    def load(
        cls, folder: str | Path, *, base: str | None = None, dtype: str = "auto", device: str = "auto"
    ) -> RewardModel:
        """Load a reward model.

        Args:
            folder: What ``elicitor train reward`` wrote.
            base: Model name of the base, if it is elsewhere now than when the reward model was trained.
            dtype: Precision of the base.
            device: ``auto`` is CUDA if there is one.

        Raises:
            DataError: If the folder holds no finished reward model.
            ResumeMismatchError: If the base's weights are others than those it was trained on.
            BackendError: If the base or the adapter cannot be loaded.
        """
        folder = find_folder(Path(folder))
        if not (folder / WEIGHTS).is_file():
            raise DataError(f"{folder} has no {WEIGHTS}", fix="train it again; pickled weights are not read")
        about = read_json(folder / REWARD_MODEL)
        rendering = Rendering.from_json(about.get("rendering", {}))
        loaded = load_base(base or str(about["base"]), dtype=dtype, device=device)
        if loaded.fingerprint != about["base_fingerprint"]:
            raise ResumeMismatchError(
                f"reward model {folder} was trained on other weights than those of {loaded.name}",
                fix="give the base model it was trained on",
            )
        with quiet(), reading_adapter(folder):
            model = PeftModel.from_pretrained(loaded.model, str(folder), use_safetensors=True)
        return cls(loaded, model, rendering=rendering, about=about, folder=folder)

    def save(self) -> None:
        """Write adapter, head and facts; ``reward_model.json`` comes last and marks the folder as whole."""
        saved = place_beside(self.folder)
        # The path of a converted base says nothing elsewhere; `reward_model.json` names it as the user did.
        self.model.peft_config["default"].base_model_name_or_path = self.base.name.removeprefix("hf:")
        self.model.save_pretrained(str(saved), safe_serialization=True, save_embedding_layers=False)
        (saved / "README.md").unlink(missing_ok=True)
        write_json(saved / REWARD_MODEL, self.about)
        adopt(self.folder, saved, last=REWARD_MODEL)

    def score(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        *,
        batch_tokens: int = BATCH_TOKENS,
        on_progress: Progress | None = None,
    ) -> NDArray[np.float64]:
        """Reward of each response to its prompt.

        Args:
            prompts: Questions or dialogues.
            responses: One for each prompt.
            batch_tokens: Tokens of one forward pass, padding included.
            on_progress: Called after each forward pass with its tokens, padding left out.

        Returns:
            Shape (responses,): rewards in nats: the difference of two is the log-odds that the first is preferred.

        Raises:
            ValueError: If the numbers of prompts and responses differ.
            BackendError: If a reward is not finite.
        """
        rendered = [
            self.rendering.tokens(self.base.tokenizer, prompt, response)
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        self.truncated += sum(cut for _, cut in rendered)
        return score_tokens(
            self.model,
            [ids for ids, _ in rendered],
            padding=self.base.tokenizer.pad_token_id,
            batch_tokens=batch_tokens,
            on_progress=on_progress,
        )

    def __call__(self, prompts: Sequence[str | list[Message]], completions: Sequence[str], **_: Any) -> list[float]:
        """The form in which a user's own script may hand it to a TRL trainer, with prompts and completions as text."""
        return [float(reward) for reward in self.score([str(prompt) for prompt in prompts], list(completions))]


def score_tokens(
    model: Any,
    sequences: Sequence[Sequence[int]],
    *,
    padding: int,
    batch_tokens: int = BATCH_TOKENS,
    on_progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Outputs of a sequence-classification model with one output, in batches of similar length.

    Args:
        model: The model.
        sequences: Token ids, at least one token each.
        padding: Id that fills the right of shorter sequences.
        batch_tokens: Tokens of one forward pass, padding included.
        on_progress: Called after each forward pass with its tokens, padding left out.

    Returns:
        Shape (sequences,).

    Raises:
        BackendError: If an output is not finite.
    """
    lengths = [len(ids) for ids in sequences]
    rewards = np.zeros(len(sequences))
    with torch.inference_mode():
        for batch in batches(lengths, batch_tokens):
            ids, mask = padded([sequences[i] for i in batch], padding=padding, device=model.device)
            rewards[batch] = (
                model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0].double().cpu().numpy()
            )
            if on_progress:
                on_progress(sum(lengths[i] for i in batch))
    if not np.isfinite(rewards).all():
        raise BackendError(
            f"{int((~np.isfinite(rewards)).sum())} rewards are not finite", fix="train with a lower --learning-rate"
        )
    return rewards


def padded(sequences: Sequence[Sequence[int]], *, padding: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask of a batch, padded on the right; shape (sequences, longest) each."""
    longest = max(map(len, sequences))
    ids = torch.tensor([[*s, *[padding] * (longest - len(s))] for s in sequences], device=device)
    mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sequences], device=device)
    return ids, mask


def describe(base: BaseModel, rendering: Rendering, **facts: Any) -> dict[str, Any]:
    """Content of ``reward_model.json``."""
    return {
        "format": _FORMAT,
        "base": base.name,
        "base_fingerprint": base.fingerprint,
        "rendering": rendering.to_json(),
        "padding": base.tokenizer.pad_token,
        **facts,
        "versions": package_versions(),
    }


def find_folder(path: Path) -> Path:
    """The reward model of a folder: the folder itself, or the last one that a training run in it has finished.

    Raises:
        DataError: If there is none.
    """
    folder = reward_folder(path)
    if folder is None:
        raise DataError(f"{path} holds no finished reward model", fix="finish 'elicitor train reward' with --resume")
    return folder
