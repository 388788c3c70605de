"""Inputs and outputs of a served model: TensorFlow functions around an exported model."""

from keras_tokenlearner._extras import require
from keras_tokenlearner.data import resizing
from keras_tokenlearner.serving.decoding import decode_in_graph


def image_signatures(model_function, input_shape, answer):
    """Return the signatures of a model of images, a dictionary from names to functions.

    Args:
        model_function: From float pixels (B, height, width, channels) to outputs.
        input_shape: `(height, width, channels)` of the model.
        answer: From outputs to the dictionary that the client gets.
    """
    tf = require("tensorflow", "tensorflow")
    height, width, channels = input_shape
    fit = resizing(height, width)
    pixels = tf.TensorSpec((None, None, None, channels), tf.uint8, "images")

    @tf.function(autograph=False, input_signature=[pixels])
    def images(images):
        return answer(model_function(fit(tf.cast(images, tf.float32))))

    def decode(content):
        return tf.ensure_shape(
            fit(tf.cast(decode_in_graph(content, channels), tf.float32)), input_shape
        )

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None,), tf.string, "encoded")])
    def encoded(encoded):
        return answer(model_function(tf.map_fn(decode, encoded, fn_output_signature=tf.float32)))

    found = {"images": images, "encoded": encoded, "serving_default": encoded}
    return {**found, "pixels": of_pixels(model_function, input_shape, answer)}


def of_pixels(model_function, input_shape, answer):
    """Return the signature of float pixels of the model's own size, which are not resized."""
    tf = require("tensorflow", "tensorflow")
    specification = tf.TensorSpec((None, *input_shape), tf.float32, "pixels")

    @tf.function(autograph=False, input_signature=[specification])
    def pixels(pixels):
        return answer(model_function(pixels))

    return pixels


def classifier_answer(activation, class_names, top_k):
    """Return a function from the outputs of a classifier to a dictionary for the client.

    Args:
        activation: Function from outputs to probabilities: `"softmax"`, `"sigmoid"`, or `None`
            if the model applies it.
        class_names: Names of the classes, or `None`.
        top_k: Integer, how many of the likeliest classes to answer.
    """
    tf = require("tensorflow", "tensorflow")
    names = None if class_names is None else tf.constant(class_names)
    apply = {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid, None: tf.identity}[activation]

    def answer(outputs):
        probabilities = apply(tf.cast(outputs, tf.float32))  # half precision would tie classes
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


def feature_answer(outputs):
    """Return the outputs of a model without top as a dictionary for the client."""
    tf = require("tensorflow", "tensorflow")
    return {"features": tf.cast(outputs, tf.float32)}


def answer_with_maps(answer):
    """Return a function from the outputs of `with_token_maps` to a dictionary for the client."""
    return lambda found: {**answer(found["outputs"]), "token_maps": found["token_maps"]}
