"""Files of models and adapters: weights in safetensors, and the JSON beside them."""

from __future__ import annotations

import contextlib
import json
import struct
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from fuzzing.group import Check, Group, edited, spoilt

if TYPE_CHECKING:
    from elicitor.backends.hf_load import LoadedModel

WEIGHTS = {"model": "model.safetensors", "adapter": "adapter_model.safetensors"}
KNOWN_TYPES = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "U32": np.uint32, "F64": np.float64}


@cache
def small_files() -> dict[str, dict[str, bytes]]:
    """The files of a tiny model and of an adapter on it."""
    import peft
    import tiny_models
    import torch
    from transformers import AutoModelForCausalLM

    from elicitor.backends.hf_load import quiet

    with tempfile.TemporaryDirectory() as name, quiet():
        place = Path(name)
        tiny_models.write_tiny(place / "model")
        model = AutoModelForCausalLM.from_pretrained(place / "model")
        config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], r=2, init_lora_weights=False)
        torch.manual_seed(0)
        peft.get_peft_model(model, config).save_pretrained(str(place / "adapter"))
        (place / "adapter" / "base.json").write_text('{"base": "model"}')
        return {
            kind: {file.name: file.read_bytes() for file in (place / kind).iterdir() if file.is_file()}
            for kind in WEIGHTS
        }


def parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a whole file."""
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: Any, tensors: bytes) -> bytes:
    """A file of this header, which may be wrong."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """A kind of weights and a file of them: as it was, spoilt, or with a header that was changed by hand."""
    kind = draw(st.sampled_from(sorted(WEIGHTS)))
    whole = small_files()[kind][WEIGHTS[kind]]
    header, tensors = parts(whole)
    names = sorted(header.keys() - {"__metadata__"})
    match draw(st.sampled_from(["whole", "spoilt", "length", "edited", "type", "shape", "offsets", "name", "less"])):
        case "whole":
            return kind, whole
        case "spoilt":
            return kind, draw(spoilt(st.just(whole)))
        case "length":
            length = draw(st.integers(0, 2**64 - 1) | st.integers(0, len(whole)) | st.sampled_from([10**8, 10**8 - 8]))
            return kind, struct.pack("<Q", length) + whole[8:]
        case "edited":
            return kind, joined(draw(edited(header)), tensors)
        case "type":
            types = [
                "F32",
                "I32",
                "U32",
                "F64",
                "F16",
                "BF16",
                "I64",
                "BOOL",
                "U8",
                "F8_E4M3",
                "F8_E5M2",
                "F4",
                "C64",
                "X",
            ]
            header[draw(st.sampled_from(names))]["dtype"] = draw(st.sampled_from(types))
        case "shape":
            sizes = st.sampled_from([0, 1, 2, 32, 64, 2**31, 2**62]) | st.integers(-1, 64)
            one = header[draw(st.sampled_from(names))]
            one["shape"] = draw(st.permutations(one["shape"]) | st.lists(sizes, max_size=3))
        case "offsets":
            offsets = st.lists(st.integers(-1, len(tensors) + 8) | st.sampled_from([2**62, 2**63 - 1]), max_size=3)
            header[draw(st.sampled_from(names))]["data_offsets"] = draw(offsets)
        case "name":
            name = draw(st.sampled_from(names))
            header[draw(st.sampled_from(["", "x", f"{name}.x", name[1:], names[0]]))] = header.pop(name)
        case "less":
            last = max(names, key=lambda name: header[name]["data_offsets"][1])
            tensors = tensors[: header.pop(last)["data_offsets"][0]]
    return kind, joined(header, tensors)


def put(file: Path, content: bytes) -> None:
    """Write a new file: a loaded model may have its weights in the pages of the old one."""
    file.unlink()
    file.write_bytes(content)


def write_small(folder: Path) -> None:
    """Write the tiny model and its adapter, each into a folder of its kind's name."""
    for kind, files in small_files().items():
        (folder / kind).mkdir()
        for name, content in files.items():
            (folder / kind / name).write_bytes(content)


def load_small(folder: Path, kind: str) -> LoadedModel:
    """Load what `write_small` wrote, by itself or with its adapter merged."""
    from elicitor.backends.hf_load import load_model

    adapters = [folder / "adapter"] if kind == "adapter" else []
    with warnings.catch_warnings():
        # What only warns would be seen by nobody.
        warnings.simplefilter("error")
        return load_model(str(folder / "model"), name="tiny", weights="0", adapters=adapters, dtype="float32")


@contextlib.contextmanager
def weights(folder: Path) -> Iterator[Check]:
    """Weights that are loaded are those of the file, all of them."""
    write_small(folder)
    base = {name: tensor.clone() for name, tensor in load_small(folder, "model").model.state_dict().items()}

    def check(given: tuple[str, bytes]) -> None:
        kind, content = given
        file = folder / kind / WEIGHTS[kind]
        put(file, content)
        try:
            state = load_small(folder, kind).model.state_dict()
        finally:
            put(file, small_files()[kind][WEIGHTS[kind]])
        assert state.keys() == base.keys()
        header, tensors = parts(content)
        wanted = parts(small_files()[kind][WEIGHTS[kind]])[0]
        assert wanted.keys() - {"__metadata__"} <= header.keys(), "loaded without all of its weights"
        if kind == "model":
            for name, tensor in state.items():
                told = header[name]
                if told["dtype"] in KNOWN_TYPES:
                    begin, end = told["data_offsets"]
                    read = np.frombuffer(tensors[begin:end], KNOWN_TYPES[told["dtype"]]).astype(np.float32)
                    assert np.array_equal(tensor.numpy().ravel(), read, equal_nan=True), f"{name} is another"

    yield check


@st.composite
def damaged_json(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """A kind, the name of one of its JSON files and its content: spoilt, or changed by hand."""
    named = [(kind, name) for kind, files in small_files().items() for name in files if name.endswith(".json")]
    kind, name = draw(st.sampled_from(sorted(named)))
    whole = small_files()[kind][name]
    if draw(st.booleans()):
        return kind, name, draw(spoilt(st.just(whole)))
    return kind, name, json.dumps(draw(edited(json.loads(whole)))).encode()


@contextlib.contextmanager
def model_files(folder: Path) -> Iterator[Check]:
    """A model that is loaded tokenizes and answers."""
    import torch

    from elicitor.backends.hf_tokenizer import HfTokenizer

    write_small(folder)

    def check(given: tuple[str, str, bytes]) -> None:
        kind, name, content = given
        file = folder / kind / name
        put(file, content)
        try:
            loaded = load_small(folder, kind)
        finally:
            put(file, small_files()[kind][name])
        assert HfTokenizer(loaded.tokenizer).encode("words"), "a text without tokens"
        with torch.inference_mode():
            logits = loaded.model(input_ids=torch.tensor([[1, 2, 3]])).logits
        assert logits.shape[:2] == (1, 3)

    yield check


WEIGHT_GROUPS = {
    "weights": Group(damaged(), weights, weight=0.3),
    "model files": Group(damaged_json(), model_files, weight=0.3),
}
