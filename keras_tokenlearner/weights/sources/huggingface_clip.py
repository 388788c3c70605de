"""Vision towers of CLIP, SigLIP, SigLIP 2 and AIMv2 of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from keras_tokenlearner.models import names
from keras_tokenlearner.weights.sources.huggingface import in_blocks
from keras_tokenlearner.weights.sources.source import ZEROS, Arrays, Entries, Named, Source
from keras_tokenlearner.weights.sources.torch_layers import Table, from_torch, split_qkv

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
_AIMV2 = {
    "attention_norm": ("norm", "rms_norm1"),
    "self_attention/query": ("linear", "attention.q_proj"),
    "self_attention/key": ("linear", "attention.k_proj"),
    "self_attention/value": ("linear", "attention.v_proj"),
    "self_attention/attention_output": ("heads", "attention.out_proj"),
    "mlp_norm": ("norm", "rms_norm2"),
    "mlp/gate": ("linear", "ffn.gate_proj"),
    "mlp/hidden": ("linear", "ffn.up_proj"),
    "mlp/output": ("linear", "ffn.down_proj"),
}
_CLIP_NAMES = {
    "embedding/projection": ("conv", "embeddings.patch_embedding"),
    "class_token/tokens": ("rows", "embeddings.class_embedding"),
    "positions/table": ("rows", "embeddings.position_embedding.weight"),
    "pre_norm": ("norm", "pre_layrnorm"),  # this spelling is in the files
    "norm": ("norm", "post_layernorm"),
    "projection": ("linear", "visual_projection"),
    "head": ("linear", "classifier"),
} | in_blocks(("encoder.layers.{i}.",), _CLIP)
_SIGLIP_NAMES = {
    **_CLIP_NAMES,
    "pooling/latent": ("rows", "head.probe"),
    "pooling/attention/attention_output": ("heads", "head.attention.out_proj"),
    "pooling/mlp_norm": ("norm", "head.layernorm"),
    "pooling/mlp/hidden": ("linear", "head.mlp.fc1"),
    "pooling/mlp/output": ("linear", "head.mlp.fc2"),
}
# Patches are flattened, so the first layer is a dense layer.
_SIGLIP2_NAMES = _SIGLIP_NAMES | {"embedding/projection": ("patches", "embeddings.patch_embedding")}
_AIMV2_NAMES = {
    "embedding/projection": ("conv", "embeddings.patch_embed"),
    "embedding_norm": ("norm", "embeddings.rms_norm"),
    "positions/table": ("rows", "embeddings.position_embedding.weight"),
    "norm": ("norm", "rms_norm"),
    "pooling/latent": ("rows", "head.cls_token"),
    "pooling/attention/key": ("linear", "head.k_proj"),
    "pooling/attention/value": ("linear", "head.v_proj"),
    "pooling/attention/attention_output": ("heads", "head.output_proj"),
} | in_blocks(("encoder.layers.{i}.",), _AIMV2)


def _converter(table: Table, unread: str) -> Callable[[Entries], Arrays]:
    """Return a function that converts weights by a table.

    If a file has a classifier, layers with the prefix `unread` are skipped. The classifier does not
    use their outputs.
    """

    def convert(entries: Entries) -> Arrays:
        arrays = from_torch(entries, table) | split_qkv(
            entries,
            "head.attention.in_proj_weight",
            f"{names.POOLING}/attention",
            "head.attention.in_proj_bias",
        )
        if names.HEAD_KERNEL not in arrays:
            return arrays
        return {path: array for path, array in arrays.items() if not path.startswith(unread)}

    return convert


def _convert_aimv2(entries: Entries) -> Arrays:
    """Convert the weights of AIMv2 to ours. AIMv2's pooling does not project the latent query."""
    arrays = from_torch(entries, _AIMV2_NAMES)
    latent = arrays.get(names.LATENT)
    if latent is None:
        return arrays
    channels = latent.array.shape[-1]
    kernel, bias = np.eye(channels, dtype=np.float32), np.zeros(channels, np.float32)
    query = f"{names.POOLING}/attention/query"
    arrays[f"{query}/kernel"] = Named(kernel, latent.origin)
    arrays[f"{query}/bias"] = Named(bias, ZEROS)
    return arrays


_ANCHORS = ("embeddings.patch_embedding.weight",)
HUGGINGFACE_CLIP = Source(
    _converter(_CLIP_NAMES, unread=f"{names.NORM}/"),
    anchors=_ANCHORS,
    marks=("pre_layrnorm", "embeddings.class_embedding"),
    config={"layer_norm_epsilon": 1e-5},
    choices={"activation": ("quick_gelu", "gelu")},  # of OpenAI's and LAION's checkpoints
    classifier={"head_reads": "average", "final_norm": None},
    resize="bicubic",
    normalization="clip",
    ignored=("embeddings.position_ids",),
)
HUGGINGFACE_SIGLIP = Source(
    _converter(_SIGLIP_NAMES, unread=f"{names.POOLING}/"),
    anchors=_ANCHORS,
    marks=("post_layernorm",),
    alien=("pre_layrnorm", "class_embedding"),
    ranks=(4,),
    config={"activation": "gelu_tanh", "layer_norm_epsilon": 1e-6},
    resize="bicubic",
    normalization="half",
    ignored=("embeddings.position_ids",),
)
HUGGINGFACE_SIGLIP2 = replace(
    HUGGINGFACE_SIGLIP,
    convert=_converter(_SIGLIP2_NAMES, unread=f"{names.POOLING}/"),
    ranks=(2,),
    resize="bilinear_antialias",
)
HUGGINGFACE_AIMV2 = Source(
    _convert_aimv2,
    anchors=("embeddings.patch_embed.weight",),
    marks=("embeddings.rms_norm",),
    config={"activation": "silu", "layer_norm_epsilon": 1e-5, "norm": "rms_norm"},
    resize="bicubic_antialias",
    normalization="clip",
)
