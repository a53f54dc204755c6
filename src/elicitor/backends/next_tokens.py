"""Prompts for engines that answer one question: how likely is each token as the next one after a text?

A label of one token is read after the prompt. A label of several tokens is a product of conditional probabilities, so it needs
one further text for each further token: the prompt with the label's tokens before it. Labels that begin alike share those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elicitor.backends.base import Prompt, TokenIds
from elicitor.backends.trie import check_candidates


@dataclass(frozen=True, slots=True)
class NextTokens:
    """One text, and the next tokens that are asked about.

    Attributes:
        text: Token ids of the text.
        reads: (prompt, candidate, token): the token's log-probability is added to that candidate's of that prompt.
    """

    text: TokenIds
    reads: tuple[tuple[int, int, int], ...]

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens asked about, each once, in the order of the candidates."""
        return tuple(dict.fromkeys(token for _, _, token in self.reads))


def next_tokens(prompts: Sequence[Prompt]) -> list[NextTokens]:
    """Turn prompts into texts with one token to follow.

    Args:
        prompts: Prompts, in the order in which neighbours share the longest beginnings.

    Returns:
        Texts in the same order, each prompt's behind one another; a text that several prompts have is asked once, at the first.

    Raises:
        LabelTokenError: See `elicitor.backends.trie.check_candidates`.
    """
    reads: dict[TokenIds, list[tuple[int, int, int]]] = {}
    for number, prompt in enumerate(prompts):
        check_candidates(prompt.candidates)
        whole = tuple(token for segment in prompt.segments for token in segment)
        for candidate, tokens in enumerate(prompt.candidates):
            for end, token in enumerate(tokens):
                reads.setdefault(whole + tokens[:end], []).append((number, candidate, token))
    return [NextTokens(text, tuple(found)) for text, found in reads.items()]
