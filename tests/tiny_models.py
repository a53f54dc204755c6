"""Models of two layers with random weights, made from a configuration: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

REVIEWS = ["Review: good\nSentiment: positive\n\n", "Review: bad\nSentiment: negative\n\n"]
"""Texts whose pairs of bytes become tokens."""


def byte_tokenizer(texts: list[str], *, vocab_size: int, special: list[str]) -> Any:
    """A tokenizer of bytes and of the commonest pairs in some texts."""
    import tokenizers

    words = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator(texts, trainer)
    return words


def tiny_llama(vocab_size: int, *, window: int, **options: Any) -> Any:
    """Configuration of a Llama of two layers."""
    import transformers

    return transformers.LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=window,
        **options,
    )


def write_tiny(path: Path) -> None:
    """Save a tiny Llama with a tokenizer of bytes that has a chat template."""
    import torch
    import transformers

    words = byte_tokenizer(["word"], vocab_size=270, special=["<unk>", "<s>", "</s>", "<u>", "<a>"])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.chat_template = (
        "{% for m in messages %}{{ '<u>' if m['role'] == 'user' else '<a>' }}{{ m['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<a>{% endif %}"
    )
    config = tiny_llama(len(fast), window=512, bos_token_id=fast.bos_token_id, eos_token_id=fast.eos_token_id)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(path)
    fast.save_pretrained(path)


def write_tiny_gguf(path: Path) -> None:
    """Write a tiny Llama as a GGUF file, with a vocabulary of bytes."""
    import gguf
    import numpy as np
    import tokenizers

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<unk>", "<s>", "</s>", *alphabet, "ab"]
    width, inner, heads = 32, 64, 4
    writer: Any = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(alphabet) + 1))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    shapes = {
        "token_embd": (len(tokens), width),
        "output": (len(tokens), width),
        "output_norm": (width,),
        "blk.0.attn_norm": (width,),
        "blk.0.ffn_norm": (width,),
        "blk.0.ffn_gate": (inner, width),
        "blk.0.ffn_up": (inner, width),
        "blk.0.ffn_down": (width, inner),
        **{f"blk.0.attn_{part}": (width, width) for part in ("q", "k", "v", "output")},
    }
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = np.ones(shape) if len(shape) == 1 else rng.normal(scale=0.3, size=shape)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def letters(prompts: list[str], responses: list[str]) -> list[float]:
    """A reward: how many letters a response has."""
    return [float(sum(letter.isalpha() for letter in text)) for text in responses]
