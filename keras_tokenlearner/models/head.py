"""Finds the classifier of a model: its last dense layer, whatever the layer's name."""

import keras
from keras import layers, ops

from keras_tokenlearner.models import names
from keras_tokenlearner.models.features import Call, has_head, with_calls
from keras_tokenlearner.models.last_activation import activation_name, last_activation

_PROBABILITIES = ("softmax", "sigmoid")
# Layers that may follow the last dense layer, and operations of `keras.ops`, by class name.
_BEHIND = (layers.Activation, layers.Softmax, layers.Dropout, layers.Identity)
_FUNCTIONS = ("Softmax", "Sigmoid")


def head_of(model: keras.Model) -> layers.Dense | None:
    """Return the dense layer whose outputs, before its activation, are the logits, or `None`.

    If the model ends in a softmax, a sigmoid or no activation, the result is the last dense layer.
    Only activations of these kinds, dropout and identities may follow this layer. In all other
    cases, the result is the dense layer named `head`. The result is `None` if the model has no
    layer `head`. Also if the outputs of the model or of `head` do not have shape (B, classes).

    Args:
        model: A `keras.Model` with one output.

    Example:

    >>> inputs = keras.Input((4,))
    >>> outputs = keras.layers.Dense(2, activation="softmax", name="mine")(inputs)
    >>> head_of(keras.Model(inputs, outputs)).name
    'mine'
    """
    activation, is_dense = last_activation(model)
    if len(model.output_shape) != 2:  # the outputs are scores of each token, not of each image
        return None
    if activation in _PROBABILITIES or (activation == "linear" and is_dense):
        for operation in reversed(_operations(model)):
            if isinstance(operation, layers.Dense):
                return operation
            if not _may_follow(operation):
                break
    named = model.get_layer(names.HEAD) if has_head(model) else None
    if not isinstance(named, layers.Dense):
        return None
    _, calls = with_calls(model)
    return named if len(calls[named.name].outputs.shape) == 2 else None


def _may_follow(operation: keras.Operation) -> bool:
    """Return whether an operation may be between a head and the outputs."""
    return isinstance(operation, _BEHIND) or type(operation).__name__ in _FUNCTIONS


def _operations(model: keras.Model) -> list[keras.Operation]:
    return getattr(model, "operations", None) or model.layers


def check_head(owner: str, name: str, model: keras.Model) -> layers.Dense | None:
    """Return `head_of(model)`, or raise `ValueError` for probabilities that no head computes.

    Args:
        owner: Name of the function that the user called, for the error message.
        name: Name of the argument, for the error message.
        model: The argument.
    """
    head = head_of(model)
    if head is None and last_activation(model)[0] in _PROBABILITIES:
        raise ValueError(
            f"{owner}: `{name}` must end in a dense layer, then at most an activation and dropout. "
            "Add these layers to the model itself, not to a model inside it. "
            f"Received: {name}={model.name!r}, which ends in {model.layers[-1].name!r}"
        )
    return head


def has_logits(model: keras.Model, head: layers.Dense) -> bool:
    """Return whether `logits_of` returns the logits of the model's probabilities.

    For a head with an activation, `logits_of` computes the outputs again from kernel and bias. The
    logits are then wrong for a quantized head, whose kernel lacks the scales. The logits are also
    wrong for a subclass of `Dense` that computes other outputs. For any head, the logits are wrong
    if another activation, such as a ReLU, precedes the softmax.
    """
    activation, is_dense = last_activation(model)
    if activation_name(head.activation) != "linear":
        is_plain = head.quantization_mode is None and type(head).call is layers.Dense.call
        if not is_plain or (activation in _PROBABILITIES and not is_dense):
            return False
    if activation not in _PROBABILITIES:
        return True
    operations = _operations(model)
    behind = operations[operations.index(head) + 1 :]
    names_behind = [activation_name(x.activation) for x in behind if hasattr(x, "activation")]
    known = set(names_behind) <= {*_PROBABILITIES, "linear"}
    return known and all(map(_may_follow, behind))


def check_logits(owner: str, name: str, model: keras.Model) -> layers.Dense | None:
    """Return the result of `check_head`, or raise `ValueError` if `has_logits` is false."""
    head = check_head(owner, name, model)
    if head is not None and not has_logits(model, head):
        raise ValueError(
            f"{owner}: `{name}` must end in a plain keras.layers.Dense, then at most a softmax or "
            "sigmoid; quantize the model after the training. "
            f"Received: {name}={model.name!r} with the layer {head.name!r}"
        )
    return head


def logits_of(head: layers.Dense, call: Call) -> keras.KerasTensor:
    """Return the outputs of a dense layer before its activation, as a symbolic tensor.

    Args:
        head: The dense layer.
        call: The call of the layer in the model's graph, from `with_calls`.
    """
    if activation_name(head.activation) == "linear":
        return call.outputs
    return PreActivation(head)(call.inputs)


class PreActivation(layers.Layer):
    """Computes the outputs of a dense layer before its activation, with the layer's own weights."""

    def __init__(self, dense: layers.Dense) -> None:
        super().__init__(dtype=dense.dtype_policy, name=f"{dense.name}_pre_activation")
        self.dense = dense

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        outputs = ops.matmul(inputs, self.dense.kernel)
        return outputs if self.dense.bias is None else ops.add(outputs, self.dense.bias)

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return self.dense.compute_output_shape(inputs_shape)
