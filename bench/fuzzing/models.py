"""Headers and records of models: GGUF files and adapters."""

from __future__ import annotations

import contextlib
import json
import struct
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter
from hypothesis import strategies as st

from elicitor.backends.adapter import read_base
from elicitor.backends.gguf_header import check_header
from fuzzing.group import Check, Group, edited, spoilt


@cache
def small_gguf() -> bytes:
    """A whole GGUF file with a value of each kind, a vocabulary and two tensors."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "small.gguf"
        writer = GGUFWriter(file, "llama")
        writer.add_block_count(1)
        writer.add_embedding_length(32)
        writer.add_float32("llama.rope.freq_base", 1e4)
        writer.add_bool("tokenizer.ggml.add_bos_token", True)
        writer.add_int8("small", -1)
        writer.add_uint64("large", 2**40)
        writer.add_token_list(["<unk>", "a", "b"])
        writer.add_token_types([2, 1, 1])
        writer.add_token_scores([0.0, -1.0, -2.0])
        writer.add_tensor("token_embd.weight", np.ones((3, 32), np.float32))
        writer.add_tensor("blk.0.attn_q.weight", np.ones((32, 32), np.float16))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return file.read_bytes()


@st.composite
def gguf_bytes(draw: st.DrawFn) -> bytes:
    """The small file with numbers of its header replaced by others, or spoilt like any file."""
    content = bytearray(small_gguf())
    if draw(st.integers(0, 2)) == 0:
        return draw(spoilt(st.just(bytes(content))))
    for _ in range(draw(st.integers(1, 3))):
        form = draw(st.sampled_from("BIQ"))
        most = 2 ** (8 * struct.calcsize(form)) - 1
        at = draw(st.integers(0, 700))
        value = draw(st.integers(0, most) | st.integers(0, 40) | st.sampled_from([most, most // 2, most // 2 + 1]))
        struct.pack_into("<" + form, content, at, min(value, most))
    return bytes(content)


@contextlib.contextmanager
def gguf(folder: Path) -> Iterator[Check]:
    """A GGUF file: what the header check lets through, the reader reads, and all tensors lie within the file."""
    file = folder / "x.gguf"
    assert len(small_gguf()) > 700

    def check(content: bytes) -> None:
        file.write_bytes(content)
        check_header(file)
        reader = GGUFReader(file)
        for tensor in reader.tensors:
            assert tensor.data.nbytes == tensor.n_bytes <= len(content)

    yield check


RECORD = {"base": "hf:org/name", "base_weights": "0" * 64}


@contextlib.contextmanager
def adapter(folder: Path) -> Iterator[Check]:
    """The record of an adapter."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).touch()

    def check(content: bytes) -> None:
        (folder / "base.json").write_bytes(content)
        record = read_base(folder)
        assert isinstance(record.base, str)
        assert isinstance(record.base_weights, str | None)

    yield check


MODEL_GROUPS = {
    "gguf": Group(gguf_bytes(), gguf, weight=2.0, always=[b"", b"GGUF", b"GGUF" + b"\xff" * 64]),
    "adapter": Group(
        spoilt(st.just(json.dumps(RECORD).encode())) | edited(RECORD).map(json.dumps).map(str.encode),
        adapter,
        weight=0.5,
    ),
}
