"""Gives a model a uint8 input and named outputs, for formats with a fixed input size."""

import keras
from keras import ops

from keras_tokenlearner.analysis import with_token_maps
from keras_tokenlearner.serving.metadata import Options


def pixels_model(model: keras.Model, options: Options) -> keras.Model:
    """Return a model that maps uint8 pixels of the input size of `model` to named outputs.

    The input of the new model is `images`. A classifier returns `probabilities`, `top_classes` and
    `top_probabilities`. Other models return `features`. If requested, `token_maps` are added.

    Args:
        model: A `keras.Model` of images or videos.
        options: Checked arguments of `export`.

    Example:

    >>> model = create_model("vit_pico8", classes=3, input_shape=(32, 32, 3))
    >>> options = {"activation": "softmax", "is_applied": False, "top_k": 2, "return_maps": False}
    >>> list(pixels_model(model, options).output)
    ['probabilities', 'top_classes', 'top_probabilities']
    """
    images = keras.Input(model.input_shape[1:], dtype="uint8", name="images")
    served = with_token_maps(model) if options["return_maps"] else model
    found = served(ops.cast(images, "float32"))
    outputs = ops.cast(found["outputs"] if options["return_maps"] else found, "float32")
    answers = {"features": outputs}
    if options["activation"] != "linear":
        if options["is_applied"]:
            outputs = {"softmax": ops.softmax, "sigmoid": ops.sigmoid}[options["activation"]](
                outputs
            )
        top = ops.top_k(outputs, min(options["top_k"], model.output_shape[-1]))
        answers = {
            "probabilities": outputs,
            "top_classes": ops.cast(top[1], "int32"),
            "top_probabilities": top[0],
        }
    if options["return_maps"]:
        answers["token_maps"] = ops.cast(found["token_maps"], "float32")
    return keras.Model(images, answers)
