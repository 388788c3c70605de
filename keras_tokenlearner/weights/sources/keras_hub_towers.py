"""SigLIP and DINOv3 of keras-hub: from its models, and from the files of its presets."""

from __future__ import annotations

import re

from keras_tokenlearner.models import names
from keras_tokenlearner.weights.sources.huggingface import DINOV3_CONFIG
from keras_tokenlearner.weights.sources.source import (
    Arrays,
    Entries,
    Named,
    Source,
    fill_biases,
)

# Files name layers by class and attribute, and number the variables of a layer. In files, the first
# layer of a class has no number. In models, layers and variables have names.
_LEAF = r"(?:vars/)?(?P<leaf>\d|\w+)"
_ATTENTION = rf"(?P<part>query|key|value|attention_output|output)(?:_dense)?/{_LEAF}"
_SIGLIP_BLOCK = r"(?:layers/sig_lip_encoder_layer(?:_(?P<i>\d+))?|encoder_block_(?P<j>\d+))"
_SIGLIP_EMBEDDING = r"(?:layers/sig_lip_vision_)?embedding"
_SIGLIP_HEAD = r"(?:layers/sig_lip_multi_head_attention_pooling|head)"
_SIGLIP = (
    (rf"{_SIGLIP_EMBEDDING}/patch_embedding/{_LEAF}", "embedding/projection/{leaf}"),
    (rf"{_SIGLIP_EMBEDDING}/position_embedding/(?:vars/0|embeddings)", "positions/table"),
    (rf"{_SIGLIP_BLOCK}/layer_norm1/{_LEAF}", "block_{i}/attention_norm/{leaf}"),
    (rf"{_SIGLIP_BLOCK}/self_attn/{_ATTENTION}", "block_{i}/self_attention/{part}/{leaf}"),
    (rf"{_SIGLIP_BLOCK}/layer_norm2/{_LEAF}", "block_{i}/mlp_norm/{leaf}"),
    (rf"{_SIGLIP_BLOCK}/mlp/fc1/{_LEAF}", "block_{i}/mlp/hidden/{leaf}"),
    (rf"{_SIGLIP_BLOCK}/mlp/fc2/{_LEAF}", "block_{i}/mlp/output/{leaf}"),
    (rf"(?:layers/layer_normalization|post_layer_norm)/{_LEAF}", "norm/{leaf}"),
    (rf"{_SIGLIP_HEAD}/(?:vars/0|variable\w*)", "pooling/latent"),
    (rf"{_SIGLIP_HEAD}/attention/{_ATTENTION}", "pooling/attention/{part}/{leaf}"),
    (rf"{_SIGLIP_HEAD}/layer_?norm/{_LEAF}", "pooling/mlp_norm/{leaf}"),
    (rf"{_SIGLIP_HEAD}/mlp/fc1/{_LEAF}", "pooling/mlp/hidden/{leaf}"),
    (rf"{_SIGLIP_HEAD}/mlp/fc2/{_LEAF}", "pooling/mlp/output/{leaf}"),
)
_DINOV3_BLOCK = (
    r"(?:layers/dinov3_encoder/layers/dinov3_layer(?:_(?P<i>\d+))?|encoder/layers_(?P<j>\d+))"
)
_DINOV3_EMBEDDING = r"(?:layers/dinov3_embedding|embeddings)"
_PROJECTION = r"(?P<part>query|key|value|output|q|k|v|o)_(?:dense|proj)"
_DINOV3 = (
    (rf"{_DINOV3_EMBEDDING}/patch_embeddings/projection/{_LEAF}", "embedding/projection/{leaf}"),
    (rf"{_DINOV3_EMBEDDING}/(?:vars/0|cls_token)", "class_token/tokens"),
    (rf"{_DINOV3_EMBEDDING}/register_tokens", "register_tokens/tokens"),
    (rf"{_DINOV3_BLOCK}/norm1/{_LEAF}", "block_{i}/attention_norm/{leaf}"),
    (
        rf"{_DINOV3_BLOCK}/attention/{_PROJECTION}/{_LEAF}",
        "block_{i}/self_attention/{part}/{leaf}",
    ),
    (rf"{_DINOV3_BLOCK}/layer_scale1/\S+", "block_{i}/self_attention_scale/gamma"),
    (rf"{_DINOV3_BLOCK}/norm2/{_LEAF}", "block_{i}/mlp_norm/{leaf}"),
    (rf"{_DINOV3_BLOCK}/mlp/gate_proj/{_LEAF}", "block_{i}/mlp/gate/{leaf}"),
    (rf"{_DINOV3_BLOCK}/mlp/up_proj/{_LEAF}", "block_{i}/mlp/hidden/{leaf}"),
    (rf"{_DINOV3_BLOCK}/mlp/down_proj/{_LEAF}", "block_{i}/mlp/output/{leaf}"),
    (rf"{_DINOV3_BLOCK}/layer_scale2/\S+", "block_{i}/mlp_scale/gamma"),
    (rf"(?:layers/layer_normalization|layernorm)/{_LEAF}", "norm/{leaf}"),
)
_PARTS = {"q": "query", "k": "key", "v": "value", "o": "attention_output"}
_PARTS |= {"output": "attention_output"}
_ROWS = (names.CLASS_TOKENS, names.REGISTERS, names.POSITION_TABLE, names.LATENT)


