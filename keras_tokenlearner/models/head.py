"""The classifier at the end of a model: its layer `head`, and the parts of the model around it."""

import keras

from keras_tokenlearner.models.names import HEAD


def has_head(model: keras.Model) -> bool:
    """Return whether a model has a layer `head`."""
    return any(layer.name == HEAD for layer in model.layers)


def before_head(model: keras.Model) -> keras.Model:
    """Return the part of a model before its head, or the whole model without a head."""
    return keras.Model(model.input, model.get_layer(HEAD).input) if has_head(model) else model


def before_softmax(model: keras.Model) -> keras.Model:
    """Return the part of a model up to its logits, or the whole model without a head."""
    return keras.Model(model.input, model.get_layer(HEAD).output) if has_head(model) else model
