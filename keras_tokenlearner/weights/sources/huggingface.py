"""ViT, DeiT, DINOv2, CLIP's and SigLIP's vision towers and ViViT of Hugging Face transformers.

Files keep the names of the first releases. Models in memory have shorter names since release 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from keras_tokenlearner.weights.sources.source import Arrays, Entries, Named, Source
from keras_tokenlearner.weights.sources.torch_layers import (
    Table,
    average_heads,
    from_torch,
    split_qkv,
)


def _in_blocks(starts: tuple[str, ...], rows: Table) -> dict[str, tuple[str, ...]]:
    """Return rows of the layers of a block, for all that the names of blocks may start with."""
    return {
        f"block_{{i}}/{ours}": (kind, *(start + name for start in starts for name in names))
        for ours, (kind, *names) in rows.items()
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
_CLIP = {
    "attention_norm": ("norm", "layer_norm1"),
    "self_attention/query": ("linear", "self_attn.q_proj"),
    "self_attention/key": ("linear", "self_attn.k_proj"),
    "self_attention/value": ("linear", "self_attn.v_proj"),
    "self_attention/attention_output": ("heads", "self_attn.out_proj"),
    "mlp_norm": ("norm", "layer_norm2"),
    "mlp/hidden": ("linear", "mlp.fc1"),
    "mlp/output": ("linear", "mlp.fc2"),
}
_VIT_NAMES = {
    **_EMBEDDINGS,
    **_in_blocks(("encoder.layer.{i}.", "layers.{i}."), _ATTENTION | _VIT),
}
# The distillation token is a register to us.
_DEIT_NAMES = _VIT_NAMES | {"register_tokens/tokens": ("rows", "embeddings.distillation_token")}
_DINOV2_NAMES = {
    **_EMBEDDINGS,
    "register_tokens/tokens": ("rows", "embeddings.register_tokens"),
    **_in_blocks(("encoder.layer.{i}.",), _ATTENTION | _DINOV2),
}
_DINOV3_NAMES = {
    **_EMBEDDINGS,
    "embedding/projection": ("conv", "embeddings.patch_embeddings"),
    "register_tokens/tokens": ("rows", "embeddings.register_tokens"),
    "norm": ("norm", "norm"),
    **_in_blocks(("layer.{i}.", "model.layer.{i}."), _ATTENTION | _DINOV2),
}
_CLIP_NAMES = {
    "embedding/projection": ("conv", "embeddings.patch_embedding"),
    "class_token/tokens": ("rows", "embeddings.class_embedding"),
    "positions/table": ("rows", "embeddings.position_embedding.weight"),
    "pre_norm": ("norm", "pre_layrnorm"),  # spelt so
    "norm": ("norm", "post_layernorm"),
    "projection": ("linear", "visual_projection"),
    "head": ("linear", "classifier"),
} | _in_blocks(("encoder.layers.{i}.",), _CLIP)
_SIGLIP_NAMES = {
    **_CLIP_NAMES,
    "pooling/latent": ("rows", "head.probe"),
    "pooling/attention/attention_output": ("heads", "head.attention.out_proj"),
    "pooling/mlp_norm": ("norm", "head.layernorm"),
    "pooling/mlp/hidden": ("linear", "head.mlp.fc1"),
    "pooling/mlp/output": ("linear", "head.mlp.fc2"),
}


def _converter(names: Table, averaged: tuple[str, ...] = ()) -> Callable[[Entries], Arrays]:
    def convert(entries: Entries) -> Arrays:
        arrays = from_torch(entries, names)
        arrays |= average_heads(entries, averaged) if averaged else {}
        return arrays | split_qkv(
            entries,
            "head.attention.in_proj_weight",
            "pooling/attention",
            "head.attention.in_proj_bias",
        )

    return convert


def _convert_videomae(entries: Entries) -> Arrays:
    """Convert VideoMAE's, whose positions are computed, and whose keys have no bias."""
    names = {**_VIT_NAMES, "fc_norm": ("norm", "fc_norm")}
    arrays = from_torch(entries, names)
    blocks = {path.partition("/")[0] for path in arrays if path.startswith("block_")}
    for block in blocks:
        for part, letter in (("query", "q"), ("value", "v")):
            name = f"encoder.layer.{block[6:]}.attention.attention.{letter}_bias"
            if name in entries:
                arrays[f"{block}/self_attention/{part}/bias"] = Named(
                    entries.take(name), entries.full_name(name)
                )
    return arrays


