"""ViT, DeiT, DINOv2 and DINOv3 of Hugging Face transformers.

Entries of files have the names of the first releases of transformers. Since release 5, weights of
models in memory have shorter names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from keras_tokenlearner.models import names
from keras_tokenlearner.models.config_fields import Fields
from keras_tokenlearner.weights.sources.source import Arrays, Entries, Source
from keras_tokenlearner.weights.sources.torch_layers import BLOCK, Table, average_heads, from_torch


def in_blocks(starts: tuple[str, ...], rows: Table) -> dict[str, tuple[str, ...]]:
    """Return the table rows of a block's layers, with names for each prefix in `starts`."""
    return {
        f"{BLOCK}/{ours}": (kind, *(start + name for start in starts for name in theirs))
        for ours, (kind, *theirs) in rows.items()
    }


_EMBEDDINGS = {
    "embedding/projection": ("conv", "embeddings.patch_embeddings.projection"),
    "class_token/tokens": ("rows", "embeddings.cls_token"),
    "positions/table": ("rows", "embeddings.position_embeddings"),
    "norm": ("norm", "layernorm"),
    "head": ("linear", "classifier"),
}
_ATTENTION = {
    "self_attention/query": ("linear", "attention.attention.query", "attention.q_proj"),
    "self_attention/key": ("linear", "attention.attention.key", "attention.k_proj"),
    "self_attention/value": ("linear", "attention.attention.value", "attention.v_proj"),
    "self_attention/attention_output": ("heads", "attention.output.dense", "attention.o_proj"),
}
_VIT = {
    "attention_norm": ("norm", "layernorm_before"),
    "mlp_norm": ("norm", "layernorm_after"),
    "mlp/hidden": ("linear", "intermediate.dense", "mlp.fc1"),
    "mlp/output": ("linear", "output.dense", "mlp.fc2"),
}
_DINOV2 = {
    "attention_norm": ("norm", "norm1"),
    "self_attention_scale/gamma": ("raw", "layer_scale1.lambda1"),
    "mlp_norm": ("norm", "norm2"),
    "mlp/gate": ("linear", "mlp.gate_proj"),
    "mlp/hidden": ("linear", "mlp.fc1", "mlp.weights_in", "mlp.up_proj"),
    "mlp/output": ("linear", "mlp.fc2", "mlp.weights_out", "mlp.down_proj"),
    "mlp_scale/gamma": ("raw", "layer_scale2.lambda1"),
}
VIT_NAMES = {
    **_EMBEDDINGS,
    **in_blocks(("encoder.layer.{i}.", "layers.{i}."), _ATTENTION | _VIT),
}
# The distillation token becomes a register.
_DEIT_NAMES = VIT_NAMES | {"register_tokens/tokens": ("rows", "embeddings.distillation_token")}
_DINOV2_NAMES = {
    **_EMBEDDINGS,
    "register_tokens/tokens": ("rows", "embeddings.register_tokens"),
    **in_blocks(("encoder.layer.{i}.",), _ATTENTION | _DINOV2),
}
_DINOV3_NAMES = {
    **_EMBEDDINGS,
    "embedding/projection": ("conv", "embeddings.patch_embeddings"),
    "register_tokens/tokens": ("rows", "embeddings.register_tokens"),
    "norm": ("norm", "norm"),
    **in_blocks(("layer.{i}.", "model.layer.{i}."), _ATTENTION | _DINOV2),
}


def converter(table: Table, averaged: tuple[str, ...] = ()) -> Callable[[Entries], Arrays]:
    """Return a function that converts entries by a table and averages the logits of some heads."""

    def convert(entries: Entries) -> Arrays:
        arrays = from_torch(entries, table)
        arrays |= average_heads(entries, averaged) if averaged else {}
        if names.HEAD_KERNEL in arrays:  # the head does not read the pooler's output
            return arrays
        return arrays | from_torch(entries, {names.PRE_LOGITS: ("linear", "pooler.dense")})

    return convert


ANCHORS = ("embeddings.patch_embeddings.projection.weight",)
_OPEN: Mapping[str, tuple[str, ...]] = {"normalization": ("half", "imagenet")}
HUGGINGFACE_VIT = Source(
    converter(VIT_NAMES),
    anchors=ANCHORS,
    alien=("norm1.weight", "distillation_token", "layer_scale1", "fc_norm", "q_bias"),
    ranks=(4,),
    config={"activation": "gelu", "layer_norm_epsilon": 1e-12},
    choices=_OPEN,  # "half" for ViT, "imagenet" for DINO's files, which have the same names
    resize="bicubic",
    ignored=("pooler.", "embeddings.mask_token"),
)
HUGGINGFACE_DEIT = replace(
    HUGGINGFACE_VIT,
    convert=converter(_DEIT_NAMES, ("cls_classifier", "distillation_classifier")),
    marks=("distillation_token",),
    alien=("norm1.weight", "layer_scale1"),
    choices={},
    wide_head={"head_reads": "class_and_registers"},
    normalization="imagenet",
)
HUGGINGFACE_DINOV2 = Source(
    converter(_DINOV2_NAMES),
    anchors=ANCHORS,
    marks=("layer_scale1",),
    config={"activation": "gelu", "layer_norm_epsilon": 1e-6},
    gated_mlp={"activation": "silu"},
    wide_head={"head_reads": "class_and_average"},
    resize_without_registers="bicubic",
    normalization="imagenet",
    ignored=("embeddings.mask_token",),
)
# Fields that DINOv3 fixes in every library.
DINOV3_CONFIG: Fields = {
    "layer_norm_epsilon": 1e-5,
    "rotary": "centred",
    "rotary_theta": 100.0,
    "rotary_layout": "half",
}
HUGGINGFACE_DINOV3 = Source(
    converter(_DINOV3_NAMES),
    anchors=("embeddings.patch_embeddings.weight",),
    marks=("layer_scale1",),
    config=DINOV3_CONFIG,
    choices={"activation": ("gelu", "silu")},
    gated_mlp={"activation": "silu"},
    normalization="imagenet",
    ignored=("embeddings.mask_token",),
)
