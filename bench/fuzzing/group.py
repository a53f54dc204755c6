"""What a group of inputs is, and how valid bytes are spoilt."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

Check = Callable[[Any], None]
"""Gives one input to the product and checks the result; a refusal leaves it as an `ElicitorError`."""


@dataclass(frozen=True)
class Group:
    """Inputs of one kind.

    Attributes:
        inputs: Draws them.
        open: Prepares a folder for them and gives the check.
        weight: Share of all inputs.
        always: Inputs that are tried in every run.
    """

    inputs: st.SearchStrategy[Any]
    open: Callable[[Path], AbstractContextManager[Check]]
    weight: float = 1.0
    always: Sequence[Any] = ()


def must(condition: bool, what: str) -> None:
    """Demand something of a refusal."""
    if not condition:
        raise AssertionError(what)


PIECES = [
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\n",
    b'"',
    b"{",
    b"[" * 200,
    b'{"a":' * 200,
    b"}",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 400,
    b"9" * 5000,
    b"-1",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b"\\ud800",
    b"\\u0000",
    b"\xed\xa0\x80",
    "\u2028\x85".encode(),
    b"\x1b[31m",
    b"&a [*a]",
    b"<<: *a",
    b"!!python/object:os.system",
    b"!!timestamp x",
    b"!!int ''",
    b"{0.__class__}",
    b"%s",
    b": ",
    b"- ",
    b"'",
    b"\xff" * 8,
    b"\x00" * 8,
]
"""Bytes with a meaning of their own somewhere."""


@st.composite
def spoilt(draw: st.DrawFn, valid: st.SearchStrategy[bytes], *, most: int = 3) -> bytes:
    """Valid bytes after a few mutations: flips, cuts, splices, doubled and replaced pieces."""
    content = bytearray(draw(valid))
    for _ in range(draw(st.integers(0, most))):
        first, second = sorted(draw(st.integers(0, len(content))) for _ in range(2))
        match draw(st.sampled_from(["flip", "cut", "end", "insert", "replace", "double"])):
            case "flip" if first < len(content):
                content[first] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del content[first : min(second, first + 64)]
            case "end":
                del content[first:]
            case "insert":
                content[first:first] = draw(st.sampled_from(PIECES))
            case "replace":
                content[first : min(second, first + 16)] = draw(st.sampled_from(PIECES))
            case "double":
                content[first:first] = content[first : min(second, first + 256)]
            case _:
                pass
    return bytes(content)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", " ", "\ud800", "a\x00b", "\x1b[2J", "yes", "no", "1", "0", "{text}", "e0", "e1", "positive"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
"""JSON values, those among them that JSON does not know."""


def places(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values in JSON values, objects before what is in them."""
    found = [path]
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        found += places(value, (*path, key))
    return found


@st.composite
def edited(draw: st.DrawFn, original: Any) -> Any:
    """JSON values in which some have been replaced, taken away or added, as a person does by hand."""
    made = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(places(made)))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return draw(values)
            continue
        parent = made
        for key in path[:-1]:
            parent = parent[key]
        if isinstance(parent, dict) and draw(st.booleans()):
            del parent[path[-1]]
        else:
            parent[path[-1]] = draw(values)
    return made
