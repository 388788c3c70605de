"""ViViT, VideoMAE and V-JEPA 2 of Hugging Face transformers."""

from __future__ import annotations

from dataclasses import replace

from keras_tokenlearner.models import names
from keras_tokenlearner.weights.sources.huggingface import (
    ANCHORS,
    HUGGINGFACE_VIT,
    VIT_NAMES,
    in_blocks,
)
from keras_tokenlearner.weights.sources.source import Arrays, Entries, Named, Source
from keras_tokenlearner.weights.sources.torch_layers import count_blocks, from_torch

_VIDEOMAE_NAMES = VIT_NAMES | {"fc_norm": ("norm", "fc_norm")}
_VJEPA2 = {
    "attention_norm": ("norm", "norm1"),
    "self_attention/query": ("linear", "attention.query"),
    "self_attention/key": ("linear", "attention.key"),
    "self_attention/value": ("linear", "attention.value"),
    "self_attention/attention_output": ("heads", "attention.proj"),
    "mlp_norm": ("norm", "norm2"),
    "mlp/hidden": ("linear", "mlp.fc1"),
    "mlp/output": ("linear", "mlp.fc2"),
}
_VJEPA2_NAMES = {
    "embedding/projection": ("conv", "encoder.embeddings.patch_embeddings.proj"),
    "norm": ("norm", "encoder.layernorm"),
    "head": ("linear", "classifier"),
} | in_blocks(("encoder.layer.{i}.",), _VJEPA2)


def _convert_videomae(entries: Entries) -> Arrays:
    """Convert the weights of VideoMAE to ours. VideoMAE's key projections have no bias.

    Older files name the other biases `q_bias` and `v_bias`.
    """
    arrays = from_torch(entries, _VIDEOMAE_NAMES)
    for i in range(count_blocks(entries, _VIDEOMAE_NAMES)):
        for part in ("query", "value"):
            name = f"encoder.layer.{i}.attention.attention.{part[0]}_bias"
            if name in entries:
                bias = Named(entries.take(name), entries.full_name(name))
                arrays[f"{names.block_name(i)}/self_attention/{part}/bias"] = bias
    return arrays


def _convert_vjepa2(entries: Entries) -> Arrays:
    return from_torch(entries, _VJEPA2_NAMES)


HUGGINGFACE_VIVIT = replace(
    HUGGINGFACE_VIT,
    marks=("embeddings.cls_token",),
    ranks=(5,),
    config={"activation": "gelu_tanh", "layer_norm_epsilon": 1e-6},
    choices={},
    normalization="half",
)
HUGGINGFACE_VIDEOMAE = Source(
    _convert_videomae,
    anchors=ANCHORS,
    alien=("embeddings.cls_token", "embeddings.position_embeddings"),
    ranks=(5,),
    config={
        "activation": "gelu",
        "layer_norm_epsilon": 1e-12,
        "positions": "sequence",
    },
    pooled_norm={"final_norm_epsilon": 1e-5},
    without_norm={"final_norm": None},
    normalization="imagenet",
)
HUGGINGFACE_VJEPA2 = Source(
    _convert_vjepa2,
    anchors=("encoder.embeddings.patch_embeddings.proj.weight",),
    ranks=(5,),
    config={
        "activation": "gelu",
        "layer_norm_epsilon": 1e-6,
        "rotary": "index",
        "rotary_layout": "tiled",
    },
    normalization="imagenet",
    ignored=("predictor.",),
    head_only=("pooler.",),
)
