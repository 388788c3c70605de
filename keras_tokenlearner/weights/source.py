from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

# Means and standard deviations of pixels in [0, 1]; the first gives pixels in [-1, 1].
HALF = (0.5, 0.5)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
NORMALIZATIONS = {"half": HALF, "imagenet": IMAGENET, "clip": CLIP}
ZEROS = "zeros"  # the origin of a bias that the file's layer does not have
BOTH = " and "  # joins the origins of two entries


class Named(NamedTuple):
    """An array in the shape of our variable, and the name of the entry that it came from."""

    array: np.ndarray
    origin: str


@dataclass(frozen=True)
class Source:
    """Conversion of the checkpoints of one source to our weights.

    Attributes:
        convert: Function of `Entries` and the number of heads. It returns the paths of our
            variables to `Named` arrays in their shapes. These depend on the model:
            "positions/table" is (N, C), with the rows of class token and registers where the file
            has them, or without them on its grid, (H, W, C) or (T, H, W, C); and the j-th
            TokenLearner and TokenFuser are "token_learner_{j}" and "token_fuser_{j}".
        anchors: Names of entries, one of which every checkpoint of the source has.
        config: Fields of `VisionTransformerConfig` that the source decides.
        conv_learner: Further fields that it decides where there is a TokenLearner with
            convolutions.
        gated_mlp: Further fields that it decides where the MLPs are gated.
        wide_head: Further fields that it decides where the head reads two tokens' channels.
        resize: How the source resizes positions, a name of `weights.resize`.
        normalization: Mean and standard deviation, of pixels in [0, 1], that its models expect.
        ignored: Starts of the names of entries that have no place in our models and are not missed.
        head_only: Starts of the names of entries between the features and the head.
    """

    convert: Callable
    anchors: tuple
    config: dict = field(default_factory=dict)
    conv_learner: dict = field(default_factory=dict)
    gated_mlp: dict = field(default_factory=dict)
    wide_head: dict = field(default_factory=dict)
    resize: str = "bicubic_antialias"
    normalization: tuple = HALF
    ignored: tuple = ()
    head_only: tuple = ()
