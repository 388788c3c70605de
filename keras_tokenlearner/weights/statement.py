"""The settings of a checkpoint that a config.json or arguments state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from keras_tokenlearner._checks import check_choice
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers.activations import ActivationFunction
from keras_tokenlearner.models.config_fields import Fields, Normalization
from keras_tokenlearner.models.preprocessing import Preprocessing
from keras_tokenlearner.models.vision_transformer import VisionTransformer
from keras_tokenlearner.weights.sources.source import NORMALIZATIONS


@dataclass(frozen=True)
class Statement:
    """Settings of a checkpoint that its arrays do not show, from a config.json or arguments.

    Attributes:
        source: A key of `SOURCES`, or `None` to recognise the source by the names of entries.
        fields: Fields of `VisionTransformerConfig`.
        unknown_activation: Name or function of an activation that this package cannot convert to
            the field `activation`, or `None`.
        preprocessing: `Preprocessing` of the images, or `None`.
        class_names: Names of the classes, or `None`.
        grid: Grid of the positions, or `None`.
        input_size: `(height, width)` of the images, or `None`.
        input_shape: Shape of the model's input, or `None` to compute it from the grid.
        resize: Method to resize positions, or `None` for the method of the source.
        pooling: Pooling of the features if the head is omitted. `"none"` returns all tokens. `None`
            if it is not stated.
        projection: Number of outputs of a head that computes the embeddings of CLIP, or `None`.
        missing: Descriptions of the parts of the architecture that this package does not support.
        missing_head: Descriptions of such parts of the head alone.
        is_config: Whether the settings are complete, as in a config.json: fields that are not
            stated have their defaults.
    """

    source: str | None = None
    fields: Fields = field(default_factory=dict)
    unknown_activation: JSON | ActivationFunction = None
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] | None = None
    grid: tuple[int, ...] | None = None
    input_size: tuple[int, ...] | None = None
    input_shape: tuple[int, ...] | None = None
    resize: str | None = None
    pooling: str | None = None
    projection: int | None = None
    missing: tuple[str, ...] = ()
    missing_head: tuple[str, ...] = ()
    is_config: bool = False


def statement_of_model(model: VisionTransformer) -> Statement:
    """Return the `Statement` of a model of this package."""
    sizes = ("hidden_dim", "num_layers")
    said = {
        one.name: getattr(model.config, one.name)
        for one in fields(model.config)
        if one.name not in sizes
    }
    return Statement(
        source="keras_tokenlearner",
        fields=said,
        preprocessing=model.preprocessing,
        class_names=model.class_names,
        grid=model.grid,
        input_shape=model.input_shape[1:],
        resize=model.position_resize,
        pooling=model.pooling or (None if model.include_top else "none"),
        is_config=True,
    )


def mean_and_std(owner: str, value: Normalization) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation that the argument `normalization` gives or names."""
    if isinstance(value, str):
        check_choice(owner, "normalization", value, list(NORMALIZATIONS))
        value = NORMALIZATIONS[value]
    try:
        pair = [np.asarray(part).reshape(-1) for part in value]
    except (TypeError, ValueError):  # a number, or nested lists of unequal lengths
        pair = []
    is_finite = all(part.dtype.kind in "iuf" and np.isfinite(part).all() for part in pair)
    sizes = {part.size for part in pair} - {1}
    if not isinstance(value, Sequence) or len(pair) != 2 or len(sizes) > 1 or not is_finite:
        raise ValueError(
            f"{owner}: `normalization` must be one of {list(NORMALIZATIONS)}, or a pair of mean "
            f"and standard deviation, both finite. Received: normalization={value!r}"
        )
    if not np.all(pair[1] > 0):
        raise ValueError(
            f"{owner}: `normalization` must have positive standard deviations. "
            f"Received: normalization={value}"
        )
    mean, std = (tuple(float(x) for x in part) for part in pair)
    return mean, std
