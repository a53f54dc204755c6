"""Attention of a few new tokens behind a long cached prefix, in two parts that are merged.

New tokens see the whole prefix and, by a small mask, some of each other. So the prefix needs no mask at all, and heads that
share keys are folded into rows instead of repeating keys: two calls of the fused kernel, merged by the log of their sums of
exponentials (as in Hydragen, Juravsky et al. 2024, and the cascade attention of FlashInfer). A dense mask over prefix and new
tokens costs a third more time at 5,000 cached tokens, and memory for its own size.

`attend` and `causal_mask` are registered with transformers under `NAME`; `use_split_attention` switches a model over.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

from elicitor.backends.hf_load import quiet

NAME = "elicitor_split"
"""What transformers knows this attention by."""

_SPECIAL = {"softcap", "s_aux", "position_bias"}
"""Arguments of attention that mean more than a scaled dot product."""


def use_split_attention(model: Any) -> bool:
    """Switch a model over, if it runs on a CPU with torch's own scaled dot product attention.

    Args:
        model: A transformers model; changed in place.

    Returns:
        Whether it was switched.
    """
    config = model.config.get_text_config()
    if model.device.type != "cpu" or config._attn_implementation != "sdpa":
        return False
    with quiet():
        model.set_attn_implementation(NAME)
    return uses_split_attention(model)


def uses_split_attention(model: Any) -> bool:
    """Whether the model runs with `attend`, so that a mask may leave out a prefix that is visible to every token."""
    return bool(model.config.get_text_config()._attn_implementation == NAME)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot product attention in transformers' interface.

    Args:
        module: The layer.
        query: Shape (batch, heads, tokens, size).
        key: Shape (batch, key heads, prefix + tokens, size).
        value: Same shape as ``key``.
        attention_mask: Shape (batch or 1, 1, tokens, tokens), additive, of the new tokens alone: all of them see the whole
            prefix. None for causal attention. A mask as wide as the keys goes to torch's own attention.
        scaling: Factor of the scores.
        **kwargs: What else layers pass.

    Returns:
        Shape (batch, tokens, heads, size), and no weights.
    """
    tokens, keys = query.shape[2], key.shape[2]
    prefix = keys - tokens
    is_special = not getattr(module, "is_causal", True) or any(kwargs.get(name) is not None for name in _SPECIAL)
    # A mask for the new tokens alone is never as wide as the keys when there is a prefix.
    is_dense = attention_mask is not None and attention_mask.shape[-1] != tokens
    if prefix == 0 or is_dense or is_special or value.shape[-1] != query.shape[-1]:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, None
    before, weight_before = _folded(query, key[:, :, :prefix], value[:, :, :prefix], scaling)
    groups = query.shape[1] // key.shape[1]
    new_keys, new_values = (part[:, :, prefix:].repeat_interleave(groups, dim=1) for part in (key, value))
    among, weight_among = _kernel(
        query, new_keys, new_values, 0.0, attention_mask is None, attn_mask=attention_mask, scale=scaling
    )
    share = torch.sigmoid(weight_before - weight_among)[..., None].to(query.dtype)
    merged: torch.Tensor = torch.lerp(among, before, share)
    return merged.transpose(1, 2).contiguous(), None


def _folded(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None) -> Any:
    """Attention to all keys, and the log of each row's sum of exponentials; query heads that share keys are folded."""
    batch, heads, tokens, size = query.shape
    folded = query.reshape(batch, key.shape[1], -1, size)
    output, weight = _kernel(folded, key, value, 0.0, False, scale=scaling)
    return output.reshape(batch, heads, tokens, size), weight.reshape(batch, heads, tokens)


_kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def causal_mask(
    *,
    kv_length: int,
    attention_mask: torch.Tensor | None = None,
    mask_function: Any = causal_mask_function,
    local_size: int | None = None,
    **kwargs: Any,
) -> torch.Tensor | None:
    """The mask that a model makes when it is given none: none where `attend` needs none, else torch's.

    Args:
        kv_length: Keys, cached ones included.
        attention_mask: Shape (batch, keys), where sequences are padded.
        mask_function: What may be seen, in transformers' terms.
        local_size: Size of a sliding window.
        **kwargs: Passed on.

    Returns:
        None for causal attention, or a boolean mask as wide as the keys.
    """
    in_window = mask_function is causal_mask_function or (local_size is not None and kv_length <= local_size)
    if attention_mask is None and in_window and kwargs.get("allow_is_causal_skip", True):
        return None
    options = {"attention_mask": attention_mask, "mask_function": mask_function, "local_size": local_size}
    return sdpa_mask(kv_length=kv_length, **options, **kwargs)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, causal_mask)
