import numpy as np
import pytest

from keras_tokenlearner.layers import MixerBlock
from tests.conformance import array
from tests.layers import helpers
from tests.layers.helpers import close, random_layer, refused, run


def mixer(x, weights):
    """Return the output of a Mixer block. `weights` has the order of `MixerBlock.get_weights()`."""
    y = helpers.mlp(helpers.layer_norm(x, *weights[:2]).transpose(0, 2, 1), *weights[4:8])
    u = x + y.transpose(0, 2, 1)
    return u + helpers.mlp(helpers.layer_norm(u, *weights[2:4]), *weights[8:])


def test_mixer_block_equals_its_equations():
    x = array((2, 5, 8), 0)
    layer = random_layer(MixerBlock(token_dim=6, channel_dim=12), x.shape)
    close(run(layer, x), mixer(x, layer.get_weights()))


def test_mixer_block_without_token_mixing_keeps_tokens_independent():
    x = array((1, 5, 8), 0)
    layer = random_layer(MixerBlock(token_dim=6), x.shape)
    assert layer.channel_mlp.mlp_dim == 8
    layer.token_mlp.set_weights([np.zeros(w.shape) for w in layer.token_mlp.weights])
    changed = x.copy()
    changed[0, 3] += array((8,), 1)
    seen = np.abs(run(layer, changed) - run(layer, x)).max(-1)[0] > 1e-6
    np.testing.assert_array_equal(seen, np.arange(5) == 3)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"token_dim": 0}, ["token_dim=0"]),
        ({"channel_dim": "12"}, ["channel_dim='12'"]),
        ({"activation": "gelu_tan"}, ["activation='gelu_tan'", "'gelu_tanh'"]),
        ({"layer_norm_epsilon": 0}, ["layer_norm_epsilon=0"]),
    ],
    ids=str,
)
def test_mixer_block_with_wrong_arguments_raises(arguments, words):
    refused(lambda: MixerBlock(**arguments), "MixerBlock", "Received: ", *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize("shape", [(None, None, 8), (None, 5, None), (None, 2, 5, 8)], ids=str)
def test_mixer_block_with_wrong_shapes_raises(shape):
    refused(lambda: MixerBlock().build(shape), "MixerBlock: ", "(B, N, C)", f"shape={shape}")
