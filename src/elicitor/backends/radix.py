"""Flat prompts in a prefix cache: where they diverge is found, not told.

A prompt that comes over a network is one list of tokens; nobody says where its demonstrations end. `segmented` puts such
prompts into a `PrefixCache` as a radix tree: an entry is split where a prompt leaves it, so everything that prompts share,
with one another or with earlier calls, becomes segments of its own. From there on flat prompts are prompts like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from elicitor.backends.base import Prompt, TokenIds
from elicitor.backends.prefix_cache import CutState, Entry, PrefixCache

_ANY_TOKEN = ((0,),)
"""A candidate of one token costs nothing and makes the output behind the prompt be read; which one it is does not matter."""


@contextmanager
def segmented(prompts: Sequence[TokenIds], cache: PrefixCache, *, cut: CutState) -> Iterator[list[Prompt]]:
    """Flat prompts as prompts whose segments are entries of a cache, in one call of that cache.

    The last token of each prompt is a segment of its own, because a token must run to be read from: so all that stands
    before it can be kept and restored, and a prompt that comes again costs one token.

    Args:
        prompts: Token ids, at least one each.
        cache: Holds what earlier calls computed.
        cut: Takes a state apart.

    Yields:
        One prompt for each, in order. Entries that hold nothing when the context is left are dropped.
    """
    cache.begin(())
    ends: list[Entry] = []
    try:
        for tokens in prompts:
            ends.append(_put(cache, _put(cache, cache.root, tokens[:-1], cut), tokens[-1:], cut))
        yield [Prompt(_segments(end), _ANY_TOKEN) for end in ends]
    finally:
        for end in ends:
            cache.prune(end)


def _put(cache: PrefixCache, entry: Entry, tokens: TokenIds, cut: CutState) -> Entry:
    """The entry that ends with these tokens after an entry, split off or made if need be."""
    while tokens:
        child, shared = _closest(entry, tokens)
        if child is None:
            return cache.child(entry, tokens)
        if shared < len(child.segment):
            child = cache.split(child, shared, cut)
        child.used = cache.call
        entry, tokens = child, tokens[shared:]
    return entry


def _closest(entry: Entry, tokens: TokenIds) -> tuple[Entry | None, int]:
    """What follows an entry and shares most with the tokens, and how many it shares."""
    best, longest = None, 0
    for segment, child in entry.children.items():
        if segment[0] == tokens[0] and (shared := _shared(segment, tokens)) > longest:
            best, longest = child, shared
    return best, longest


def _shared(left: TokenIds, right: TokenIds) -> int:
    """Length of the common beginning, by bisection: comparing slices is far faster than a loop."""
    low, high = 0, min(len(left), len(right)) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _segments(end: Entry) -> tuple[TokenIds, ...]:
    """Segments from the root to an entry."""
    path: list[TokenIds] = []
    while end.parent is not None:
        path.append(end.segment)
        end = end.parent
    return tuple(reversed(path))
