"""`head_of` finds the layer whose outputs, before its activation, are the logits of a model."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tokenlearner.models.head import check_head, head_of, logits_of


class Doubled(layers.Dense):
    """A dense layer whose outputs are not the product with its kernel."""

    def call(self, inputs):
        return 2 * super().call(inputs)


def model_of(*behind):
    return keras.Sequential([keras.Input((4,)), *behind])


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("form", ["fused", "layer", "dropout"])
def test_logits_of_a_head_give_the_outputs_after_its_activation(form, activation):
    last = {
        "fused": [layers.Dense(3, activation=activation, name="mine")],
        "layer": [layers.Dense(3, name="mine"), layers.Activation(activation)],
        "dropout": [layers.Dense(3, activation=activation, name="mine"), layers.Dropout(0.5)],
    }
    model = model_of(layers.Dense(5, "relu"), *last[form])
    head = head_of(model)
    assert head.name == "mine"
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    logits = keras.Model(model.inputs[0], logits_of(head)).predict(x, verbose=0)
    found = keras.ops.convert_to_numpy(getattr(keras.ops, activation)(logits))
    np.testing.assert_allclose(found, model.predict(x, verbose=0), atol=1e-6)


@pytest.mark.parametrize(
    "last",
    [
        lambda: [layers.Dense(3, "relu"), layers.Softmax()],
        lambda: [layers.Dense(3), layers.Activation("relu"), layers.Softmax()],
        lambda: [Doubled(3, activation="softmax")],
        lambda: [model_of(layers.Dense(3, "softmax"))],
    ],
)
def test_probabilities_without_recognisable_logits_raise(last):
    model = model_of(*last())
    assert head_of(model) is None
    with pytest.raises(ValueError, match="distill: `teacher` .*teacher="):
        check_head("distill", "teacher", model)


@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_quantized_dense_layer_is_a_head_only_without_its_own_activation():
    """The kernel of a quantized layer lacks its scales, which differ by class."""
    fused, separate = (
        model_of(layers.Dense(3, activation="softmax")),
        model_of(layers.Dense(3), layers.Softmax()),
    )
    for model in (fused, separate):
        model.quantize("int8")
    assert head_of(fused) is None
    assert head_of(separate) is separate.layers[0]
