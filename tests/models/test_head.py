"""`head_of` finds the layer whose outputs, before its activation, are the logits of a model."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tokenlearner.models.features import with_calls
from keras_tokenlearner.models.head import check_logits, has_logits, head_of, logits_of
from keras_tokenlearner.models.last_activation import last_activation


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
    copy, calls = with_calls(model)
    logits = keras.Model(copy.inputs[0], logits_of(head, calls["mine"])).predict(x, verbose=0)
    found = keras.ops.convert_to_numpy(getattr(keras.ops, activation)(logits))
    np.testing.assert_allclose(found, model.predict(x, verbose=0), atol=1e-6)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("last", "has_head"),
    [
        (lambda: [layers.Dense(3, "relu"), layers.Softmax()], True),
        (lambda: [layers.Dense(3), layers.Activation("relu"), layers.Softmax()], True),
        (lambda: [layers.Dense(3, name="head"), layers.ReLU(), layers.Softmax()], True),
        (lambda: [Doubled(3, activation="softmax")], True),
        (lambda: [model_of(layers.Dense(3, "softmax"))], False),
    ],
    ids=["relu in dense", "relu layer", "relu after head", "dense subclass", "nested model"],
)
def test_check_logits_of_a_model_where_no_layer_outputs_the_logits_raises(last, has_head):
    model = model_of(*last())
    head = head_of(model)
    assert (head is not None) == has_head and not (has_head and has_logits(model, head))
    with pytest.raises(ValueError, match="distill: `teacher` .*teacher="):
        check_logits("distill", "teacher", model)


@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_logits_of_a_quantized_dense_layer_are_known_only_without_its_own_activation():
    """The kernel of a quantized layer lacks its scales, which differ by class."""
    fused, separate = (
        model_of(layers.Dense(3, activation="softmax")),
        model_of(layers.Dense(3), layers.Softmax()),
    )
    for model in (fused, separate):
        model.quantize("int8")
        assert head_of(model) is model.layers[0]
    assert not has_logits(fused, fused.layers[0])
    assert has_logits(separate, separate.layers[0])


@pytest.mark.once("torch")
def test_dense_layer_named_head_before_a_pooling_of_tokens_is_no_head():
    tokens = keras.Input((5, 4))
    each = layers.Dense(3, name="head")(tokens)
    assert head_of(keras.Model(tokens, layers.GlobalAveragePooling1D()(each))) is None


@pytest.mark.once("torch")
def test_head_before_a_subclass_of_dropout_is_found():
    class Noise(layers.Dropout):
        """A dropout with a name of its own."""

    model = model_of(layers.Dense(3, name="mine"), Noise(0.1))
    assert check_logits("distill", "teacher", model).name == "mine"


@pytest.mark.once("torch")
@pytest.mark.parametrize("activation", ["linear", "softmax"])
def test_head_shared_by_two_models_is_found_before_the_activation_of_each_model(activation):
    inputs, head = keras.Input((4,)), layers.Dense(3, name="mine")
    for _ in range(2):
        same = layers.Activation("linear", dtype="float32")
        model = keras.Model(
            inputs, same(layers.Activation(activation)(head(layers.ReLU()(inputs))))
        )
        assert last_activation(model) == (activation, activation == "linear")
        assert head_of(model) is head


@pytest.mark.once("torch")
def test_head_of_ignores_an_earlier_call_of_the_head_on_tokens_outside_the_model():
    tokens, vector, head = keras.Input((5, 4)), keras.Input((4,)), layers.Dense(3, name="head")
    head(tokens)
    assert head_of(keras.Model(vector, layers.ReLU()(head(vector)))) is head


@pytest.mark.once("torch")
def test_last_activation_of_a_head_before_two_shared_layers_calls_the_head_once_more():
    other, inputs, head = keras.Input((3,)), keras.Input((4,)), layers.Dense(3)
    shared = [layers.Dropout(0.5), layers.Dropout(0.5)]
    x = head(inputs)
    for layer in shared:
        layer(other)
        x = layer(x)
    assert last_activation(keras.Model(inputs, x)) == ("linear", True)
    assert len(head._inbound_nodes) == 2
