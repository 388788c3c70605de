"""DINOv2 as Meta publishes it: the names of timm, but for register tokens and the mask token."""

from keras_tokenlearner.weights import timm
from keras_tokenlearner.weights.source import IMAGENET, Source


def convert(entries, heads):
    """Convert Meta's entries, which are timm's but for their registers."""
    registers = "register_tokens" if "register_tokens" in entries else "reg_token"
    return timm.convert(entries, heads, registers=registers)


DINOV2 = Source(
    convert,
    anchors=("patch_embed.proj.weight",),
    config=timm.CONFIG,
    normalization=IMAGENET,
    ignored=("mask_token",),  # of its training only
)
