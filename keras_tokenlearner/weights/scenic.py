"""ViT, ViViT and TokenLearner of google-research/scenic, as trees of parameters."""

from keras_tokenlearner.weights.augreg import CONFIG
from keras_tokenlearner.weights.flax_layers import from_flax
from keras_tokenlearner.weights.source import HALF, Named, Source

_LEARNER = r"(?:Transformer/)?TokenLearnerModule_(\d+)"
_LEARNER_MLP = r"(?:Transformer/)?TokenLearnerModuleV11_(\d+)"
_FUSER = r"(?:Transformer/)?TokenFuser_(\d+)"
_WEIGHT = "(scale|kernel|bias)"
_PATTERNS = (
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


def convert(entries, heads):
    """Convert the entries of a scenic tree, including its TokenLearners."""
    del heads  # the kernels have them as an axis
    arrays = from_flax(entries, _PATTERNS)
    for path, (array, origin) in arrays.items():
        if path.endswith("/blend/kernel") and array.ndim == 4:
            arrays[path] = Named(array[0, 0], origin)  # a 1 x 1 convolution is a dense layer
    return arrays


SCENIC = Source(
    convert,
    anchors=("embedding/kernel",),
    config=CONFIG,
    conv_learner={"token_pooling": "sum"},  # as the released code does
    resize="bilinear",
    normalization=HALF,
    head_only=("pre_logits/",),
)
