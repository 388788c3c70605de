"""The classifier at the end of a model: its layer `head`, and the parts of the model around it."""

import keras


def has_head(model):
    """Return whether a model has a layer `head`."""
    return any(layer.name == "head" for layer in model.layers)


def before_head(model):
    """Return the part of a model that gives what its head reads; all of one without a head."""
    return keras.Model(model.input, model.get_layer("head").input) if has_head(model) else model


def before_softmax(model):
    """Return the part of a model that gives its head's logits; all of one without a head."""
    return keras.Model(model.input, model.get_layer("head").output) if has_head(model) else model
