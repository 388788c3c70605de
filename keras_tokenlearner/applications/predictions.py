"""`decode_predictions` and `preprocess_input`, as in `keras.applications`."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Sequence
from importlib import resources

import numpy as np

from keras_tokenlearner._checks import check_int

# Class names by number of classes: ImageNet-1k, and the 21,843 classes of ImageNet-21k in the order
# of AugReg's checkpoints.
_FILES = {1000: "imagenet_1k.csv", 21843: "imagenet_21k.csv"}


def decode_predictions(
    preds: np.ndarray, top: int = 5, class_names: Sequence[str] | None = None
) -> list[list[tuple[str, str, float]]]:
    """Return the classes with the highest scores, as `keras.applications` does.

    Args:
        preds: Array of shape (B, classes), from `model.predict`.
        top: Integer, number of classes to return for each example.
        class_names: Names of the classes, such as `model.class_names`. Defaults to the names of
            ImageNet-1k for 1,000 classes, and of ImageNet-21k for 21,843 classes.

    Returns:
        For each example, a list of `(id, name, score)`, the highest score first. The id is from
        WordNet for ImageNet, else the number of the class.

    Raises:
        ValueError: If `preds` has another shape, or `top` is not positive. Also if `class_names` is
            needed but missing, or has another length.

    Example:

    >>> scores = np.eye(1000)[[207]]
    >>> decode_predictions(scores, top=1)
    [[('n02099601', 'golden retriever', 1.0)]]

    Source: class names of WordNet 3.0 (Princeton University, its own licence), in the orders of
    timm (Apache-2.0).
    """
    owner = "decode_predictions"
    preds = np.asarray(preds)
    top = check_int(owner, "top", top)
    if preds.ndim != 2:
        raise ValueError(
            f"{owner}: `preds` must have shape (B, classes). Received: shape={preds.shape}"
        )
    classes = preds.shape[1]
    if class_names is not None:
        if len(class_names) != classes:
            raise ValueError(
                f"{owner}: `class_names` must have one name for each of the {classes} "
                f"columns of `preds`. Received: {len(class_names)} names"
            )
        known = [(str(number), str(name)) for number, name in enumerate(class_names)]
    elif classes in _FILES:
        known = _imagenet(classes)
    else:
        raise ValueError(
            f"{owner}: `class_names` is needed unless `preds` has a number of classes in "
            f"{sorted(_FILES)}; pass class_names=model.class_names. "
            f"Received: preds of shape {preds.shape}, class_names=None"
        )
    best = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [
        [(*known[index], float(row[index])) for index in indices]
        for row, indices in zip(preds, best, strict=True)
    ]


def preprocess_input(x: np.ndarray, data_format: str | None = None) -> np.ndarray:
    """Return the pixels unchanged, because the models themselves normalise pixels in [0, 255].

    This function exists for code that was written for `keras.applications`. A model that was built
    with `include_preprocessing=False` takes `(x / 255 - mean) / std`, with the mean and std of
    `model.preprocessing`.

    Args:
        x: Pixels in [0, 255].
        data_format: Ignored.

    Example:

    >>> preprocess_input(np.array([255.0]))
    array([255.])
    """
    del data_format
    return x


@functools.cache
def _imagenet(classes: int) -> list[tuple[str, str]]:
    """Return WordNet's id and the first name of each class."""
    path = resources.files("keras_tokenlearner.presets") / "files" / _FILES[classes]
    rows = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8"), newline=""))
    return [(row["wordnet_id"], row["name"].partition(",")[0]) for row in rows]
