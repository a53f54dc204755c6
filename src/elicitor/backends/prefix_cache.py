"""What a backend remembers between calls: the state after each prefix, and answers, in a bounded tree.

The tree is keyed by token segments from the start of the context on, never by names of runs or examples, so an entry can
only ever be found by a prompt with exactly the same tokens before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elicitor.backends.base import Prompt, TokenIds

CutState = Callable[[Any, int], tuple[Any, Any]]
"""Takes the state of a segment apart: what belongs to its first so many tokens, and the rest."""

_SLACK = 16
"""When room is needed, at least a 16th of the capacity is freed, so that not every new entry has to look for room."""


class Entry:
    """One segment after one prefix.

    Attributes:
        parent: The prefix; None for the empty one.
        segment: Token ids.
        children: What followed it.
        state: What the backend needs to go on after this segment without computing it; None when not held.
        answers: Label log-probabilities by candidate, for a prompt that ends here.
        used: Number of the last call that touched it.
    """

    __slots__ = ("answers", "children", "parent", "segment", "state", "used")

    def __init__(self, parent: Entry | None, segment: TokenIds) -> None:
        self.parent = parent
        self.segment = segment
        self.children: dict[TokenIds, Entry] = {}
        self.state: Any = None
        self.answers: dict[tuple[TokenIds, ...], NDArray[np.float64]] = {}
        self.used = 0


class PrefixCache:
    """A tree of prefixes of at most ``max_tokens`` tokens; the least recently used go first.

    Args:
        max_tokens: Tokens whose state is kept, at most.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.tokens = 0
        self.call = 0
        self.root = Entry(None, ())

    def begin(self, prompts: Sequence[Prompt]) -> list[NDArray[np.float64] | None]:
        """Start a call: what is touched from now on is not dropped before the next one.

        Args:
            prompts: The prompts of the call.

        Returns:
            For each prompt the answer it got before, shape (candidates,), or None.
        """
        self.call += 1
        return [self._recall(prompt) for prompt in prompts]

    def child(self, parent: Entry, segment: TokenIds) -> Entry:
        """The entry of a segment after a prefix, made without a state if it is new."""
        entry = parent.children.get(segment)
        if entry is None:
            entry = parent.children[segment] = Entry(parent, segment)
        entry.used = self.call
        return entry

    def split(self, entry: Entry, length: int, cut: CutState) -> Entry:
        """Divide an entry in two.

        Args:
            entry: What is held and built on it stays with it; its segment becomes the shorter.
            length: Tokens of its segment that a new entry takes over, at least 1 and not all.
            cut: Takes its state apart.

        Returns:
            The new entry, which stands between the old one and its prefix.
        """
        assert entry.parent is not None
        upper = Entry(entry.parent, entry.segment[:length])
        upper.used = entry.used
        if entry.state is not None:
            upper.state, entry.state = cut(entry.state, length)
        del entry.parent.children[entry.segment]
        entry.parent.children[upper.segment] = upper
        entry.parent, entry.segment = upper, entry.segment[length:]
        upper.children[entry.segment] = entry
        return upper

    def prune(self, entry: Entry) -> None:
        """Drop an entry, and prefixes that were there for it alone, if they hold nothing; for the end of a call."""
        self._drop_empty(entry, used_before=self.call + 1)

    def has_room(self, entry: Entry) -> bool:
        """Whether the entry's state may be kept, after dropping what earlier calls left if need be."""
        missing = self.tokens + len(entry.segment) - self.max_tokens
        if missing > 0:
            self._free(max(missing, self.max_tokens // _SLACK))
        return self.tokens + len(entry.segment) <= self.max_tokens

    def hold(self, entry: Entry, state: Any) -> None:
        """Keep the state of an entry for which there is room."""
        self.tokens += len(entry.segment) if entry.state is None else 0
        entry.state = state

    def remember(self, prompt: Prompt, answer: NDArray[np.float64]) -> None:
        """Keep the answer to a prompt; it counts as one token."""
        entry = self.root
        for segment in filter(None, prompt.segments):
            entry = self.child(entry, segment)
        self.tokens += 0 if entry.answers else 1
        entry.answers[prompt.candidates] = answer

    def _recall(self, prompt: Prompt) -> NDArray[np.float64] | None:
        entry = self.root
        for segment in filter(None, prompt.segments):
            if segment not in entry.children:
                return None
            entry = self.child(entry, segment)
        return entry.answers.get(prompt.candidates)

    def _free(self, tokens: int) -> None:
        """Drop at least so many tokens if earlier calls left as many; what stands deepest goes first among equals."""
        old = [(entry.used, -depth, entry) for entry, depth in self._walk() if entry.used < self.call]
        old.sort(key=lambda item: item[:2])
        for _, _, entry in old:
            if tokens <= 0:
                break
            size = (len(entry.segment) if entry.state is not None else 0) + (1 if entry.answers else 0)
            self.tokens -= size
            tokens -= size
            entry.state = None
            entry.answers = {}
            self._drop_empty(entry, used_before=self.call)

    @staticmethod
    def _drop_empty(entry: Entry, *, used_before: int) -> None:
        while entry.parent is not None and entry.used < used_before:
            if entry.state is not None or entry.answers or entry.children:
                break
            entry.parent.children.pop(entry.segment, None)
            entry = entry.parent

    def _walk(self) -> Iterator[tuple[Entry, int]]:
        stack = [(child, 1) for child in self.root.children.values()]
        while stack:
            entry, depth = stack.pop()
            yield entry, depth
            stack.extend((child, depth + 1) for child in entry.children.values())
