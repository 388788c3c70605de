"""ViT of "How to train your ViT?" (AugReg), of Vision Transformer and of big_vision."""

from keras_tokenlearner.weights.flax_layers import from_flax
from keras_tokenlearner.weights.source import HALF, Source

CONFIG = {"activation": "gelu_tanh", "layer_norm_epsilon": 1e-6}


def convert(entries, heads):
    """Convert the entries of an AugReg or Vision Transformer `.npz`."""
    del heads  # the kernels have them as an axis
    return from_flax(entries)


AUGREG = Source(
    convert,
    anchors=("embedding/kernel",),
    config=CONFIG,
    resize="bilinear",
    normalization=HALF,
    head_only=("pre_logits/", "MAPHead_0/"),
)
