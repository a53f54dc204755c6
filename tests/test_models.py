import pytest

from elicitor.backends.fake import FakeBackend
from elicitor.errors import BackendError
from elicitor.models import list_models, load_backend


@pytest.mark.parametrize("name", ["gpt-4", "hf:", "gguf:", "openai:x@y", ""])
def test_unknown_names_list_the_forms(name):
    with pytest.raises(BackendError, match="bundled, hf:NAME, vllm:NAME, gguf:FILE"):
        load_backend(name)


def test_a_folder_without_a_model_is_explained(tmp_path):
    with pytest.raises(BackendError, match=r"without config\.json"):
        load_backend(str(tmp_path))


def test_fake_needs_no_torch():
    assert load_backend("fake:gain=2") == FakeBackend(gain=2)


@pytest.fixture
def folder(tmp_path):
    """A tiny model with a real tokenizer, saved as users have them."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>"], initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator(
        ["Review: good\nSentiment: positive\n\n", "Review: bad\nSentiment: negative\n\n"], trainer
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", unk_token="<unk>")
    config = transformers.LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
    )
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "tiny")
    fast.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_local_folder_labels_data_end_to_end(folder, tmp_path):
    import json

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
    assert names == ["bundled", "hf:ORG/NAME", "FOLDER", "gguf:FILE", "fake", str(converted)]
