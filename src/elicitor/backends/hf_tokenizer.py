"""Tokenizers of the transformers library, for every backend whose model has one. Imports neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from elicitor.backends.base import TokenIds


class HfTokenizer:
    """A transformers tokenizer as prompts need it.

    Args:
        tokenizer: Fast or slow tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        framed = tokenizer("")["input_ids"]
        end = tokenizer.eos_token_id
        self._start = tuple(int(t) for t in framed if t != end or t == tokenizer.bos_token_id)[:1]

    @property
    def start_ids(self) -> TokenIds:
        """The token the model expects before any text (BOS), or nothing."""
        return self._start

    def encode(self, text: str) -> TokenIds:
        """Token ids of a text without special tokens."""
        return tuple(int(t) for t in self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens included."""
        return str(self._tokenizer.decode(list(ids)))

    def chat(self, message: str) -> TokenIds | None:
        """The model's chat template around one user's message, up to where the reply begins; None if it has none."""
        if not self._tokenizer.chat_template:
            return None
        turns = [{"role": "user", "content": message}]
        ids = self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        return tuple(int(t) for t in ids)
