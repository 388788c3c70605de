"""ViT of keras-hub: from its models, and from the `.weights.h5` files of its presets."""

from __future__ import annotations

import re

from keras_tokenlearner._json import JSON
from keras_tokenlearner.models import names
from keras_tokenlearner.models.config_fields import Fields
from keras_tokenlearner.weights.sources.source import (
    Arrays,
    Entries,
    Named,
    Source,
    fill_biases,
)

_BLOCK = r"vit_encoder/transformer_block_(\d+)"
_HEAD = "predictions"  # keras-hub's name of the head
_PATTERNS = (
    (r"vit_patching_and_embedding/class_token", "class_token/tokens"),
    (r"vit_patching_and_embedding/patch_embedding/(\w+)", r"embedding/projection/\1"),
    (r"vit_patching_and_embedding/position_embedding/embeddings", "positions/table"),
    (rf"{_BLOCK}/ln_1/(\w+)", r"block_\1/attention_norm/\2"),
    (rf"{_BLOCK}/mha/(\w+)/(\w+)", r"block_\1/self_attention/\2/\3"),
    (rf"{_BLOCK}/ln_2/(\w+)", r"block_\1/mlp_norm/\2"),
    (rf"{_BLOCK}/mlp/dense_1/(\w+)", r"block_\1/mlp/hidden/\2"),
    (rf"{_BLOCK}/mlp/dense_2/(\w+)", r"block_\1/mlp/output/\2"),
    (r"vit_encoder/ln/(\w+)", r"norm/\1"),
    (rf"{_HEAD}/(\w+)", r"head/\1"),
)
# Files name layers by class and attribute, and number the variables of a layer.
_FILE = "layers/vi_t_encoder/encoder_layers/vi_t_encoder_block"
_FILE_PATTERNS = (
    (r"layers/vi_t_patching_and_embedding/vars/0", "vit_patching_and_embedding/class_token"),
    (
        r"layers/vi_t_patching_and_embedding/patch_embedding/vars/(\d)",
        r"vit_patching_and_embedding/patch_embedding/\1",
    ),
    (
        r"layers/vi_t_patching_and_embedding/position_embedding/vars/0",
        "vit_patching_and_embedding/position_embedding/embeddings",
    ),
    (rf"{_FILE}/(.*)", rf"{_FILE}_0/\1"),  # the first block has no number
    (rf"{_FILE}_(\d+)/layer_norm_(\d)/vars/(\d)", r"vit_encoder/transformer_block_\1/ln_\2/\3"),
    (
        rf"{_FILE}_(\d+)/mha/(query|key|value)_dense/vars/(\d)",
        r"vit_encoder/transformer_block_\1/mha/\2/\3",
    ),
    (
        rf"{_FILE}_(\d+)/mha/output_dense/vars/(\d)",
        r"vit_encoder/transformer_block_\1/mha/attention_output/\2",
    ),
    (rf"{_FILE}_(\d+)/mlp/(dense_\d)/vars/(\d)", r"vit_encoder/transformer_block_\1/mlp/\2/\3"),
    (r"layers/vi_t_encoder/layer_norm/vars/(\d)", r"vit_encoder/ln/\1"),
)


def convert(entries: Entries) -> Arrays:
    """Convert the weights of a keras-hub backbone or classifier to our names and shapes.

    Layers without bias get biases of zeros.
    """
    in_file = any(name.startswith("layers/vi_t_encoder/") for name in entries)
    first = 0 if in_file else 1  # first number of the blocks
    head = "layers/dense_1" if "layers/dense_1/vars/0" in entries else "layers/dense"
    arrays: Arrays = {}
    for name in list(entries):
        path = _rename(name.replace(f"{head}/vars", _HEAD), _FILE_PATTERNS)
        path = _rename(path, _PATTERNS)
        if path == name:
            continue
        block = names.block_index(path)
        if block is not None:
            path = f"{names.block_name(block - first)}/{path.partition('/')[2]}"
        layer, _, leaf = path.rpartition("/")
        if leaf in ("0", "1"):
            leaves = ("gamma", "beta") if layer.endswith("norm") else ("kernel", "bias")
            path = f"{layer}/{leaves[int(leaf)]}"
        array, origin = entries.take(name), entries.full_name(name)
        if path in (names.CLASS_TOKENS, names.POSITION_TABLE):
            array = array.reshape(-1, array.shape[-1])
        arrays[path] = Named(array, origin)
    fill_biases(arrays)
    return arrays


def head_of(pooling: JSON, class_token: bool) -> tuple[Fields, tuple[str, ...]]:
    """Return the config fields of a classifier, and descriptions of unsupported features.

    Args:
        pooling: The classifier's argument `pooling`.
        class_token: Whether the backbone has a class token.
    """
    if pooling == "gap":  # averages the class token too
        return {"head_reads": "average", "pool_prefix": True}, ()
    if pooling == "token" and class_token:
        return {"head_reads": None}, ()
    return {}, ("a head that reads the first patch" if pooling == "token" else f"{pooling=}",)


def _rename(name: str, patterns: tuple[tuple[str, str], ...]) -> str:
    """Replace every pattern in a name, in order."""
    for pattern, ours in patterns:
        found = re.fullmatch(pattern, name)
        if found:
            name = found.expand(ours)
    return name


KERAS_HUB = Source(
    convert,
    anchors=(
        "vit_patching_and_embedding/patch_embedding/kernel",
        "layers/vi_t_patching_and_embedding/patch_embedding/vars/0",
    ),
    config={"activation": "gelu", "layer_norm_epsilon": 1e-6},
    resize="bilinear",
    normalization="half",
    ignored=("optimizer/",),
    head_only=("pre_logits/", "layers/dense/"),
)
