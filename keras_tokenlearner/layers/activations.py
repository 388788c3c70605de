"""Activations by name. Each form of gelu has a name of its own."""

import difflib
from collections.abc import Callable
from typing import TypeAlias

import keras

from keras_tokenlearner._json import JSON

ActivationFunction: TypeAlias = Callable[[keras.KerasTensor], keras.KerasTensor]
Activation: TypeAlias = str | ActivationFunction | None


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
def gelu_tanh(x: keras.KerasTensor) -> keras.KerasTensor:
    """Compute gelu by the tanh approximation, as the JAX ViT, ViViT and TokenLearner do."""
    return keras.activations.gelu(x, approximate=True)


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
def quick_gelu(x: keras.KerasTensor) -> keras.KerasTensor:
    """Compute gelu by the sigmoid approximation, `x * sigmoid(1.702 * x)`, as CLIP does."""
    return x * keras.ops.sigmoid(1.702 * x)


_OWN = {"gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu}


def get(identifier: Activation | dict[str, JSON], owner: str = "activations") -> ActivationFunction:
    """Return the activation function for a name or config, as `keras.activations.get` does.

    Args:
        identifier: `"gelu_tanh"`, `"quick_gelu"`, a name or config of Keras, a callable, or `None`
            for the identity. Keras's `"gelu"` is the exact erf form.
        owner: Name of the caller, for the error message.

    Raises:
        ValueError: If the name is unknown.
    """
    if isinstance(identifier, str) and identifier in _OWN:
        return _OWN[identifier]
    try:
        return keras.activations.get(identifier)
    except ValueError as error:
        near = difflib.get_close_matches(str(identifier), [*_OWN, *dir(keras.activations)], n=3)
        hint = f" Did you mean {' or '.join(repr(match) for match in near)}?" if near else ""
        raise ValueError(
            f"{owner}: `activation` must be one of {list(_OWN)}, a name or config of "
            "keras.activations, a callable, or None. "
            f"Received: activation={identifier!r}.{hint}"
        ) from error


def serialize(activation: ActivationFunction) -> str | dict[str, JSON]:
    """Return the name or config from which `get` returns an activation function."""
    for name, function in _OWN.items():
        if activation is function:
            return name
    return keras.activations.serialize(activation)
