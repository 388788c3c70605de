"""Finds the classifier of a model: its last dense layer, whatever the layer's name."""

import keras
from keras import layers, ops

from keras_tokenlearner.models import names
from keras_tokenlearner.models.features import has_head
from keras_tokenlearner.models.last_activation import activation_name, last_activation

_PROBABILITIES = ("softmax", "sigmoid")


def head_of(model: keras.Model) -> layers.Dense | None:
    """Return the dense layer whose outputs, before its activation, are the logits, or `None`.

    This is the last dense layer, if the model ends in a softmax, a sigmoid or no activation. A
    dense layer named `head` may have any activation behind it. A quantized layer is a head only if
    its activation is another layer.

    Args:
        model: A `keras.Model` with one output.

    Example:

    >>> inputs = keras.Input((4,))
    >>> outputs = keras.layers.Dense(2, activation="softmax", name="mine")(inputs)
    >>> head_of(keras.Model(inputs, outputs)).name
    'mine'
    """
    activation, is_dense = last_activation(model)
    if len(model.output_shape) != 2:  # scores of each token
        return None
    if activation in _PROBABILITIES or (activation == "linear" and is_dense):
        for operation in reversed(getattr(model, "operations", None) or model.layers):
            if isinstance(operation, layers.Dense):
                is_linear = activation_name(operation.activation) == "linear"
                return operation if is_linear or (is_dense and _is_plain(operation)) else None
            if not _may_follow(operation):
                break
    named = model.get_layer(names.HEAD) if has_head(model) else None
    return named if isinstance(named, layers.Dense) and _is_plain(named) else None


def _is_plain(dense: layers.Dense) -> bool:
    """Return whether the outputs before the activation are a product with `kernel`, plus `bias`."""
    return dense.quantization_mode is None and type(dense).call is layers.Dense.call


def _may_follow(operation: keras.Operation) -> bool:
    """Return whether an operation between a head and the outputs leaves the logits recognisable."""
    if isinstance(operation, layers.Activation):
        return activation_name(operation.activation) in (*_PROBABILITIES, "linear")
    # Layers, and functions of `keras.ops`
    return type(operation).__name__ in ("Softmax", "Sigmoid", "Dropout", "Identity")


def check_head(owner: str, name: str, model: keras.Model) -> layers.Dense | None:
    """Return the result of `head_of`, or raise `ValueError` for probabilities without such a layer.

    Args:
        owner: Name of the function that the user called, for the error message.
        name: Name of the argument, for the error message.
        model: The argument.
    """
    head = head_of(model)
    if head is None and last_activation(model)[0] in _PROBABILITIES:
        raise ValueError(
            f"{owner}: `{name}` must end in a dense layer, then at most an activation and dropout. "
            "Add these layers to the model itself, not to a model inside it. Quantize the model "
            "afterwards. "
            f"Received: {name}={model.name!r}, which ends in {model.layers[-1].name!r}"
        )
    return head


def logits_of(head: layers.Dense) -> keras.KerasTensor:
    """Return the outputs of a dense layer before its activation, as a symbolic tensor."""
    if activation_name(head.activation) == "linear":
        return head.output
    return PreActivation(head)(head.input)


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
