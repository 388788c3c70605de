"""The arguments of `create_model` and of the functions of families, as types that editors read."""

import os
from collections.abc import Sequence

from keras_tokenlearner.models.config_fields import (
    Normalization,
    VisionTransformerFields,
    X2Plus1DFields,
)
from keras_tokenlearner.models.preprocessing import Preprocessing
from keras_tokenlearner.models.vision_model import BuildArguments


class GraphArguments(BuildArguments, total=False):
    """The arguments of `create_model` that apply to every model, except for `weights`."""

    classes: int | None
    normalization: Normalization | None
    grid: Sequence[int] | None


class ModelArguments(GraphArguments, total=False):
    """The arguments of `create_model` that apply to every model."""

    weights: str | os.PathLike[str] | None


class VisionTransformerArguments(ModelArguments, VisionTransformerFields, total=False):
    """The arguments of `ViTB16`, `ViViTL16` and the other functions for vision transformers."""


class X2Plus1DArguments(ModelArguments, X2Plus1DFields, total=False):
    """The arguments of `X2Plus1DM` and `TokenLearnerX2Plus1DM`."""


class ConfigChanges(VisionTransformerFields, X2Plus1DFields, total=False):
    """The arguments of `create_model` that change the config of a model."""


class BodyArguments(ConfigChanges, total=False):
    """The arguments of `create_model` for a model without top, which `hub_backbone` takes."""

    include_preprocessing: bool
    preprocessing: Preprocessing | None
    weights: str | None
    input_shape: Sequence[int] | None
    normalization: Normalization | None
    grid: Sequence[int] | None


class LoadArguments(GraphArguments, ConfigChanges, total=False):
    """The arguments of `create_model`, except for `model` and `weights`."""
