import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from keras_tokenlearner._checks import check_labels, check_model, check_positive, check_vectors
from keras_tokenlearner._json import JSON
from keras_tokenlearner.evaluation.few_shot import ridge
from keras_tokenlearner.models import VisionTransformer, names
from keras_tokenlearner.models.features import with_plain_output
from keras_tokenlearner.models.retrofit import weights_problem
from keras_tokenlearner.models.state import set_weights
from keras_tokenlearner.models.vision_model import settings_of, values_of


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
            `include_top=False, pooling="token"`. This model stays unchanged.
        images: Array of images or videos, as the model takes them.
        labels: Integers from 0 to the number of classes minus 1, one for each image.
        l2: Float, weight of the penalty.
        batch_size: Integer, images per batch.
        name: Name of the new model. Defaults to the model's name.

    Returns:
        A model with the same input and the layers `head` and `predictions`, a softmax. For a
        `VisionTransformer`, the result is a `VisionTransformer` with top, copies of the weights and
        the same `preprocessing`. Otherwise, or with LoRA weights or quantized weights, the result
        is a `keras.Model` that shares the layers of `model`. `keras.Model` has no `preprocessing`:
        `evaluate` then resizes images as `ImageBatches` does by default.

    Raises:
        ValueError: If the outputs of the model do not have shape (B, C). Also if labels are not
            integers, one for each image, or `l2` is not positive.

    Example:

    >>> model = create_model("vit_pico8", include_top=False, pooling="avg")
    >>> teacher = linear_probe(model, np.random.rand(8, 32, 32, 3) * 255, np.arange(8) % 2)
    >>> teacher.output_shape
    (None, 2)

    Source: the protocol of section 3.4 of the paper, with all training images.
    """
    model = with_plain_output(check_model("linear_probe", "model", model, single=True))
    check_positive("linear_probe", "l2", l2)
    check_vectors("linear_probe", "model", model)
    labels = check_labels("linear_probe", "labels", labels, len(images))
    classes = int(labels.max()) + 1
    probe = _with_top(model, classes, name or model.name)
    features = model.predict(images, batch_size=batch_size, verbose=0)
    kernel, bias = ridge(features, labels, classes, l2)
    scale = _calibration(np.asarray(features, "float64") @ kernel + bias, labels)
    probe.get_layer(names.HEAD).set_weights([scale * kernel, scale * bias])
    return probe


def _with_top(model: keras.Model, classes: int, name: str) -> keras.Model:
    """Return a classifier on the features of a model, with a new head."""
    if not isinstance(model, VisionTransformer) or model.include_top or weights_problem(model):
        logits = keras.layers.Dense(classes, name=names.HEAD)(model.outputs[0])
        softmax = keras.layers.Activation("softmax", dtype="float32", name=names.PREDICTIONS)
        return keras.Model(model.inputs[0], softmax(logits), name=name)
    config = dataclasses.replace(model.config, head_bias=True)
    if model.pooling != "head":  # the head reads the pooled features themselves
        reads = {"token": None, "avg": "average"}.get(model.pooling or "", model.pooling)
        config = dataclasses.replace(
            config,
            head_reads=reads,
            pre_logits=None,
            pool_prefix=config.pool_prefix and reads is not None,  # the class token needs no pool
            pooling_num_heads=None,
            pooling_mlp_dim=None,
        )
    top: dict[str, JSON] = {
        "config": values_of(config),
        "trainable": True,  # for the head; "frozen" lists the frozen layers
        "include_top": True,
        "pooling": None,
        "classes": classes,
        "classifier_activation": "softmax",
        "name": name,
    }
    probe = VisionTransformer.from_config({**settings_of(model, VisionTransformer), **top})
    for layer in model.layers:
        if layer.weights:
            set_weights(probe.get_layer(layer.name), layer.get_weights())
    return probe


def _calibration(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the factor of the logits with the smallest cross-entropy, accurate to 10%."""
    rows = np.arange(len(labels))

    def entropy(scale: float) -> float:
        scaled = scale * (logits - logits.max(1, keepdims=True))
        return float(np.mean(np.log(np.exp(scaled).sum(1)) - scaled[rows, labels]))

    return min(np.geomspace(0.1, 1000, 97), key=entropy)
