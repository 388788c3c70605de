"""Finds the last activation of a model."""

import keras
from keras import layers

from keras_tokenlearner.layers.activations import Activation
from keras_tokenlearner.models.features import Call, with_calls

_KNOWN = ("Softmax", "Sigmoid")  # class names of layers, and of operations of `keras.ops`


def last_activation(model: keras.Model) -> tuple[str | None, bool]:
    """Return the name of a model's last activation, and whether a dense layer applies it.

    The name is `"softmax"`, `"sigmoid"` or `"linear"`, or `None` for any other last operation.
    The activation may be a layer, a function of `keras.ops`, or part of a nested model.
    `("linear", True)` means that the outputs are logits.

    Args:
        model: A `keras.Model` with one output.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.Softmax()])
    >>> last_activation(model)
    ('softmax', False)
    """
    operation = last_operation(model)
    calls: dict[str, Call] = {}
    while operation is not None:
        kind = type(operation).__name__
        if isinstance(operation, keras.Model):
            return last_activation(operation)
        if kind in _KNOWN:
            return kind.lower(), False
        if isinstance(operation, (layers.Activation, layers.Dense)):
            name = activation_name(operation.activation)
            if name != "linear" or isinstance(operation, layers.Dense):
                return name, isinstance(operation, layers.Dense)
        elif not isinstance(operation, (layers.Dropout, layers.Identity)):
            return None, False
        operation = _before(model, operation, calls)
    return None, False


def last_operation(model: keras.Model) -> keras.Operation | None:
    """Return the last operation of a model: a layer or a function of `keras.ops`."""
    operations = getattr(model, "operations", None) or model.layers
    return operations[-1] if operations else None


def _before(
    model: keras.Model, operation: keras.Operation, calls: dict[str, Call]
) -> keras.Operation | None:
    """Return the operation before `operation`, or `None` if `operation` has several inputs.

    The first search that needs the calls of the model adds them to `calls`.
    """
    operations = getattr(model, "operations", None) or model.layers
    try:
        wanted = operation.input
        outputs = {found.name: found.output for found in operations}
        if not any(found is wanted for found in outputs.values()):
            # A layer was called several times: `input` and `output` are tensors of its first call.
            if not calls:
                calls.update(with_calls(model)[1])
            wanted = calls[operation.name].inputs
            outputs = {name: call.outputs for name, call in calls.items()}
        return next(found for found in operations if outputs.get(found.name) is wanted)
    except (AttributeError, StopIteration, ValueError):
        return None


def activation_name(activation: Activation) -> str | None:
    """Return `"softmax"`, `"sigmoid"` or `"linear"`, or `None` for other activations."""
    if isinstance(activation, layers.Activation):
        return activation_name(activation.activation)
    if isinstance(activation, layers.Identity):
        return "linear"
    if isinstance(activation, layers.Layer):
        name = type(activation).__name__
        return name.lower() if name in _KNOWN else None
    for name in ("softmax", "sigmoid", "linear"):
        if activation in (keras.activations.get(name), getattr(keras.ops, name, None)):
            return name
    return None
