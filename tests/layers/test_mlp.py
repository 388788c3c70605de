import numpy as np
import pytest

from keras_tokenlearner.layers import MLP
from tests.conformance import array
from tests.layers import helpers
from tests.layers.helpers import close, random_layer, refused, run


@pytest.mark.parametrize("shape", [(2, 8), (2, 5, 8), (2, 4, 6, 8)])
@pytest.mark.parametrize("output_dim", [None, 3])
def test_is_two_dense_layers(shape, output_dim):
    x = array(shape, 0)
    layer = random_layer(MLP(12, output_dim), shape)
    y = run(layer, x)
    close(y, helpers.mlp(x, *layer.get_weights()))
    assert y.shape == (*shape[:-1], output_dim or 8)


def test_dropout_is_after_each_dense_layer():
    x = np.ones((1, 8), "float32")
    layer = random_layer(MLP(64, 64, dropout=0.5), x.shape)
    plain, dropped = run(layer, x), run(layer, x, training=True)
    assert 0.2 < (dropped == 0).mean() < 0.8
    kept = dropped != 0
    assert not np.allclose(dropped[kept], 2 * plain[kept])  # hidden units were dropped as well
    close(run(layer, x, training=False), plain)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"hidden_dim": 0}, ["hidden_dim=0", "at least 1"]),
        ({"output_dim": 0}, ["output_dim=0", "at least 1"]),
        ({"dropout": 2}, ["dropout=2", "[0, 1)"]),
        ({"activation": "relo"}, ["activation='relo'", "'relu'"]),
    ],
    ids=str,
)
def test_refuses_arguments(arguments, words):
    refused(lambda: MLP(**{"hidden_dim": 8, **arguments}), "MLP", "Received: ", *words)


def test_refuses_unknown_channels():
    refused(lambda: MLP(8).build((2, None)), "MLP", "known", "(2, None)")
