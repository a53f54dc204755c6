import struct

import pytest

pytest.importorskip("gguf")

from elicitor.backends.gguf_header import check_header
from elicitor.errors import BackendError


def text(content):
    return struct.pack("<Q", len(content)) + content


def entry(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def tensor(name, shape, *, kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def model(*, entries=(), tensors=(), counts=None, version=3, data=4096):
    head = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(entries))))
    return head + b"".join(entries) + b"".join(tensors) + bytes(data)


BLOCKS = entry(b"llama.block_count", 4, struct.pack("<I", 1))
GOOD = {
    "entries": [BLOCKS, entry(b"tokens", 9, struct.pack("<IQ", 8, 2) + text(b"a") + text(b"b"))],
    "tensors": [tensor(b"w", (32, 4)), tensor(b"v", (8,), offset=512)],
}


def test_a_whole_header_passes(tmp_path):
    (tmp_path / "x.gguf").write_bytes(model(**GOOD))
    check_header(tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read|not a GGUF"),
        (b"GGUF\x03", "ends within its header"),
        (model(version=77), "version 77 is not 2 or 3"),
        (model(counts=(2**63, 0)), "tensors do not fit"),
        (model(counts=(0, 2**40)), "metadata entries do not fit"),
        (model(entries=[text(b"n" * 8) + struct.pack("<IQ", 8, 2**60)]), "ends within a text"),
        (model(entries=[entry(b"list", 9, struct.pack("<IQ", 0, 2**50))]), "more than 4,194,304 items"),
        (model(entries=[entry(b"list", 9, struct.pack("<IQ", 12, 4_000_000))]), "ends within a text or list"),
        (model(entries=[entry(b"list", 9, struct.pack("<IQ", 9, 1))]), "unknown type 9"),
        (model(entries=[entry(b"\xff", 0, b"\0")]), "a name is not UTF-8"),
        (model(entries=[entry(b"general.alignment", 4, struct.pack("<I", 0))]), "an alignment of 0"),
        (model(entries=[entry(b"llama.block_count", 4, struct.pack("<I", 2**31))]), "block_count is 2,147,483,648"),
        (model(tensors=[tensor(b"w", (2**40, 2**40))]), "lies beyond its end"),
        (model(tensors=[tensor(b"w", (32,), offset=2**40)]), "lies beyond its end"),
        (model(tensors=[tensor(b"w", (32,), offset=1)]), "between its blocks"),
        (model(tensors=[tensor(b"w", (1,) * 9)]), "9 dimensions"),
        (model(tensors=[tensor(b"w", (32,), kind=999)]), "unknown type 999"),
        (model(tensors=[tensor(b"w", (5,), kind=2)]), "in blocks of 32"),
        (model(tensors=[tensor(b"w", (32,)), tensor(b"w", (32,))]), "stands there twice"),
    ],
)
def test_claims_beyond_the_file_are_refused(tmp_path, content, message):
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(BackendError, match=message):
        check_header(tmp_path / "x.gguf")
