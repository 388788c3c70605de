import numpy as np
import pytest

from keras_tokenlearner.analysis.costs import count
from keras_tokenlearner.layers import MLP
from tests.conformance import array
from tests.layers import helpers
from tests.layers.helpers import close, random_layer, refused, run


@pytest.mark.parametrize("shape", [(2, 8), (2, 5, 8), (2, 4, 6, 8)], ids=str)
@pytest.mark.parametrize("output_dim", [None, 3])
def test_mlp_equals_two_dense_layers(shape, output_dim):
    x = array(shape, 0)
    layer = random_layer(MLP(12, output_dim), shape)
    y = run(layer, x)
    close(y, helpers.mlp(x, *layer.get_weights()))
    assert y.shape == (*shape[:-1], output_dim or 8)


def test_mlp_gate_multiplies_the_hidden_units():
    """A gated MLP with SiLU equals SwiGLU. Its cost equals a manual count."""
    x = array((2, 5, 8), 0)
    layer = random_layer(MLP(12, activation="silu", gated=True), x.shape)
    names = ("hidden", "gate", "output_dense")
    (w, b), (w_gate, b_gate), (w_out, b_out) = (getattr(layer, n).get_weights() for n in names)
    gate = x @ w_gate + b_gate
    close(run(layer, x), (gate / (1 + np.exp(-gate)) * (x @ w + b)) @ w_out + b_out)
    cost = count(layer, (5, 8))
    assert cost.macs == 5 * 8 * 12 * 3
    assert cost.elementwise == 5 * (12 + 12 + 8 + 4 * 12 + 12)  # biases, silu, product


def test_mlp_dropout_follows_each_dense_layer():
    x = np.ones((1, 8), "float32")
    layer = random_layer(MLP(64, 64, dropout_rate=0.5), x.shape)
    plain, dropped = run(layer, x), run(layer, x, training=True)
    assert 0.2 < (dropped == 0).mean() < 0.8
    kept = dropped != 0
    assert not np.allclose(dropped[kept], 2 * plain[kept])  # hidden units were dropped as well
    close(run(layer, x, training=False), plain)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"mlp_dim": 0}, ["mlp_dim=0"]),
        ({"output_dim": 0}, ["output_dim=0"]),
        ({"dropout_rate": 2}, ["dropout_rate=2", "[0, 1)"]),
        ({"gated": "silu"}, ["gated='silu'"]),
        ({"activation": "relo"}, ["activation='relo'", "'relu'"]),
    ],
    ids=str,
)
def test_mlp_with_wrong_arguments_raises(arguments, words):
    refused(lambda: MLP(**{"mlp_dim": 8, **arguments}), "MLP", "Received: ", *words)


@pytest.mark.once("torch")
def test_mlp_of_unknown_channels_raises():
    refused(lambda: MLP(8).build((2, None)), "MLP", "shape=(2, None)")


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_mlp_inner_norm_precedes_the_last_layer_and_biases_are_optional(norm):
    x = array((2, 5, 8), 0)
    layer = MLP(12, activation="silu", gated=True, use_bias=False, inner_norm=norm)
    random_layer(layer, x.shape)
    (hidden,), (gate,) = layer.hidden.get_weights(), layer.gate.get_weights()
    units = x @ gate / (1 + np.exp(-x @ gate)) * (x @ hidden)
    if norm == "layer_norm":
        units = helpers.layer_norm(units, *layer.norm.get_weights())
    else:
        units = helpers.rms_norm(units, *layer.norm.get_weights())
    (output,) = layer.output_dense.get_weights()
    close(run(layer, x), units @ output)
    elementwise = 5 * 12 * (4 + 1 + {"layer_norm": 7, "rms_norm": 4}[norm])
    assert count(layer, (5, 8)).elementwise == elementwise
