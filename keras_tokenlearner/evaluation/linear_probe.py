from collections.abc import Sequence

import keras
import numpy as np

from keras_tokenlearner._checks import check_labels, check_model, check_positive
from keras_tokenlearner.evaluation.few_shot import ridge
from keras_tokenlearner.models import names


def linear_probe(
    model: keras.Model,
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    l2: float = 2.0**10,
    batch_size: int = 32,
    name: str | None = None,
) -> keras.Model:
    """Add a linear classifier to a model that returns features, for example to make a teacher.

    Ridge regression maps the features to one target per class, -1 or +1, as `few_shot` does with a
    few images. Then one factor scales the logits, to minimise the cross-entropy on the same images.
    This factor calibrates the softmax.

    Args:
        model: A `keras.Model` that returns features, (B, C), for example built with
            `include_top=False, pooling="token"`. This model stays unchanged and shares its
            layers with the new model.
        images: Array of images or videos, as the model takes them.
        labels: Integers from 0 to the number of classes minus 1, one for each image.
        l2: Float, weight of the penalty.
        batch_size: Integer, images per batch.
        name: Name of the new model. Defaults to the model's name.

    Returns:
        A `keras.Model` of the same input, with the layers `head` and `predictions`, a softmax.

    Raises:
        ValueError: If the outputs of the model do not have shape (B, C). Also if labels are not
            integers, one for each image.

    Example:

    >>> model = create_model("vit_pico8", include_top=False, pooling="avg")
    >>> teacher = linear_probe(model, np.random.rand(8, 32, 32, 3) * 255, np.arange(8) % 2)
    >>> teacher.output_shape
    (None, 2)

    Source: the protocol of section 3.4 of the paper, with all training images.
    """
    check_model("linear_probe", "model", model, single=True)
    check_positive("linear_probe", "l2", l2)
    if len(model.output_shape) != 2:
        raise ValueError(
            "linear_probe: `model` must return features of shape (B, C), as with "
            "include_top=False and pooling='avg' or 'token'. Received: outputs of shape "
            f"{model.output_shape}"
        )
    labels = check_labels("linear_probe", "labels", labels, len(images))
    features = model.predict(images, batch_size=batch_size, verbose=0)
    kernel, bias = ridge(features, labels, int(labels.max()) + 1, l2)
    scale = _calibration(np.asarray(features, "float64") @ kernel + bias, labels)
    head = keras.layers.Dense(len(bias), name=names.HEAD)
    logits = head(model.outputs[0])
    head.set_weights([scale * kernel, scale * bias])
    outputs = keras.layers.Activation("softmax", dtype="float32", name=names.PREDICTIONS)(logits)
    return keras.Model(model.inputs[0], outputs, name=name or model.name)


def _calibration(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the factor of the logits with the smallest cross-entropy, accurate to 10%."""
    rows = np.arange(len(labels))

    def entropy(scale: float) -> float:
        scaled = scale * (logits - logits.max(1, keepdims=True))
        return float(np.mean(np.log(np.exp(scaled).sum(1)) - scaled[rows, labels]))

    return min(np.geomspace(0.1, 1000, 97), key=entropy)
