"""A look through a GGUF file's header before anything else reads it: what it claims must lie within the file.

Readers of GGUF trust its counts and lengths; a few flipped bits, or somebody who means harm, could make them allocate or loop
without end. Nothing here is kept: strings and arrays are stepped over in the mapped file.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from elicitor.errors import BackendError

MAGIC = b"GGUF"
MOST_ITEMS = 2**22
"""Items of all arrays of the metadata at most; the largest vocabularies, with scores and merges, have about a million."""
_LONGEST_NAME = 2**16 - 1
_MOST_DIMENSIONS = 4
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""`struct` format by the number of a value's type."""
_TEXT, _ARRAY = 8, 9
_SIZES = ("block_count", "embedding_length", "feed_forward_length", "vocab_size", "expert_count")
"""Metadata that say how large a model is built; a tensor of the file must be as large."""


class _BrokenError(Exception):
    pass


def check_header(path: Path) -> None:
    """Refuse a GGUF file whose header does not hold together.

    Args:
        path: The file.

    Raises:
        BackendError: If it cannot be read, is not GGUF, or claims more than it holds.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(4) != MAGIC:
                raise BackendError(f"{path} is not a GGUF file", fix="give a file that begins with 'GGUF'")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _Header(content).check()
    except OSError as error:
        raise BackendError(f"model file {path} cannot be read: {error.strerror}", fix="check the path") from error
    except (_BrokenError, struct.error) as error:
        reason = str(error) if isinstance(error, _BrokenError) else "it ends within its header"
        raise BackendError(f"{path} is a damaged GGUF file: {reason}", fix="download it again") from error


class _Header:
    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = len(MAGIC)
        # The other byte order shows in the version, a small number.
        self._order = "<" if self._content[4:6] != b"\0\0" else ">"
        self._items = 0
        self._claimed: dict[str, int] = {}
        self._alignment = 32

    def check(self) -> None:
        version = self._value("I")
        if version not in (2, 3):
            raise _BrokenError(f"version {version} is not 2 or 3")
        tensors, entries = self._value("Q"), self._value("Q")
        for what, count in (("tensors", tensors), ("metadata entries", entries)):
            # Each takes at least a name's length and a type.
            if count * 12 > len(self._content):
                raise _BrokenError(f"{count:,} {what} do not fit into its {len(self._content):,} bytes")
        for _ in range(entries):
            self._entry()
        shapes = list(self._tensors(tensors))
        start = -(-self._at // self._alignment) * self._alignment
        largest = max((max(shape) for shape, *_ in shapes), default=0)
        for shape, size, offset in shapes:
            if offset % self._alignment or start + offset + size > len(self._content):
                raise _BrokenError(f"a tensor of shape {shape} lies beyond its end or between its blocks")
        for name, value in self._claimed.items():
            most = tensors if name.endswith("block_count") else largest
            if value > most:
                raise _BrokenError(f"{name} is {value:,}, its tensors tell of {most:,} at most")

    def _entry(self) -> None:
        name, kind = self._name(), self._value("I")
        if kind == _TEXT:
            self._skip(self._value("Q"))
        elif kind == _ARRAY:
            self._array()
        else:
            value = self._value(self._scalar(kind))
            if name == "general.alignment":
                if value not in (2**k for k in range(3, 17)):
                    raise _BrokenError(f"an alignment of {value}")
                self._alignment = int(value)
            elif name.rpartition(".")[2] in _SIZES:
                if not (isinstance(value, int) and value >= 0):
                    raise _BrokenError(f"{name} is {value}")
                self._claimed[name] = value

    def _array(self) -> None:
        kind, count = self._value("I"), self._value("Q")
        self._items += count
        if self._items > MOST_ITEMS:
            raise _BrokenError(f"its metadata hold more than {MOST_ITEMS:,} items")
        if kind == _TEXT:
            for _ in range(count):
                self._skip(self._value("Q"))
        else:
            self._skip(count * struct.calcsize(self._scalar(kind)))

    def _tensors(self, count: int) -> Iterator[tuple[tuple[int, ...], int, int]]:
        """Shape, bytes and offset of each."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        names = set()
        for _ in range(count):
            name, dimensions = self._name(), self._value("I")
            if name in names:
                raise _BrokenError(f"the tensor {name!r} stands there twice")
            names.add(name)
            if not 1 <= dimensions <= _MOST_DIMENSIONS:
                raise _BrokenError(f"tensor {name!r} has {dimensions} dimensions")
            shape = tuple(self._value("Q") for _ in range(dimensions))
            kind, offset = self._value("I"), self._value("Q")
            try:
                block, width = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
            except (ValueError, KeyError):
                raise _BrokenError(f"tensor {name!r} has the unknown type {kind}") from None
            if 0 in shape or shape[0] % block:
                raise _BrokenError(f"tensor {name!r} has the shape {shape}, in blocks of {block}")
            yield shape, math.prod(shape) // block * width, offset

    def _scalar(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise _BrokenError(f"a value of unknown type {kind}")
        return _SCALARS[kind]

    def _name(self) -> str:
        length = self._value("Q")
        if length > _LONGEST_NAME:
            raise _BrokenError(f"a name of {length:,} bytes")
        begin = self._at
        self._skip(length)
        try:
            return self._content[begin : self._at].decode()
        except UnicodeDecodeError:
            raise _BrokenError("a name is not UTF-8") from None

    def _value(self, form: str) -> int:
        (value,) = struct.unpack_from(self._order + form, self._content, self._at)
        self._at += struct.calcsize(form)
        return value  # type: ignore[no-any-return]

    def _skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._content):
            raise _BrokenError(f"it ends within a text or list of {count:,} bytes")
