import keras
import numpy as np
import pytest

from keras_tokenlearner.layers import Reproject, TokenLearner, Unpool
from tests.conformance import array
from tests.layers import helpers
from tests.layers.helpers import close, random_layer, refused, run


def test_unpool_equals_the_sum_of_tokens_weighted_by_their_maps():
    tokens, maps, x = array((2, 3, 8), 0), array((2, 4, 6, 3), 1), array((2, 4, 6, 8), 2)
    expected = x.copy()
    for token in range(3):
        expected += maps[..., token : token + 1] * tokens[:, None, None, token]
    close(run(Unpool(), tokens, maps, x), expected)


@pytest.mark.parametrize("grid", [(4, 6), (2, 4, 6)], ids=str)
def test_unpool_of_a_video_equals_unpool_of_each_frame(grid):
    tokens, maps, x = array((2, 6, 8), 0), array((2, 2, 4, 6, 3), 1), array((2, 2, 4, 6, 8), 2)
    expected = [
        run(Unpool(), tokens[:, 3 * frame : 3 * frame + 3], maps[:, frame], x[:, frame])
        for frame in range(2)
    ]
    close(run(Unpool(), tokens, maps, x), np.stack(expected, axis=1))
    flat = run(Unpool(grid=grid), tokens, maps.reshape(2, 48, 3), x.reshape(2, 48, 8))
    close(flat, np.stack(expected, axis=1).reshape(2, 48, 8))


@pytest.mark.parametrize("shape", [(4, 6, 8), (2, 4, 6, 8)], ids=str)
def test_unpool_accepts_the_outputs_of_a_token_learner(shape):
    x = array((2, *shape), 0)
    learner = random_layer(TokenLearner(3), x.shape)
    tokens, maps = run(learner, x, return_maps=True)
    frames = shape[0] if len(shape) == 4 else 1
    blend = maps.reshape(2, frames, 24, 3) @ tokens.reshape(2, frames, 3, 8)
    close(run(Unpool(), tokens, maps, x), x + blend.reshape(x.shape))


@pytest.mark.parametrize("shape", [(24, 8), (4, 6, 8), (2, 4, 3, 8)], ids=str)
def test_reproject_attends_from_positions_to_tokens(shape):
    tokens, x = array((2, 5, 8), 0), array((2, *shape), 1)
    layer = random_layer(Reproject(num_heads=2, mlp_dim=12), tokens.shape, x.shape)
    tokens_norm, inputs_norm, mlp_norm = (
        norm.get_weights() for norm in (layer.tokens_norm, layer.inputs_norm, layer.mlp_norm)
    )
    y = x.reshape(2, 24, 8)
    y = y + helpers.multi_head_attention(
        helpers.layer_norm(y, *inputs_norm),
        helpers.layer_norm(tokens, *tokens_norm),
        layer.attention.get_weights(),
    )
    y = y + helpers.mlp(helpers.layer_norm(y, *mlp_norm), *layer.mlp.get_weights())
    close(run(layer, tokens, x), y.reshape(x.shape))


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "kind, arguments, words",
    [
        (Unpool, {"grid": 4}, ["grid=4"]),
        (Reproject, {"num_heads": 0}, ["num_heads=0"]),
        (Reproject, {"num_heads": 2, "mlp_dim": "x"}, ["mlp_dim='x'"]),
        (
            Reproject,
            {"num_heads": 2, "layer_norm_epsilon": 0.0},
            ["layer_norm_epsilon=0.0"],
        ),
    ],
    ids=str,
)
def test_unpool_and_reproject_with_wrong_arguments_raise(kind, arguments, words):
    refused(lambda: kind(**arguments), kind.__name__, "Received: ", *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "shapes, words",
    [
        (((2, 3, 8), (2, 24, 3), (2, 24, 8)), ["grid=None", "(2, 24, 8)"]),
        (((2, 3, 8), (2, 6, 4, 3), (2, 4, 6, 8)), ["maps", "(2, 6, 4, 3)", "(2, 4, 6, 8)"]),
        (((2, 4, 8), (2, 4, 6, 3), (2, 4, 6, 8)), ["tokens", "(2, 4, 8)", "(2, 4, 6, 3)"]),
        (((2, 3, 7), (2, 4, 6, 3), (2, 4, 6, 8)), ["tokens", "(2, 3, 7)", "(2, 4, 6, 8)"]),
        (((2, 1, 3, 8), (2, 4, 6, 3), (2, 4, 6, 8)), ["tokens", "(2, 1, 3, 8)"]),
        (((2, 8), (2, 4, 6, 3), (2, 4, 6, 8)), ["tokens of shape (2, 8)"]),
    ],
    ids=str,
)
def test_unpool_with_wrong_shapes_raises(shapes, words):
    refused(lambda: Unpool().build(*shapes), "Unpool", "Received: ", *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "shapes, words",
    [
        (((2, 3, 8), (2, 24, 8)), ["num_heads=3", "8 channels"]),
        (((2, 3, 9), (2, 24, None)), ["(2, 24, None)"]),
        (((2, 3, 6), (2, 24, 9)), ["tokens", "(2, 3, 6)", "(2, 24, 9)"]),
    ],
    ids=str,
)
def test_reproject_with_wrong_shapes_raises(shapes, words):
    refused(lambda: Reproject(num_heads=3).build(*shapes), "Reproject", "Received: ", *words)


@pytest.mark.once("torch")
def test_unpool_with_channels_first_raises():
    keras.config.set_image_data_format("channels_first")
    refused(Unpool, "Unpool: ", "image_data_format='channels_first'")
