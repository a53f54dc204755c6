"""How a prompt and a response become tokens: one rendering for reward training, evaluation and reinforcement learning.

A model with a chat template reads its own template; any other reads plain turns. Knows nothing of rewards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from elicitor.backends.hf_tokenizer import chat_token_ids
from elicitor.errors import BackendError, DataError, reason_of
from elicitor.tasks.preference import dialogue_turns

Message = dict[str, str]
_ROLES = {"Human": "user", "Assistant": "assistant"}
_NEXT_TURN = "\n\nHuman:"


@dataclass(frozen=True, slots=True)
class Rendering:
    """Form of the tokens that a reward model reads.

    Attributes:
        kind: ``chat`` for the tokenizer's template, ``plain`` for turns after ``Human:`` and ``Assistant:``.
        max_length: Tokens at most; what is longer loses its oldest tokens, never the end of the response.
    """

    kind: Literal["chat", "plain"]
    max_length: int

    @classmethod
    def of(cls, tokenizer: Any, *, max_length: int) -> Rendering:
        """The form that fits a tokenizer."""
        return cls("chat" if tokenizer.chat_template else "plain", max_length)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Rendering:
        """Read back what `to_json` gave.

        Raises:
            DataError: If the values are none of ours.
        """
        if set(values) != {"kind", "max_length"} or values["kind"] not in ("chat", "plain"):
            raise DataError(f"unknown rendering {dict(values)!r}", fix="train the reward model with this version")
        return cls(values["kind"], int(values["max_length"]))

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def tokens(self, tokenizer: Any, prompt: str, response: str) -> tuple[list[int], bool]:
        """Token ids of a prompt with a response.

        Args:
            tokenizer: Tokenizer of the reward model's base.
            prompt: A question, or a dialogue that ends with a turn of ``Human:``.
            response: What the assistant says.

        Returns:
            At most ``max_length`` ids, and whether some had to be left out.

        Raises:
            BackendError: If the chat template refuses the dialogue.
        """
        if self.kind == "chat":
            ids = chat_ids(tokenizer, [*messages(prompt), {"role": "assistant", "content": response}], ends=True)
        else:
            text = f"{plain_prompt(prompt)} {response}"
            ids = list(tokenizer(text, split_special_tokens=True)["input_ids"])
            if tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
                ids.append(tokenizer.eos_token_id)
        return ids[-self.max_length :], len(ids) > self.max_length


def messages(prompt: str) -> list[Message]:
    """A prompt as chat turns: a dialogue of ``Human:`` and ``Assistant:`` turn by turn, anything else as one turn."""
    turns = dialogue_turns(prompt)
    expected = ["Human", "Assistant"] * len(turns)
    speakers = [speaker for speaker, _ in turns]
    if prompt.lstrip().startswith("Human:") and len(turns) % 2 == 1 and speakers == expected[: len(turns)]:
        return [{"role": _ROLES[speaker], "content": text} for speaker, text in turns]
    return [{"role": "user", "content": prompt}]


def plain_prompt(prompt: str) -> str:
    """A prompt as plain turns, up to where the response begins."""
    said = {"user": "Human", "assistant": "Assistant"}
    turns = [f"{said[turn['role']]}: {turn['content']}" for turn in messages(prompt)]
    return "\n\n".join([*turns, "Assistant:"])


def first_turn(text: str) -> str:
    """A generated response without what a model without a chat template goes on to say for the human."""
    return text.partition(_NEXT_TURN)[0].strip()


def chat_ids(tokenizer: Any, turns: list[Message], *, ends: bool) -> list[int]:
    """Token ids of chat turns.

    Args:
        tokenizer: A tokenizer with a chat template.
        turns: The turns.
        ends: Whether the last turn is the assistant's and whole; otherwise the assistant's turn is opened after them.

    Raises:
        BackendError: If the template refuses them.
    """
    try:
        return chat_token_ids(tokenizer, turns, ends=ends)
    except BackendError:
        raise
    except Exception as error:  # templates raise jinja2 errors of their own wording
        raise BackendError(f"the chat template refuses a dialogue: {reason_of(error)}", fix="drop the row") from error
