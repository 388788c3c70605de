"""Reads the settings of KerasHub: config.json, image_converter.json and task.json, or a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import keras
import numpy as np

from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers.activations import ActivationFunction
from keras_tokenlearner.models.config_fields import FieldValue
from keras_tokenlearner.models.preprocessing import Preprocessing
from keras_tokenlearner.weights.formats.read import CheckpointLike
from keras_tokenlearner.weights.json_values import Object, preprocessing_of
from keras_tokenlearner.weights.sources.keras_hub import head_of
from keras_tokenlearner.weights.statement import Statement

_SOURCES = {
    "ViTBackbone": "keras_hub",
    "SigLIPBackbone": "keras_hub_siglip",
    "SigLIPVisionEncoder": "keras_hub_siglip",
    "DINOV3Backbone": "keras_hub_dinov3",
}
_ACTIVATIONS = {"gelu_approximate": "gelu_tanh", "gelu": "gelu", "silu": "silu", "swish": "silu"}


def of_keras(owner: str, said: Object, pixels: Object, task: Object) -> Statement:
    """Return the settings in a config.json, image_converter.json and task.json of KerasHub."""
    name = str(said.get("registered_name") or said.get("class_name"))
    source = _SOURCES.get(name.rpartition(">")[2])
    if source is None:
        raise ValueError(
            f"{owner}: the class in config.json (`registered_name`, else `class_name`) must be one "
            f"of these KerasHub classes: {list(_SOURCES)}. Received: class {name!r}"
        )
    inner = _config(said)
    if isinstance(inner.get("vision_encoder"), Mapping):
        inner = _config(cast("Object", inner["vision_encoder"]))
    fields: dict[str, FieldValue] = {}
    for ours, *theirs in (
        ("num_heads", "num_heads"),
        ("layer_norm_epsilon", "layer_norm_epsilon", "layer_norm_eps"),
        ("rotary_theta", "rope_theta"),
        ("register_tokens", "num_register_tokens"),
    ):
        found = [inner[name] for name in theirs if isinstance(inner.get(name), (int, float))]
        fields |= {ours: cast("float", found[0])} if found else {}
    activation = _activation(inner)
    is_known = isinstance(activation, str) and activation in _ACTIVATIONS
    if is_known:
        fields["activation"] = _ACTIVATIONS[cast("str", activation)]
    missing: tuple[str, ...] = ()
    if source == "keras_hub" and "pooling" in _config(task):
        class_token = bool(inner.get("use_class_token", True))
        head, missing = head_of(_config(task)["pooling"], class_token)
        fields |= head
    return Statement(
        source=source,
        fields=fields,
        unknown_activation=None if is_known else activation,
        preprocessing=_preprocessing(owner, pixels),
        input_size=_image_size(inner.get("image_shape")),
        missing_head=missing,
        is_config=True,
    )


def of_keras_model(owner: str, model: CheckpointLike) -> Statement | None:
    """Return the settings of a model of KerasHub in memory, or `None` for other checkpoints."""
    backbone: Any = getattr(model, "backbone", model)  # a classifier has a backbone
    kinds = [
        kind.__name__
        for kind in type(backbone).__mro__
        if kind.__name__ in _SOURCES and kind.__module__.startswith("keras_hub.")
    ]
    if not kinds:
        return None
    converter = getattr(getattr(model, "preprocessor", None), "image_converter", None)
    pixels = {} if converter is None else {"config": converter.get_config()}
    pooling: Any = getattr(model, "pooling", None)
    task: Object = {} if pooling is None else {"config": {"pooling": pooling}}
    said = {"class_name": kinds[0], "config": backbone.get_config()}
    return of_keras(owner, said, pixels, task)


def _activation(inner: Object) -> JSON | ActivationFunction:
    """Return the activation in a config of KerasHub, or `None` if it is not stated.

    Functions of Keras become names. `keras.activations.serialize` would give their names to other
    functions, too.
    """
    found: Any = inner.get("intermediate_activation", inner.get("hidden_activation"))
    if isinstance(found, Mapping) and found.get("class_name") == "function":  # in a JSON file
        found = found.get("config")
    return found.__name__ if found in (keras.activations.gelu, keras.activations.silu) else found


def _image_size(shape: JSON) -> tuple[int, ...] | None:
    """Return height and width in the shape of an image, whose channels are first or last.

    A config of KerasHub does not state the order. The images have fewer channels than pixels.
    """
    if not isinstance(shape, Sequence) or len(shape) != 3 or None in shape:
        return None
    first, *_, last = shape = cast("tuple[int, ...]", tuple(shape))
    return shape[1:] if first < last else shape[:2]


def _config(said: Object) -> Object:
    inner = said.get("config")
    return dict(inner) if isinstance(inner, Mapping) else {}


def _preprocessing(owner: str, pixels: Object) -> Preprocessing | None:
    """Return the `Preprocessing` of an image converter, or `None` without its settings."""
    if not pixels:
        return None
    said = _config(pixels)
    try:
        with np.errstate(divide="ignore", invalid="ignore"):  # `Preprocessing` refuses infinity
            scales, offsets = _scaling(said)
            stds = 1 / (255 * scales)
            means = (0 - offsets) * stds
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{owner}: the settings of the image converter are invalid; correct them, or download "
            f"or save their file again. Reason: {error}"
        ) from error
    size = said.get("image_size")
    if size is None and "height" in said:  # a file of an old release
        size = [said["height"], said.get("width")]
    modes = [("crop_to_aspect_ratio", True, "shortest"), ("pad_to_aspect_ratio", False, "longest")]
    return preprocessing_of(
        owner,
        mean=means.tolist(),
        std=stds.tolist(),
        size=cast("tuple[int, int]", tuple(size)) if isinstance(size, Sequence) else None,
        resize_mode=next((mode for key, usual, mode in modes if said.get(key, usual)), "squash"),
        interpolation=str(said.get("interpolation") or "bilinear"),
        crop_fraction=1.0,
    )


def _scaling(said: Object) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale and offset of an image converter, which computes `pixel * scale + offset`.

    Old releases of KerasHub have further values. `mean` and `variance` change scale and offset.
    `norm_mean` and `norm_std` normalise the result.
    """
    scale, offset = _values(said.get("scale"), 1.0), _values(said.get("offset"), 0.0)
    if "mean" in said and "variance" in said:
        std = np.sqrt(_values(said["variance"], 1.0))
        scale, offset = scale / std, -_values(said["mean"], 0.0) / std
    mean, std = _values(said.get("norm_mean"), 0.0), _values(said.get("norm_std"), 1.0)
    scale, offset, _ = np.broadcast_arrays(scale / std, (offset - mean) / std, mean)
    return scale, offset


def _values(value: JSON, default: float) -> np.ndarray:
    return np.atleast_1d(np.asarray(default if value is None else value, "float64"))
