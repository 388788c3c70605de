"""Weight decay and its exclusions, also after loading, and arguments out of range."""

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, layers
from keras_tokenlearner.training.optimizers import adamw, adamw_linear, muon, sgd
from tests.layers.helpers import refused

KINDS = {
    "adamw": lambda **kwargs: adamw(0.1, 10**6, **kwargs),
    "adamw_linear": lambda **kwargs: adamw_linear(0.1, 10**6, **kwargs),
    "muon": lambda **kwargs: muon(0.1, 10**6, **kwargs),
    "sgd": lambda **kwargs: sgd(0.1, 10**6, **kwargs),
}


def _model(optimizer):
    """Return a compiled model with a matrix, biases and a norm in a block."""
    x = inputs = keras.Input((4,))
    for layer in (
        keras.layers.Dense(4, name="block_0"),
        keras.layers.LayerNormalization(name="norm"),
        keras.layers.Dense(2, name="head"),
    ):
        x = layer(x)
    model = keras.Model(inputs, x)
    model.compile(optimizer, "mse", jit_compile=False)
    return model


def _decayed(model):
    """Return the share of each variable that remains after a step without gradients."""
    for variable in model.trainable_variables:
        variable.assign(keras.ops.ones(variable.shape))
    for variable in model.optimizer.variables:
        if variable.path.split("/")[-1] != "iteration":  # the moments would move variables
            variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
    gradients = [keras.ops.zeros(variable.shape) for variable in model.trainable_variables]
    model.optimizer.apply(gradients, model.trainable_variables)
    values = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    return {v.path: x.mean() for v, x in zip(model.trainable_variables, values, strict=True)}


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_weight_decay_of_a_loaded_optimizer_spares_the_same_variables(kind, layer_decay, tmp_path):
    model = _model(KINDS[kind](layer_decay=layer_decay, weight_decay=0.5))
    model.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        one, other = (keras.ops.convert_to_numpy(x) for x in (one, other))
        np.testing.assert_array_equal(one, other)
    expected, found = _decayed(model), _decayed(loaded)
    assert found == pytest.approx(expected, abs=1e-7)
    for path, left in found.items():
        spared = path.split("/")[-1] != "kernel"
        below = 0.5 if path.startswith("block_0") and layer_decay != 1 else 1.0
        rate = 0.0 if spared else 0.1 * below * 0.5
        assert left == pytest.approx(1 - rate, abs=1e-5), path


@pytest.mark.parametrize(
    ("kind", "argument", "value"),
    [
        *((kind, "weight_decay", -1) for kind in KINDS),
        *((kind, "warmup_steps", -1) for kind in KINDS),
        *((kind, "layer_decay", 1.5) for kind in KINDS),
        *(("adamw", "layer_decay", value) for value in (0, "0.5", True, float("nan"))),
        ("adamw", "weight_decay", float("inf")),
        ("adamw", "global_clipnorm", 0.0),
        ("sgd", "global_clipnorm", float("nan")),
    ],
)
def test_optimizer_argument_out_of_range_raises(kind, argument, value):
    refused(lambda: KINDS[kind](**{argument: value}), argument, repr(value))


@pytest.mark.parametrize("value", [0, -0.1, float("nan"), float("inf"), "0.1", True])
def test_learning_rate_out_of_range_raises(value):
    for make in (adamw, adamw_linear, muon, sgd):
        refused(lambda make=make: make(value, 10), f"learning_rate={value!r}")


@pytest.mark.once("torch")
def test_muon_orthogonalises_kernels_and_attention_biases_only():
    prefix = {"class_token": True, "register_tokens": 2, "head_reads": "attention"}
    model = create_model("vit_pico8", classes=10, **prefix)
    prior = layers.PriorAttention()
    prior.build((None, 4, 8))
    variables = [*model.trainable_variables, *prior.trainable_variables]
    ends = ("class_token/tokens", "register_tokens/tokens", "/latent", "/prior_table")
    for end in ends:
        assert any(v.path.endswith(end) and len(v.shape) == 2 for v in variables), end
    optimizer = muon(1e-3, 10)
    optimizer.build(variables)
    by_adam = {variable.name for variable in optimizer.variables}
    found = [v for v in variables if f"{v.path.replace('/', '_')}_velocity" not in by_adam]
    assert len(found) > 10
    for variable in found:
        assert variable.path.endswith(("/kernel", "query/bias", "key/bias", "value/bias"))
