"""Prompts as single questions to a server that knows one thing: the next token after a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elicitor.backends.base import Prompt, TokenIds
from elicitor.backends.trie import build


@dataclass(frozen=True, slots=True)
class Question:
    """One text, and the next tokens whose log-probabilities are wanted.

    Attributes:
        tokens: The text.
        reads: (prompt, candidate, token): the token's log-probability is added to that candidate of that prompt.
        fresh: Tokens at the end of the text that the question before does not begin with.
    """

    tokens: TokenIds
    reads: tuple[tuple[int, int, int], ...]
    fresh: int

    @property
    def wanted(self) -> tuple[int, ...]:
        """Tokens asked for, each once."""
        return tuple(dict.fromkeys(token for _, _, token in self.reads))


def questions(prompts: Sequence[Prompt]) -> list[Question]:
    """Expand prompts into questions.

    A candidate of one token is read after the prompt. A candidate of several needs one further question for each further
    token, behind the tokens before it; candidates that begin alike share those.

    Args:
        prompts: Prompts, each with at least one token.

    Returns:
        Each different text once, in depth-first order, so that those which begin alike stand next to each other.

    Raises:
        LabelTokenError: See `elicitor.backends.trie.check_candidates`.
    """
    found: list[Question] = []
    text: list[int] = []
    shared = 0  # Tokens at the beginning of the text that the last question has as well.
    stack = [(0, build(prompts))]
    while stack:
        depth, node = stack.pop()
        text[depth:] = node.tokens
        shared = min(shared, depth)
        if node.reads:
            found.append(Question(tuple(text), tuple(node.reads), len(text) - shared))
            shared = len(text)
        stack.extend((len(text), child) for child in reversed(node.children.values()))
    return found
