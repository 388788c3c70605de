"""The JAX ViT family: AugReg, Vision Transformer, big_vision, and scenic with its TokenLearners.

Kernels have the shapes of Keras already.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from keras_tokenlearner.models import names
from keras_tokenlearner.models.config_fields import Fields
from keras_tokenlearner.weights.sources.source import Arrays, Entries, Named, Source

_Patterns = tuple[tuple[str, str], ...]

_BLOCK = "Transformer/encoderblock"
_WEIGHT = "(scale|kernel|bias)"
# Releases of Flax number the layers of a block either together or per class. The second LayerNorm
# of a block is therefore number 2 or 1.
_PATTERNS: _Patterns = (
    (r"embedding/(kernel|bias)", r"embedding/projection/\1"),
    (r"cls", "class_token/tokens"),
    (r"(?:Transformer/posembed_input/)?pos_embedding", "positions/table"),
    (r"Transformer/encoder_norm/(scale|bias)", r"norm/\1"),
    (r"(?:head|output_projection)/(kernel|bias)", r"head/\1"),
    (r"pre_logits/(kernel|bias)", r"pre_logits/\1"),
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
    # big_vision's attention pooling, SigLIP's head.
    (r"MAPHead_0/probe", "pooling/latent"),
    (
        r"MAPHead_0/MultiHeadDotProductAttention_0/(query|key|value)/(kernel|bias)",
        r"pooling/attention/\1/\2",
    ),
    (
        r"MAPHead_0/MultiHeadDotProductAttention_0/out/(kernel|bias)",
        r"pooling/attention/attention_output/\1",
    ),
    (r"MAPHead_0/LayerNorm_0/(scale|bias)", r"pooling/mlp_norm/\1"),
    (r"MAPHead_0/MlpBlock_0/Dense_0/(kernel|bias)", r"pooling/mlp/hidden/\1"),
    (r"MAPHead_0/MlpBlock_0/Dense_1/(kernel|bias)", r"pooling/mlp/output/\1"),
)
_NORMS = re.compile(r"(?:^|/|_)norm(_\w+)?/(scale|bias)$")
_LEARNER = r"(?:Transformer/)?TokenLearnerModule_(\d+)"
_LEARNER_MLP = r"(?:Transformer/)?TokenLearnerModuleV11_(\d+)"
_FUSER = r"(?:Transformer/)?TokenFuser_(\d+)"
_SCENIC: _Patterns = (
    (rf"{_LEARNER}/LayerNorm_0/{_WEIGHT}", r"token_learner_\1/norm/\2"),
    (rf"{_LEARNER}/Conv_(\d)/kernel", r"token_learner_\1/conv_\2/kernel"),
    (rf"{_LEARNER_MLP}/LayerNorm_0/{_WEIGHT}", r"token_learner_\1/norm/\2"),
    (rf"{_LEARNER_MLP}/token_masking/Dense_0/{_WEIGHT}", r"token_learner_\1/mlp/hidden/\2"),
    (rf"{_LEARNER_MLP}/token_masking/Dense_1/{_WEIGHT}", r"token_learner_\1/mlp/output/\2"),
    (rf"{_FUSER}/fuser_mix_norm1/{_WEIGHT}", r"token_fuser_\1/norm_before/\2"),
    (rf"{_FUSER}/fuser_mix_norm2/{_WEIGHT}", r"token_fuser_\1/norm_after/\2"),
    (rf"{_FUSER}/Dense_0/{_WEIGHT}", r"token_fuser_\1/mix/\2"),
    (rf"{_FUSER}/LayerNorm_0/{_WEIGHT}", r"token_fuser_\1/norm_inputs/\2"),
    (rf"{_FUSER}/Conv_0/kernel", r"token_fuser_\1/blend/kernel"),
    (rf"{_FUSER}/token_masking/Dense_0/{_WEIGHT}", r"token_fuser_\1/blend/hidden/\2"),
    (rf"{_FUSER}/token_masking/Dense_1/{_WEIGHT}", r"token_fuser_\1/blend/output/\2"),
)
_ROWS = (names.CLASS_TOKENS, names.POSITION_TABLE, names.LATENT)


def _converter(patterns: _Patterns) -> Callable[[Entries], Arrays]:
    def convert(entries: Entries) -> Arrays:
        arrays: Arrays = {}
        for name in list(entries):
            stacked = name.startswith(f"{_BLOCK}/")  # all blocks are stacked along a leading axis
            path = _rename(name.replace(_BLOCK, f"{_BLOCK}_0", 1) if stacked else name, patterns)
            if path is None:
                continue
            array, origin = entries.take(name), entries.full_name(name)
            if path in _ROWS:
                array = array.reshape(-1, array.shape[-1])
            elif path.endswith("/blend/kernel") and array.ndim == 4:
                array = array[0, 0]  # a 1 x 1 convolution is a dense layer
            if not stacked:
                arrays[path] = Named(array, origin)
                continue
            for i in range(array.shape[0] if array.ndim else 0):
                arrays[path.replace(names.block_name(0), names.block_name(i), 1)] = Named(
                    array[i], origin
                )
        return arrays

    return convert


def _rename(name: str, patterns: _Patterns) -> str | None:
    for pattern, ours in patterns:
        found = re.fullmatch(pattern, name)
        if found:
            path = found.expand(ours)
            if _NORMS.search(path):
                path = re.sub("scale$", "gamma", re.sub("bias$", "beta", path))
            return path
    return None


_CONFIG: Fields = {"activation": "gelu_tanh", "layer_norm_epsilon": 1e-6}
AUGREG = Source(
    _converter(_PATTERNS),
    anchors=("embedding/kernel",),
    marks=("MlpBlock_",),
    alien=("output_projection/", "TokenLearner", "TokenFuser"),
    config=_CONFIG,
    resize="bilinear",
    normalization="half",
)
SCENIC = Source(
    _converter(_PATTERNS + _SCENIC),
    anchors=("embedding/kernel",),
    marks=("MlpBlock_",),
    proof=("output_projection/",),
    config=_CONFIG,
    conv_learner={"token_pooling": "sum"},  # as the released code does
    resize="bilinear",
    normalization="half",
)
