"""Finds whether a model returns probabilities, logits or features."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import keras
import numpy as np

from keras_tokenlearner._checks import check_choice
from keras_tokenlearner.models.last_activation import last_activation

# Functions from logits to probabilities. "linear" means that outputs are not scores of classes.
ACTIVATIONS = ("softmax", "sigmoid", "linear")

Scored = TypedDict("Scored", {"class": int, "class_name": NotRequired[str], "probability": float})


def classifier_activation_of(
    owner: str, model: keras.Model, classifier_activation: str | None = None
) -> tuple[str, bool]:
    """Return the activation that converts outputs to probabilities, and whether to apply it.

    A model that ends in a softmax or a sigmoid returns probabilities. A model of this package
    without top returns features. A last dense layer without activation may return logits. A last
    dense layer with another activation may return anything. After a dense layer of either kind,
    `classifier_activation` is required.

    Args:
        owner: Name of the function that the user called, for error messages.
        model: A `keras.Model` with one output.
        classifier_activation: `"softmax"` for logits of exclusive classes. `"sigmoid"` for logits
            of several classes per image. `"linear"` for features. `None` for the activation that
            the model ends in.

    Returns:
        A pair: `"softmax"`, `"sigmoid"`, or `"linear"` for features; and whether the caller must
        apply this activation.

    Raises:
        ValueError: If the outputs may be logits and no activation is passed. Also if the passed
            activation differs from the softmax or sigmoid that the model ends in.

    Example:

    >>> model = create_model("vit_pico8", classes=3)
    >>> classifier_activation_of("export", model)
    ('softmax', False)
    """
    if classifier_activation is not None:
        check_choice(owner, "classifier_activation", classifier_activation, ACTIVATIONS)
    own, is_dense = last_activation(model)
    if own in ("softmax", "sigmoid"):
        if classifier_activation not in (None, own):
            raise ValueError(
                f"{owner}: `classifier_activation` must be None or {own!r}, the last activation of "
                f"the model. Received: classifier_activation={classifier_activation!r}"
            )
        return own, False
    is_without_top = getattr(model, "include_top", True) is False
    if classifier_activation is None and is_dense and not is_without_top:
        ending = "logits" if own == "linear" else "an activation other than softmax or sigmoid"
        # Only `export` takes models that return no probabilities.
        others = ", or 'linear' for other outputs" if owner == "export" else ""
        raise ValueError(
            f"{owner}: `classifier_activation` is needed for a model that ends in {ending}. Pass "
            "'softmax' for logits of one class per image, 'sigmoid' for logits of several classes"
            f"{others}. Received: classifier_activation=None, model {model.name!r}"
        )
    chosen = classifier_activation or "linear"
    return chosen, chosen != "linear"


def probabilities(outputs: np.ndarray, activation: str) -> np.ndarray:
    """Return the probabilities for logits, by a softmax or a sigmoid.

    Args:
        outputs: Array of shape (B, classes).
        activation: `"softmax"` or `"sigmoid"`.

    Example:

    >>> probabilities(np.array([[0.0, 0.0]]), "sigmoid").tolist()
    [[0.5, 0.5]]
    """
    logits = np.asarray(outputs, "float64")
    if activation == "sigmoid":
        return (0.5 * (1 + np.tanh(logits / 2))).astype("float32")
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True)).astype("float32")


def best_classes(
    probabilities: np.ndarray, class_names: Sequence[str] | None, top_k: int
) -> list[Scored]:
    """Return the most probable classes, the most probable first.

    Args:
        probabilities: Array of shape (classes,).
        class_names: Names of the classes, or `None`.
        top_k: Integer, number of classes to return.
    """
    found: list[Scored] = []
    for index in np.argsort(-probabilities)[:top_k]:
        number, share = int(index), float(probabilities[index])
        if class_names is None:
            found.append({"class": number, "probability": share})
        else:
            name = class_names[number]
            found.append({"class": number, "class_name": name, "probability": share})
    return found
