"""Text from data made safe to look at: characters that hide or reorder other ones are written out."""

from __future__ import annotations

import unicodedata
from functools import cache
from itertools import pairwise
from typing import Any

_HIDING = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Unicode categories: control, format (bidi marks, zero widths, tags), surrogates, private use, line and paragraph ends."""
_JOINER = "\u200d"


def hides(character: str) -> bool:
    """Whether a character cannot be seen, or changes how others are seen."""
    return unicodedata.category(character) in _HIDING


class _Table(dict[int, str]):
    """Answers `str.translate` for one character after the other, and remembers."""

    def __init__(self, keep: str) -> None:
        super().__init__({ord(character): character for character in keep})

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = f"\u27e8U+{code:04X}\u27e9" if hides(character) else character
        return self[code]


_table = cache(_Table)


def visible(text: str, *, keep: str = "\n\t") -> str:
    """Write characters that cannot be seen, or that change how others are seen, as ``⟨U+202E⟩``.

    Args:
        text: Any text.
        keep: Characters that stay as they are though they hide.

    Returns:
        The text; the joiner inside emoji is kept where a symbol stands on either side.
    """
    if text.isascii() and text.isprintable():
        return text
    if _JOINER not in text:
        return text.translate(_table(keep))
    parts = text.split(_JOINER)
    joined = parts[0].translate(_table(keep))
    for left, right in pairwise(parts):
        glue = _JOINER if _is_symbol(left[-1:]) and _is_symbol(right[:1]) else f"\u27e8U+{ord(_JOINER):04X}\u27e9"
        joined += glue + right.translate(_table(keep))
    return joined


def _is_symbol(character: str) -> bool:
    return bool(character) and (unicodedata.category(character) in ("So", "Sk") or character == "\ufe0f")


def all_visible(values: Any) -> Any:
    """`visible` for every text in JSON values, keys of mappings apart, which are our own."""
    if isinstance(values, str):
        return visible(values)
    if isinstance(values, dict):
        return {key: all_visible(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [all_visible(value) for value in values]
    return values
