"""Keys of constraints: what two texts of a group must share to count as the same claim or the same answer.

Both kinds of mistake cost: texts taken for equal are forced to one label, texts taken for different may be kept from being
true together. So where a text does not say clearly what its key is, it has none and takes no part.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Literal

KeyNormalizer = Literal["exact", "text", "final_answer"]

# Behind a figure they are feet and inches, minutes and seconds.
_APOSTROPHE = re.compile(r"(?<!\d)['\u2018\u2019`]")
_QUOTE = re.compile(r'(?<!\d)["\u201c\u201d\u201e\u00ab\u00bb]')
_DASH = re.compile(r"[\u2010-\u2015\u2212]")
# The look behind keeps a long row of dots linear: a run that is followed by a word is tried once, not from each of its dots.
_END = re.compile(r"(?<![.,;:!?\u3001\u3002])[.,;:!?\u3001\u3002]++(?=\s|$)|[\u00a1\u00bf]")
_HYPHEN = re.compile(r"(?<=[^\W\d_])-+(?=[^\W\d_])|(?<!\S)-+(?!\S)")


def normalize_text(text: str) -> str:
    """Fold case, spacing, quotation marks, hyphens between words and what ends a clause.

    Two spellings of one claim become equal. Whatever may change a meaning stays: signs, symbols, brackets, marks on
    letters, raised and lowered figures, fractions, and points, hyphens and quotation marks at numbers. Claims taken for
    equal would be forced to one label; claims taken for different only go without a constraint.

    Args:
        text: Any text.

    Returns:
        The folded text; the text in lower case, if nothing else is left of it.
    """
    folded = _compatible(_compatible(text).casefold())
    plain = _DASH.sub("-", _QUOTE.sub(" ", _APOSTROPHE.sub("", folded)))
    before = None
    while before != plain:
        before, plain = plain, " ".join(_HYPHEN.sub(" ", _END.sub(" ", plain)).split())
    return plain or " ".join(folded.split())


def _compatible(text: str) -> str:
    """The text in normal form NFKC, but for what stands above or below the line or is a fraction: 2 to the 5th is not 25."""
    return unicodedata.normalize(
        "NFC",
        "".join(
            c
            if unicodedata.decomposition(c).startswith(("<super>", "<sub>", "<fraction>"))
            else unicodedata.normalize("NFKD", c)
            for c in text
        ),
    )


_MARKER = re.compile(r"####|\\boxed\{|\banswers?(?:\s+is\b|\s*:)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.,])-?[$\u20ac\u00a3]?\s?-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d)/\d+)?")
_UNCLEAR = re.compile(
    r"\\|[\u221a\u03c0]|\d[e^:]\d|\d\s*[+*\u00d7]|\d[kmb]\b|\d\s*(?:hundred|thousand|million|billion|dozen)\b",
    re.IGNORECASE,
)


def final_answer(text: str) -> str | None:
    r"""The number that a worked solution ends in.

    Looked for after the last ``####``, ``\boxed{``, ``answer is`` or ``answer:``. ``$27``, ``3,000`` and ``28.00`` are 27,
    3000 and 28; units are left aside, unless they may as well multiply (``3k``, ``5m``).

    Args:
        text: A solution in words.

    Returns:
        The number as a fraction in lowest terms, such as ``27`` or ``93/2``; None if no answer is announced, if it is not
        exactly one number, or if numbers follow it.
    """
    markers = list(_MARKER.finditer(text))
    if not markers:
        return None
    line, _, after = _DASH.sub("-", text[markers[-1].end() :].strip()).partition("\n")
    tail = line.rpartition("=")[2]
    if (
        _UNCLEAR.search(tail)
        or any(c.isnumeric() and not c.isdecimal() for c in tail)
        or any(c.isdigit() for c in after)
    ):
        return None
    found = [match.group() for match in _NUMBER.finditer(tail) if any(c.isdigit() for c in match.group())]
    if len(found) != 1 or sum(c.isdigit() for c in found[0]) < sum(c.isdigit() for c in tail):
        return None
    try:
        return str(Fraction(re.sub(r"[$\u20ac\u00a3,\s]", "", found[0])))
    except (ValueError, ZeroDivisionError):
        return None


def _exact(text: str) -> str:
    return text


NORMALIZERS: Mapping[KeyNormalizer, Callable[[str], str | None]] = {
    "exact": _exact,
    "text": normalize_text,
    "final_answer": final_answer,
}


def text_order(text: str) -> str:
    """A sort key that hangs on a text alone: an order that tells nothing about what a source put first."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