def _convert(entries: Entries, patterns: tuple[tuple[str, str], ...]) -> Arrays:
    arrays: Arrays = {}
    for name in list(entries):
        path = _path(name, patterns)
        if path is None:
            continue
        array = entries.take(name)
        if path in _ROWS:
            array = array.reshape(-1, array.shape[-1])
        arrays[path] = Named(array, entries.full_name(name))
    return arrays


def _path(name: str, patterns: tuple[tuple[str, str], ...]) -> str | None:
    """Return our path for the name of an entry, or `None` for an unknown name."""
    for pattern, ours in patterns:
        found = re.fullmatch(pattern, name)
        if not found:
            continue
        groups = found.groupdict()
        part = groups.get("part") or ""
        number = groups.get("i") or groups.get("j") or "0"
        leaf = groups.get("leaf") or ""
        path = ours.format(i=number, part=_PARTS.get(part, part), leaf=leaf)
        if leaf in ("0", "1"):  # quantized layers have further variables
            layer = path.rpartition("/")[0]
            leaves = ("gamma", "beta") if layer.endswith("norm") else ("kernel", "bias")
            path = f"{layer}/{leaves[int(leaf)]}"
        return path
    return None


def _convert_siglip(entries: Entries) -> Arrays:
    return _convert(entries, _SIGLIP)


def _convert_dinov3(entries: Entries) -> Arrays:
    """Convert the weights of DINOv3 to ours. DINOv3's projections may lack biases."""
    arrays = _convert(entries, _DINOV3)
    # In files, the mask token comes between class token and registers.
    numbered = [f"layers/dinov3_embedding/vars/{index}" for index in (1, 2)]
    for name in [name for name in numbered if name in entries]:
        array = entries.take(name)
        if name == numbered[1] or array.shape[1] > 1:
            tokens = array.reshape(-1, array.shape[-1])
            arrays[names.REGISTERS] = Named(tokens, entries.full_name(name))
    fill_biases(arrays, names.BLOCK)  # the embedding always has a bias
    return arrays


KERAS_HUB_SIGLIP = Source(
    _convert_siglip,
    anchors=(
        "embedding/patch_embedding/kernel",
        "layers/sig_lip_vision_embedding/patch_embedding/vars/0",
    ),
    alien=("class_embedding", "pre_layer_norm"),  # keras-hub's CLIP in memory
    config={"activation": "gelu_tanh", "layer_norm_epsilon": 1e-6, "final_norm_epsilon": 1e-6},
    resize="bicubic",
    normalization="half",
    ignored=("optimizer/", "embedding/position_ids", "layers/sig_lip_vision_embedding/vars/0"),
)
KERAS_HUB_DINOV3 = Source(
    _convert_dinov3,
    anchors=(
        "embeddings/patch_embeddings/projection/kernel",
        "layers/dinov3_embedding/patch_embeddings/projection/vars/0",
    ),
    marks=("encoder/layers",),  # Flax files of transformers have the first anchor too
    config=DINOV3_CONFIG,
    choices={"activation": ("gelu", "silu")},
    gated_mlp={"activation": "silu"},
    normalization="imagenet",
    ignored=("optimizer/", "embeddings/mask_token"),
)
