"""ViT, DINOv2 and CLIP's vision tower of Hugging Face transformers, in its files and in memory.

Files keep the names of the first releases; models in memory, since release 5, have shorter ones.
"""

import re

from keras_tokenlearner.weights.source import CLIP, HALF, IMAGENET, Named, Source
from keras_tokenlearner.weights.torch_layers import from_torch

_EMBEDDINGS = {
    "embedding/projection": ("conv", "embeddings.patch_embeddings.projection"),
    "class_token/tokens": ("raw", "embeddings.cls_token"),
    "register_tokens/tokens": ("raw", "embeddings.register_tokens"),
    "positions/table": ("raw", "embeddings.position_embeddings"),
    "norm": ("norm", "layernorm"),
    "head": ("linear", "classifier"),
}


def _block(layer, norms, attention, out, mlp, scales=None):
    """Return the rows of a block; each argument says what the names of its layers are."""
    query, key, value = (attention.replace("*", part) for part in ("query", "key", "value"))
    rows = {
        "attention_norm": ("norm", norms[0]),
        "mixer/query": ("heads_in", query),
        "mixer/key": ("heads_in", key),
        "mixer/value": ("heads_in", value),
        "mixer/attention_output": ("heads_out", out),
        "mlp_norm": ("norm", norms[1]),
        "mlp/hidden": ("linear", mlp[0]),
        "mlp/output": ("linear", mlp[1]),
    }
    if scales:
        rows |= {"mixer_scale/gamma": ("raw", scales[0]), "mlp_scale/gamma": ("raw", scales[1])}
    return {f"block_{{i}}/{ours}": (kind, layer + theirs) for ours, (kind, theirs) in rows.items()}


_VIT = _EMBEDDINGS | _block(
    "encoder.layer.{i}.",
    norms=("layernorm_before", "layernorm_after"),
    attention="attention.attention.*",
    out="attention.output.dense",
    mlp=("intermediate.dense", "output.dense"),
)
_VIT_SHORT = _EMBEDDINGS | _block(
    "layers.{i}.",
    norms=("layernorm_before", "layernorm_after"),
    attention="attention.*_proj",
    out="attention.o_proj",
    mlp=("mlp.fc1", "mlp.fc2"),
)
_DINO = {
    "norms": ("norm1", "norm2"),
    "mlp": ("mlp.fc1", "mlp.fc2"),
    "scales": ("layer_scale1.lambda1", "layer_scale2.lambda1"),
}
_DINOV2 = _EMBEDDINGS | _block(
    "encoder.layer.{i}.", attention="attention.attention.*", out="attention.output.dense", **_DINO
)
_DINOV2_SHORT = _EMBEDDINGS | _block(
    "encoder.layer.{i}.", attention="attention.*_proj", out="attention.o_proj", **_DINO
)
_CLIP = {
    "embedding/projection": ("conv", "embeddings.patch_embedding"),
    "class_token/tokens": ("raw", "embeddings.class_embedding"),
    "positions/table": ("raw", "embeddings.position_embedding.weight"),
    "pre_norm": ("norm", "pre_layrnorm"),  # spelt so
    "norm": ("norm", "post_layernorm"),
} | _block(
    "encoder.layers.{i}.",
    norms=("layer_norm1", "layer_norm2"),
    attention="self_attn.*_proj",
    out="self_attn.out_proj",
    mlp=("mlp.fc1", "mlp.fc2"),
)


def _converter(*tables):
    """Return a `convert` that reads by the first table whose attentions the entries have."""
    tables = [
        {
            ours: (kind, re.sub("(query|key|value)_proj", lambda m: m[0][0] + "_proj", theirs))
            for ours, (kind, theirs) in table.items()
        }
        for table in tables
    ]

    def convert(entries, heads):
        for names in tables:
            query = names["block_{i}/mixer/query"][1].replace("{i}", "0") + ".weight"
            if query in entries:
                break
        block = re.match(r".*\{i\}\.", names["block_{i}/mlp_norm"][1])[0]
        arrays = from_torch(entries, names, block, heads)
        for path in ("class_token/tokens", "register_tokens/tokens", "positions/table"):
            if path in arrays:
                array, origin = arrays[path]
                arrays[path] = Named(array.reshape(-1, array.shape[-1]), origin)
        return arrays

    return convert


_ANCHORS = ("embeddings.patch_embeddings.projection.weight",)
HUGGINGFACE_VIT = Source(
    _converter(_VIT, _VIT_SHORT),
    anchors=_ANCHORS,
    config={"activation": "gelu", "epsilon": 1e-12},
    resize="bicubic",
    normalization=HALF,
    ignored=("pooler.", "embeddings.mask_token"),
)
HUGGINGFACE_DINOV2 = Source(
    _converter(_DINOV2, _DINOV2_SHORT),
    anchors=_ANCHORS,
    config={"activation": "gelu", "epsilon": 1e-6},
    normalization=IMAGENET,
    ignored=("embeddings.mask_token",),
)
HUGGINGFACE_CLIP = Source(
    _converter(_CLIP),
    anchors=("embeddings.patch_embedding.weight",),
    config={"activation": "quick_gelu", "epsilon": 1e-5},
    resize="bicubic",
    normalization=CLIP,
    ignored=("embeddings.position_ids",),
)
