"""TensorFlow functions for the signatures of a SavedModel of images."""

from typing import TYPE_CHECKING, TypeVar

from keras_tokenlearner._extras import require
from keras_tokenlearner.data import resizing
from keras_tokenlearner.data.preprocessing import fill_colour, target_size
from keras_tokenlearner.serving.decoding import decode_in_graph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tensorflow import Tensor
    from tensorflow.types.experimental import PolymorphicFunction

    from keras_tokenlearner.models import Preprocessing

Outputs = TypeVar("Outputs")


def image_signatures(
    model_function: "Callable[[Tensor], Outputs]",
    input_shape: tuple[int, int, int],
    answer: "Callable[[Outputs], dict[str, Tensor]]",
    preprocessing: "Preprocessing | None" = None,
) -> "dict[str, PolymorphicFunction]":
    """Return the signatures of an image model, a dictionary from names to functions.

    Args:
        model_function: Function from float pixels (B, height, width, channels) to outputs.
        input_shape: `(height, width, channels)` of the model.
        answer: Function from outputs of the model to the outputs of a signature, a dictionary.
        preprocessing: The `Preprocessing` for resizing; `None` for the layer of `data.resizing`.
    """
    tf = require("tensorflow", "tensorflow")
    height, width, channels = input_shape
    fit = resizing(height, width)
    if preprocessing is not None:
        fit = resizing_of_checkpoint(input_shape, preprocessing)
    pixels = tf.TensorSpec((None, None, None, channels), tf.uint8, "images")

    @tf.function(autograph=False, input_signature=[pixels])
    def images(images: "Tensor") -> "dict[str, Tensor]":
        return answer(model_function(fit(tf.cast(images, tf.float32))))

    def decode(content: "Tensor") -> "Tensor":
        return tf.ensure_shape(
            fit(tf.cast(decode_in_graph(content, channels), tf.float32)), input_shape
        )

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None,), tf.string, "encoded")])
    def encoded(encoded: "Tensor") -> "dict[str, Tensor]":
        return answer(model_function(tf.map_fn(decode, encoded, fn_output_signature=tf.float32)))

    found = {"images": images, "encoded": encoded, "serving_default": encoded}
    return {**found, "pixels": of_pixels(model_function, input_shape, answer)}


def resizing_of_checkpoint(
    input_shape: tuple[int, int, int], preprocessing: "Preprocessing"
) -> "Callable[[Tensor], Tensor]":
    """Return `preprocess_image` as a TensorFlow function of one image or a batch.

    Args:
        input_shape: `(height, width, channels)` of the result.
        preprocessing: The `Preprocessing` of the checkpoint.
    """
    tf = require("tensorflow", "tensorflow")
    *input_size, channels = input_shape
    target = target_size(input_size, preprocessing)
    fill = tf.constant(fill_colour(preprocessing, channels), tf.float32)
    method = {"lanczos": "lanczos3"}.get(preprocessing.interpolation, preprocessing.interpolation)

    def resized_size(size: "Tensor") -> "Tensor":
        if preprocessing.resize_mode == "squash":
            return tf.constant(target, tf.int32)
        if preprocessing.resize_mode == "shortest" and target[0] == target[1]:
            return target[0] * size // tf.reduce_min(size)
        edges = tf.cast(size, tf.float64)
        ratios = edges / tf.constant(target, tf.float64)
        shortest = preprocessing.resize_mode == "shortest"
        ratio = tf.reduce_min(ratios) if shortest else tf.reduce_max(ratios)
        return tf.cast(tf.maximum(tf.round(edges / ratio), 1), tf.int32)

    def fit(pixels: "Tensor") -> "Tensor":
        old = tf.shape(pixels)[-3:-1]
        size = resized_size(old)
        # Pillow resizes the width first, then the height. It rounds after each step.
        for step in (tf.stack([old[0], size[1]]), size):
            pixels = tf.image.resize(pixels, step, method, antialias=True)
            pixels = tf.clip_by_value(tf.round(pixels), 0, 255)
        missing = tf.maximum(tf.constant(input_size) - size, 0)
        before = missing // 2
        paddings = tf.stack([before, missing - before], axis=1)
        around = tf.zeros((len(pixels.shape) - 3, 2), tf.int32), tf.zeros((1, 2), tf.int32)
        paddings = tf.concat([around[0], paddings, around[1]], axis=0)
        pixels = tf.pad(pixels - fill, paddings) + fill
        spare = tf.cast(tf.maximum(size, input_size) - tf.constant(input_size), tf.float64)
        top, left = tf.unstack(tf.cast(tf.round(spare / 2), tf.int32))
        height, width = input_size
        return pixels[..., top : top + height, left : left + width, :]

    return fit


def of_pixels(
    model_function: "Callable[[Tensor], Outputs]",
    input_shape: tuple[int, ...],
    answer: "Callable[[Outputs], dict[str, Tensor]]",
) -> "PolymorphicFunction":
    """Return the signature `pixels`, which takes float pixels of the model's input size."""
    tf = require("tensorflow", "tensorflow")
    specification = tf.TensorSpec((None, *input_shape), tf.float32, "pixels")

    @tf.function(autograph=False, input_signature=[specification])
    def pixels(pixels: "Tensor") -> "dict[str, Tensor]":
        return answer(model_function(pixels))

    return pixels


def classifier_answer(
    activation: str | None, class_names: "Sequence[str] | None", top_k: int
) -> "Callable[[Tensor], dict[str, Tensor]]":
    """Return a function from the outputs of a classifier to the outputs of a signature.

    Args:
        activation: Function from outputs to probabilities: `"softmax"`, `"sigmoid"`, or `None` if
            the model applies the activation.
        class_names: Names of the classes, or `None`.
        top_k: Integer, number of the most probable classes to return.
    """
    tf = require("tensorflow", "tensorflow")
    names = None if class_names is None else tf.constant(class_names)
    apply = {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid, None: tf.identity}[activation]

    def answer(outputs: "Tensor") -> "dict[str, Tensor]":
        probabilities = apply(tf.cast(outputs, tf.float32))  # half precision would cause ties
        top_probabilities, top_classes = tf.math.top_k(probabilities, top_k)
        found = {
            "probabilities": probabilities,
            "top_classes": top_classes,
            "top_probabilities": top_probabilities,
        }
        return (
            found if names is None else {**found, "top_class_names": tf.gather(names, top_classes)}
        )

    return answer


def feature_answer(outputs: "Tensor") -> "dict[str, Tensor]":
    """Return the outputs of a signature for a model without top."""
    tf = require("tensorflow", "tensorflow")
    return {"features": tf.cast(outputs, tf.float32)}


def answer_with_maps(
    answer: "Callable[[Tensor], dict[str, Tensor]]",
) -> "Callable[[Mapping[str, Tensor]], dict[str, Tensor]]":
    """Return a function from the outputs of `with_token_maps` to the outputs of a signature."""
    return lambda found: {**answer(found["outputs"]), "token_maps": found["token_maps"]}
