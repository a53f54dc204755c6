"""Text from data made safe to look at: characters that hide or reorder other ones are written out."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from typing import Any

_HARMLESS = "\n\t"
_HIDING = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Unicode categories: control, format (bidi marks, zero widths, tags), surrogates, private use, line and paragraph ends."""
_JOINER = "\u200d"


class _Table(dict[int, str]):
    """Answers `str.translate` for one character after the other, and remembers."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        hides = unicodedata.category(character) in _HIDING and character not in _HARMLESS
        self[code] = f"\u27e8U+{code:04X}\u27e9" if hides else character
        return self[code]


_TABLE = _Table()


def visible(text: str) -> str:
    """Write characters that cannot be seen, or that change how others are seen, as ``⟨U+202E⟩``.

    Args:
        text: Any text.

    Returns:
        The text with tabs and line feeds as they are; the joiner inside emoji is kept where a symbol stands on either side.
    """
    if text.isascii() and text.isprintable():
        return text
    if _JOINER not in text:
        return text.translate(_TABLE)
    parts = text.split(_JOINER)
    joined = parts[0].translate(_TABLE)
    for left, right in pairwise(parts):
        glue = _JOINER if _is_symbol(left[-1:]) and _is_symbol(right[:1]) else f"\u27e8U+{ord(_JOINER):04X}\u27e9"
        joined += glue + right.translate(_TABLE)
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
