"""Tokenizers of the transformers library, for every backend whose model has one. Imports neither torch nor transformers.

Text from data is text, whatever it looks like: a ``<|im_end|>`` or ``<s>`` in a field becomes the tokens of its letters, never
the control token, which only templates can write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from elicitor.backends.base import Part, TokenIds
from elicitor.errors import BackendError

Message = Mapping[str, str]


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
        self._controls = control_pattern(tokenizer)

    @property
    def start_ids(self) -> TokenIds:
        """The token the model expects before any text (BOS), or nothing."""
        return self._start

    def encode(self, text: str) -> TokenIds:
        """Token ids of a text without special tokens."""
        return tuple(int(t) for t in self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode_parts(self, parts: Sequence[Part]) -> TokenIds:
        """Token ids of a text of which some parts are data; see `elicitor.backends.base.PartsTokenizer`."""
        text = "".join(part.text for part in parts)
        controls = self._controls
        # Joined, data can make a control token that no part holds alone.
        written = sum(len(controls.findall(part.text)) for part in parts if not part.is_data) if controls else 0
        if controls is None or len(controls.findall(text)) == written:
            return self.encode(text)
        return tuple(_literal_ids(self._tokenizer, parts, controls))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens included."""
        return str(self._tokenizer.decode(list(ids)))

    def chat(self, message: str) -> TokenIds | None:
        """The model's chat template around one user's message, up to where the reply begins; None if it has none."""
        if not self._tokenizer.chat_template:
            return None
        return tuple(chat_token_ids(self._tokenizer, [{"role": "user", "content": message}], ends=False))


def chat_token_ids(tokenizer: Any, turns: Sequence[Message], *, ends: bool) -> list[int]:
    """Token ids of chat turns in a tokenizer's template, the turns' contents as data.

    Args:
        tokenizer: A tokenizer with a chat template.
        turns: The turns.
        ends: Whether the last turn is the assistant's and whole; otherwise the assistant's turn is opened after them.

    Raises:
        BackendError: If a content looks like control tokens and the template rewrites it.
    """
    options = {"add_generation_prompt": not ends}
    controls = control_pattern(tokenizer)
    if controls is None or not any(controls.search(turn["content"]) for turn in turns):
        ids = tokenizer.apply_chat_template(list(turns), tokenize=True, return_dict=False, **options)
        return [int(token) for token in ids]
    # What stands around the contents shows when each is a word that nothing else can hold.
    marks = [f"elicitorcontent{number}end" for number in range(len(turns))]
    marked = [{**turn, "content": mark} for turn, mark in zip(turns, marks, strict=True)]
    frame = tokenizer.apply_chat_template(marked, tokenize=False, **options)
    wanted = tokenizer.apply_chat_template(list(turns), tokenize=False, **options)
    for strip in (False, True):
        texts = [turn["content"].strip() if strip else turn["content"] for turn in turns]
        contents = dict(zip(marks, texts, strict=True))
        pieces = re.split(f"({'|'.join(marks)})", frame)
        parts = [Part(contents.get(piece, piece), is_data=piece in contents) for piece in pieces]
        if "".join(part.text for part in parts) == wanted:
            return _literal_ids(tokenizer, parts, controls)
    raise BackendError(
        "a text holds what looks like control tokens, and the chat template rewrites it", fix="leave the row out"
    )


def control_pattern(tokenizer: Any) -> re.Pattern[str] | None:
    """Matches the texts of a tokenizer's control tokens; None if it has none."""
    texts = sorted(set(tokenizer.all_special_tokens), key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, texts))) if texts else None


def _literal_ids(tokenizer: Any, parts: Sequence[Part], controls: re.Pattern[str]) -> list[int]:
    """Control tokens where the author wrote them; all between two of them is tokenised as one text without any."""
    ids: list[int] = []
    text = ""

    def flush() -> None:
        if text:
            literal = tokenizer(text, add_special_tokens=False, split_special_tokens=True)
            ids.extend(int(token) for token in literal["input_ids"])

    for part in parts:
        pieces = [part.text] if part.is_data else re.split(f"({controls.pattern})", part.text)
        for number, piece in enumerate(pieces):
            if number % 2:
                flush()
                text = ""
                ids.append(int(tokenizer.convert_tokens_to_ids(piece)))
            else:
                text += piece
    flush()
    return ids
