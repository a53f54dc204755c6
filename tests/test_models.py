import json

import pytest

from elicitor.backends.fake import FakeBackend
from elicitor.errors import BackendError
from elicitor.models import list_models, load_backend


@pytest.mark.parametrize("name", ["gpt-4", "hf:", "gguf:", ""])
def test_unknown_names_list_the_forms(name):
    with pytest.raises(BackendError, match="bundled, hf:NAME, vllm:NAME, gguf:FILE"):
        load_backend(name)


@pytest.mark.parametrize("name", ["openai:", "openai:x", "openai:x@y", "openai:@http://localhost/v1"])
def test_a_remote_name_needs_model_and_address(name):
    with pytest.raises(BackendError, match=r"openai:MODEL@BASE_URL; write for instance openai:my-model@http"):
        load_backend(name)


def test_a_folder_without_a_model_is_explained(tmp_path):
    with pytest.raises(BackendError, match=r"without config\.json"):
        load_backend(str(tmp_path))


def test_fake_needs_no_torch():
    assert load_backend("fake:gain=2") == FakeBackend(gain=2)


@pytest.fixture
def folder(tiny_model):
    return tiny_model


def test_a_local_folder_labels_data_end_to_end(folder, tmp_path):
    import elicitor

    rows = [{"id": str(i), "text": f"thing {i} was {'good' if i % 2 else 'bad'}"} for i in range(10)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = elicitor.label(tmp_path / "x.jsonl", task="sentiment", model=str(folder), output_dir=tmp_path / "run")
    assert len(done.labels) == 10
    assert all(0 < item.confidence <= 1 for item in done.labels)
    cost = done.metrics["cost"]
    assert 0 < cost["tokens_computed"] < cost["in_order_tokens_same_events"]


def test_fingerprints_follow_weights_and_numeric_settings(folder):
    names = [load_backend(str(folder), dtype="float32").fingerprint for _ in range(2)]
    assert names[0] == names[1]
    changed = {
        load_backend(str(folder), dtype="bfloat16").fingerprint,
        load_backend(str(folder), dtype="float32", pack_tokens=0).fingerprint,
        load_backend(str(folder), dtype="float32", cache_gb=0).fingerprint,
    }
    assert len(changed | set(names)) == 4
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert load_backend(str(folder)).fingerprint != names[0]


def test_damaged_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    for broken in (b"", content[:-1], b"\xff" * 8 + content[8:], content.replace(b'"F32"', b'"F99"', 1)):
        weights.write_bytes(broken)
        with pytest.raises(
            BackendError, match=r"deserializing header: .*; download its weights again, they are damaged"
        ):
            load_backend(str(folder))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("config.json", "num_hidden_layers", [2]),
        ("tokenizer.json", "added_tokens", None),
        ("tokenizer_config.json", "tokenizer_class", ["x"]),
        # Read without a word, and wrong as soon as a text is tokenized.
        ("tokenizer_config.json", "model_max_length", "x"),
    ],
)
def test_damaged_files_beside_the_weights_are_refused(folder, name, key, value):
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(
        BackendError, match=r"could not be loaded: .*; download its files again, one of them cannot be read"
    ):
        load_backend(str(folder))


def test_weights_that_are_in_no_file_are_not_drawn_at_random(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes().replace(b'"model.norm.weight"', b'"other.norm.weight"', 1))
    with pytest.raises(BackendError, match=r"lack 1 of its weights, such as model\.norm\.weight; download it again"):
        load_backend(str(folder))


def test_pickled_weights_are_refused(folder):
    torch = pytest.importorskip("torch")
    (folder / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(BackendError, match="could not be loaded"):
        load_backend(str(folder))


def test_devices_that_are_not_there(folder):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(BackendError, match=r"device 'cuda' cannot be used here.*backend\.device=cpu"):
        load_backend(str(folder), device="cuda")


def test_listing_names_the_forms_and_what_was_converted(tmp_path, monkeypatch):
    monkeypatch.setenv("ELICITOR_CACHE", str(tmp_path))
    converted = tmp_path / "gguf" / "abc-float32"
    converted.mkdir(parents=True)
    (converted / "config.json").write_text("{}")
    (tmp_path / "gguf" / "abc-float32.tmp-x").mkdir()
    names = [model.name for model in list_models()]
    forms = ["hf:ORG/NAME", "vllm:ORG/NAME", "openai:MODEL@URL", "FOLDER", "adapter:FOLDER", "gguf:FILE", "fake"]
    assert names == ["bundled", *forms, str(converted)]
