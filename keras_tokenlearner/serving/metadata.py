"""Builds the metadata of an exported file: class names, preprocessing and origin."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

import keras
import numpy as np

from keras_tokenlearner._checks import check_names
from keras_tokenlearner._json import JSON
from keras_tokenlearner._version import __version__
from keras_tokenlearner.data.preprocessing import fill_colour, preprocessing_of
from keras_tokenlearner.models import Preprocessing
from keras_tokenlearner.models.last_activation import last_operation
from keras_tokenlearner.models.preprocessing import PreprocessingFields

NAME = "keras_tokenlearner"  # key of the metadata, in formats with named strings
METADATA = Path("assets.extra") / f"{NAME}.json"  # file in a SavedModel
# Preprocessing of pixels before the model, by the rank of an example.
PREPROCESSING = {
    3: "the largest central part of the input's aspect ratio, resized bilinearly, antialiased; "
    "[0, 255]",
    4: "resized bilinearly, antialiased, until it covers the input, then cropped to the centre; "
    "[0, 255]",
}


class Options(TypedDict):
    """Checked arguments of `export` for the writers, as JSON values."""

    class_names: list[str] | None
    top_k: int
    return_maps: bool
    frame_step: float | None
    provenance: Mapping[str, JSON] | None
    preprocessing: PreprocessingFields | None
    activation: str
    is_applied: bool
    precision: str | None


def own_class_names(model: keras.Model) -> Sequence[str] | None:
    """Return the class names of a model, or of the model inside that returns its outputs.

    `create_model(..., input_tensor=x)` for a computed tensor `x` returns a model around the named
    model. Other operations after the named model may change the order of the classes.
    """
    found = getattr(model, "class_names", None)
    last = last_operation(model)
    if found is not None or not isinstance(last, keras.Model):
        return found
    inner = own_class_names(last)
    return inner if inner is not None and len(inner) == model.output_shape[-1] else None


def class_names_of(
    model: keras.Model, class_names: Sequence[str] | None, activation: str
) -> list[str] | None:
    """Return the class names that an export stores: the argument, or the names of the model.

    Args:
        model: A `keras.Model`.
        class_names: Names of the classes, or `None` for the names of the model.
        activation: Activation of the exported outputs. With `"linear"`, the names of the model are
            not stored, because the outputs may be features or logits.

    Returns:
        List of strings, or `None` if the names are unknown or the outputs are not classes.

    Raises:
        ValueError: If the number of names differs from the number of classes.
    """
    if class_names is None:
        own = own_class_names(model)
        return list(own) if own and activation != "linear" else None
    if activation == "linear":
        raise ValueError(
            "export: `class_names` needs a model with outputs (B, classes) that ends in a softmax "
            "or a sigmoid. For logits, also pass `classifier_activation`. Received: "
            f"class_names={str(class_names)[:60]}, model {model.name!r} with outputs of shape "
            f"{model.output_shape}"
        )
    classes = model.output_shape[-1]
    expected = f"a list of {classes} names, one for each class"
    return list(check_names("export", "class_names", class_names, classes, expected))


def metadata_of(model: keras.Model, options: Options) -> dict[str, JSON]:
    """Return the metadata that every format stores with a model.

    Args:
        model: A `keras.Model` of images or videos.
        options: Checked arguments of `export`.
    """
    input_shape = model.input_shape[1:]
    preprocessing = preprocessing_of_options(options)
    return {
        "model": model.name,
        "input_shape": list(input_shape),
        "class_names": options["class_names"],
        "classifier_activation": options["activation"],
        "preprocessing": _described(preprocessing, input_shape[-1])
        or PREPROCESSING[len(input_shape)],
        "resize": options["preprocessing"],
        "frame_step": options["frame_step"],
        "precision": options["precision"] or compute_dtype(model),
        "provenance": options["provenance"],
        "weights_sha256": _digest(model),
        "keras_tokenlearner": __version__,
        "keras": keras.version(),
        "backend": keras.backend.backend(),
    }


def compute_dtype(model: keras.Model) -> str:
    """Return the dtype in which a model computes. Scaling layers in float32 do not count.

    Example:

    >>> compute_dtype(create_model("vit_pico8", classes=2, dtype="mixed_bfloat16"))
    'bfloat16'
    """
    for layer in model.layers:
        is_model = isinstance(layer, keras.Model)
        found = compute_dtype(layer) if is_model else layer.compute_dtype
        if layer.weights and found != "float32":
            return found
    return "float32"


def image_preprocessing(model: keras.Model) -> PreprocessingFields | None:
    """Return the fields of a model's `Preprocessing`, or `None` for videos or default resizing."""
    found = preprocessing_of(model) if len(model.input_shape) == 4 else None
    return None if found is None else found.fields()


def preprocessing_of_options(options: Options) -> Preprocessing | None:
    """Return the `Preprocessing` in the options, or `None` for videos or the default resizing."""
    fields = options["preprocessing"]
    return None if fields is None else Preprocessing(**fields)


def preprocessing_of_export(metadata: Mapping[str, JSON]) -> Preprocessing | None:
    """Return the `Preprocessing` in the metadata, or `None` for videos or the default resizing.

    Raises:
        ValueError: If the metadata have other fields than a `Preprocessing`.
    """
    fields = cast("PreprocessingFields | None", metadata.get("resize"))
    try:
        return None if fields is None else Preprocessing(**fields)
    except TypeError as error:
        raise ValueError(
            f"{METADATA}: `resize` must have the fields of a Preprocessing; export the model "
            f"again. Received: resize={fields!r}"
        ) from error


def _described(preprocessing: Preprocessing | None, channels: int) -> str | None:
    """Return a `Preprocessing` in words for the metadata; `None` for no `Preprocessing`."""
    if preprocessing is None:
        return None
    edges = {"shortest": "the shortest edge", "squash": "both edges", "longest": "the longest edge"}
    ending = "cropped to the centre"
    if preprocessing.resize_mode == "longest":
        colour = fill_colour(preprocessing, channels).tolist()
        ending += f" and padded on both sides with the colour {colour}"
    return (
        f"{edges[preprocessing.resize_mode]} resized by {preprocessing.interpolation} "
        "interpolation with antialiasing to the input's size over "
        f"{preprocessing.crop_fraction:g}, then {ending}; [0, 255]"
    )


def _digest(model: keras.Model) -> str:
    """Return the sha256 of the arrays of `model.get_weights()`, independent of any file format."""
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