_ANCHORS = ("embeddings.patch_embeddings.projection.weight",)
_OPEN: Mapping[str, tuple] = {"normalization": ("half", "imagenet")}
HUGGINGFACE_VIT = Source(
    _converter(_VIT_NAMES),
    anchors=_ANCHORS,
    alien=("norm1.weight", "distillation_token", "layer_scale1", "fc_norm", "q_bias"),
    video=False,
    config={"activation": "gelu", "layer_norm_epsilon": 1e-12},
    choices=_OPEN,  # ViT has half, DINO's files under the same names have imagenet
    resize="bicubic",
    ignored=("pooler.", "embeddings.mask_token"),
)
HUGGINGFACE_DEIT = replace(
    HUGGINGFACE_VIT,
    convert=_converter(_DEIT_NAMES, ("cls_classifier", "distillation_classifier")),
    marks=("distillation_token",),
    alien=("norm1.weight", "layer_scale1"),
    choices={},
    wide_head={"head_reads": "class_and_registers"},
    normalization="imagenet",
)
HUGGINGFACE_DINOV2 = Source(
    _converter(_DINOV2_NAMES),
    anchors=_ANCHORS,
    marks=("layer_scale1",),
    config={"activation": "gelu", "layer_norm_epsilon": 1e-6},
    gated_mlp={"activation": "silu"},
    wide_head={"head_reads": "class_and_average"},
    resize_without_registers="bicubic",
    normalization="imagenet",
    ignored=("embeddings.mask_token",),
)
HUGGINGFACE_CLIP = Source(
    _converter(_CLIP_NAMES),
    anchors=("embeddings.patch_embedding.weight",),
    marks=("pre_layrnorm", "embeddings.class_embedding"),
    config={"layer_norm_epsilon": 1e-5},
    choices={"activation": ("quick_gelu", "gelu")},  # OpenAI's and LAION's
    resize="bicubic",
    normalization="clip",
    ignored=("embeddings.position_ids",),
)
HUGGINGFACE_SIGLIP = Source(
    _converter(_SIGLIP_NAMES),
    anchors=("embeddings.patch_embedding.weight",),
    marks=("post_layernorm",),
    alien=("pre_layrnorm", "class_embedding"),
    config={"activation": "gelu_tanh", "layer_norm_epsilon": 1e-6},
    resize="bicubic",
    normalization="half",
    ignored=("embeddings.position_ids",),
)
HUGGINGFACE_DINOV3 = Source(
    _converter(_DINOV3_NAMES),
    anchors=("embeddings.patch_embeddings.weight",),
    marks=("layer_scale1",),
    config={"layer_norm_epsilon": 1e-5},
    choices={"activation": ("gelu", "silu")},
    gated_mlp={"activation": "silu"},
    normalization="imagenet",
    ignored=("embeddings.mask_token",),
)
HUGGINGFACE_VIVIT = replace(
    HUGGINGFACE_VIT,
    video=True,
    config={"activation": "gelu_tanh", "layer_norm_epsilon": 1e-6},
    choices={},
    normalization="half",
)
HUGGINGFACE_VIDEOMAE = Source(
    _convert_videomae,
    anchors=_ANCHORS,
    marks=("attention.attention.q_bias",),
    config={"activation": "gelu", "layer_norm_epsilon": 1e-12},
    normalization="imagenet",
)
