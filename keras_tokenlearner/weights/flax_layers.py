"""The names of the JAX ViT family as ours. Kernels have the shapes of Keras already."""

import re

from keras_tokenlearner.weights.source import Named

_BLOCK = "Transformer/encoderblock"
# Flax numbers the layers of a block either all together or each class apart, by release; only the
# order of the two LayerNorms says which is which.
_PATTERNS = (
    (r"embedding/(kernel|bias)", r"embedding/projection/\1"),
    (r"cls", "class_token/tokens"),
    (r"(?:Transformer/posembed_input/)?pos_embedding", "positions/table"),
    (r"Transformer/encoder_norm/(scale|bias)", r"norm/\1"),
    (r"(?:head|output_projection)/(kernel|bias)", r"head/\1"),
    (rf"{_BLOCK}_(\d+)/LayerNorm_0/(scale|bias)", r"block_\1/attention_norm/\2"),
    (rf"{_BLOCK}_(\d+)/LayerNorm_[12]/(scale|bias)", r"block_\1/mlp_norm/\2"),
    (
        rf"{_BLOCK}_(\d+)/MultiHeadDotProductAttention_\d/(query|key|value)/(kernel|bias)",
        r"block_\1/self_attention/\2/\3",
    ),
    (
        rf"{_BLOCK}_(\d+)/MultiHeadDotProductAttention_\d/out/(kernel|bias)",
        r"block_\1/self_attention/attention_output/\2",
    ),
    (rf"{_BLOCK}_(\d+)/MlpBlock_\d/Dense_0/(kernel|bias)", r"block_\1/mlp/hidden/\2"),
    (rf"{_BLOCK}_(\d+)/MlpBlock_\d/Dense_1/(kernel|bias)", r"block_\1/mlp/output/\2"),
)
_NORMS = re.compile(r"(?:^|/|_)norm(_\w+)?/(scale|bias)$")


def from_flax(entries, patterns=()):
    """Rename entries by the patterns of the family and more of a source's own.

    Args:
        entries: `Entries`.
        patterns: Pairs of a regular expression for a whole name and our name for it.

    Returns:
        Paths of our variables to `Named` arrays.
    """
    arrays = {}
    for name in list(entries):
        stacked = name.startswith(f"{_BLOCK}/")  # all blocks, along a leading axis
        path = _rename(name.replace(_BLOCK, f"{_BLOCK}_0", 1) if stacked else name, patterns)
        if path is None:
            continue
        array, origin = entries.take(name), entries.full_name(name)
        if path in ("class_token/tokens", "positions/table"):
            array = array.reshape(-1, array.shape[-1])
        if not stacked:
            arrays[path] = Named(array, origin)
            continue
        for i in range(array.shape[0] if array.ndim else 0):
            arrays[path.replace("block_0", f"block_{i}", 1)] = Named(array[i], origin)
    return arrays


def _rename(name, patterns):
    for pattern, ours in (*_PATTERNS, *patterns):
        found = re.fullmatch(pattern, name)
        if found:
            path = found.expand(ours)
            is_norm = _NORMS.search(path)
            if is_norm:
                path = re.sub("scale$", "gamma", re.sub("bias$", "beta", path))
            return path
    return None
