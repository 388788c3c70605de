import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_tokenlearner.layers import activations
from tests.layers import helpers
from tests.layers.helpers import close, refused

X = np.linspace(-4, 4, 33).astype("float32")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("gelu_tanh", helpers.gelu_tanh(X)),
        ("gelu", [0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in X]),
        ("quick_gelu", X / (1 + np.exp(-1.702 * X))),
        ("relu", np.maximum(X, 0)),
        (None, X),
    ],
)
def test_activation_of_each_name_equals_its_formula(name, expected):
    activation = activations.get(name)
    close(ops.convert_to_numpy(activation(ops.convert_to_tensor(X))), expected)


@pytest.mark.parametrize("name", ["gelu_tanh", "quick_gelu", "gelu", "relu"])
def test_serialize_of_an_activation_returns_its_name(name):
    assert activations.serialize(activations.get(name)) == name
    assert activations.get(activations.get(name)) is activations.get(name)


def test_activation_of_the_package_in_a_layer_config_is_restored():
    for name in ("gelu_tanh", "quick_gelu"):
        layer = keras.layers.Dense(2, activation=activations.get(name))
        again = keras.layers.Dense.from_config(layer.get_config())
        assert again.activation is activations.get(name)


@pytest.mark.once("torch")
def test_activation_of_an_unknown_name_raises():
    words = ["MLP: `activation`", "activation='gelu_tan'", "Did you mean", "'gelu_tanh'"]
    refused(lambda: activations.get("gelu_tan", "MLP"), *words)
