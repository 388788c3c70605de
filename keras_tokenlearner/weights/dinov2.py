"""DINOv2 as Meta publishes it: timm's names, except for a few that timm's table has too."""

from keras_tokenlearner.weights import timm
from keras_tokenlearner.weights.source import IMAGENET, Source

DINOV2 = Source(
    timm.convert,
    anchors=("patch_embed.proj.weight",),
    config=timm.CONFIG,
    gated_mlp=timm.GATED_MLP,
    normalization=IMAGENET,
    ignored=("mask_token",),  # of its training only
)
