import json

import pytest

from elicitor.backends.adapter import AdapterBase, adapter_hash, read_base
from elicitor.errors import BackendError
from elicitor.models import load_backend, locate


@pytest.fixture
def adapter(tiny_model, tmp_path):
    """An adapter on the tiny model whose weights are not zero."""
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    from elicitor.backends.hf_load import quiet
    from elicitor.backends.model_files import folder_hash

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=2))
        torch.manual_seed(1)
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight)
        adapted.save_pretrained(str(tmp_path / "adapter"))
    record = AdapterBase(str(tiny_model), folder_hash(tiny_model))
    (tmp_path / "adapter" / "base.json").write_text(json.dumps(record.to_json()))
    return tmp_path / "adapter"


def test_an_adapter_scores_as_peft_does(adapter, tiny_model):
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    from elicitor.backends.base import Prompt
    from elicitor.backends.hf_load import quiet

    backend = load_backend(f"adapter:{adapter}")
    ids = backend.tokenizer.encode("Review: good\nSentiment:")
    scores = backend.score([Prompt((ids,), ((5,), (6,)))]).log_probs[0]
    with quiet(), torch.inference_mode():
        model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(adapter)).eval()
        wanted = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].double(), dim=-1)[[5, 6]]
        base = load_backend(str(tiny_model)).score([Prompt((ids,), ((5,), (6,)))]).log_probs[0]
    assert scores == pytest.approx(wanted.numpy(), abs=1e-4)
    assert abs(scores - base).max() > 1e-3


def test_other_weights_of_the_base_are_refused(adapter, tiny_model):
    weights = tiny_model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(BackendError, match="was trained on other weights"):
        load_backend(f"adapter:{adapter}")


def test_damaged_and_incomplete_weights_are_refused(adapter):
    weights = adapter / "adapter_model.safetensors"
    content = weights.read_bytes()
    wrong = {
        "incomplete metadata, file not fully covered": content[:-1],
        "Found missing adapter keys": content.replace(b"q_proj.lora_B", b"q_proj.lora_X", 1),
    }
    for problem, broken in wrong.items():
        weights.write_bytes(broken)
        with pytest.raises(BackendError, match=f"the adapter in .* could not be loaded: .*{problem}.*; train it again"):
            load_backend(f"adapter:{adapter}")


def test_a_damaged_configuration_is_refused(adapter):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "target_modules": 0.5}))
    with pytest.raises(BackendError, match=r"the adapter in .* could not be loaded: .*; train it again"):
        load_backend(f"adapter:{adapter}")


def test_an_adapter_without_its_files_is_explained(adapter, tmp_path):
    with pytest.raises(BackendError, match="does not exist"):
        locate(f"adapter:{tmp_path / 'nowhere'}")
    (adapter / "base.json").write_text('{"model": "x"}')
    with pytest.raises(BackendError, match="is broken"):
        read_base(adapter)
    (adapter / "base.json").unlink()
    with pytest.raises(BackendError, match="does not say which model"):
        read_base(adapter)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(BackendError, match="pickled weights are not read"):
        locate(f"adapter:{adapter}")


def test_the_hash_follows_weights_and_configuration(adapter):
    before = adapter_hash(adapter)
    assert adapter_hash(adapter) == before
    (adapter / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text() + " ")
    assert adapter_hash(adapter) != before


@pytest.mark.parametrize(
    "content", [b"[]", b'{"base": null}', b'{"base": 5}', b'{"base": ["a"]}', b"\xff", b"[" * 100_000]
)
def test_a_record_of_other_types_is_broken(tmp_path, content):
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / "base.json").write_bytes(content)
    with pytest.raises(BackendError, match=r"base\.json is broken"):
        read_base(tmp_path)
