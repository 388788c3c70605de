import keras
import numpy as np
import pytest

from keras_tokenlearner.layers import DirectTokens, FixedGrid, PooledTokens, SpatialPooling
from tests.conformance import array
from tests.layers import helpers
from tests.layers.helpers import close, random_layer, refused, run

KINDS = (DirectTokens, FixedGrid, PooledTokens, SpatialPooling)


def cells(x, rows, columns):
    """Average a frame, (B, H, W, C), over cells whose borders are rounded outwards."""
    height, width = x.shape[1:3]
    tokens = []
    for row in range(rows):
        for column in range(columns):
            top, bottom = row * height // rows, -(-(row + 1) * height // rows)
            left, right = column * width // columns, -(-(column + 1) * width // columns)
            tokens.append(x[:, top:bottom, left:right].mean((1, 2)))
    return np.stack(tokens, axis=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", [(4, 6), (2, 4, 6)], ids=str)
def test_alternatives_to_token_learner_on_videos_return_tokens_in_frame_order(kind, grid):
    x = array((2, 2, 4, 6, 8), 0)
    image = random_layer(kind(), (2, 4, 6, 8))
    expected = np.concatenate([run(image, x[:, 0]), run(image, x[:, 1])], axis=1)
    close(run(random_layer(kind(), x.shape), x), expected)
    sequence = random_layer(kind(grid=grid), (2, 48, 8))
    close(run(sequence, x.reshape(2, 48, 8)), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape, grid", [((4, 6, 8), None), ((2, 4, 6, 8), None), ((48, 8), (4, 6))], ids=str
)
def test_alternatives_to_token_learner_of_an_empty_batch_return_no_tokens(kind, shape, grid):
    layer = random_layer(kind(grid=grid), (2, *shape))
    full, empty = (run(layer, np.zeros((size, *shape), "float32")) for size in (2, 0))
    assert empty.shape == (0, *full.shape[1:])


@pytest.mark.parametrize("pool_size, height, width", [((2, 2), 4, 6), ((2, 3), 5, 7)], ids=str)
def test_spatial_pooling_averages_whole_windows(pool_size, height, width):
    x = array((2, height, width, 8), 0)
    rows, columns = height // pool_size[0], width // pool_size[1]
    whole = x[:, : rows * pool_size[0], : columns * pool_size[1]]
    found = run(random_layer(SpatialPooling(pool_size), x.shape), x)
    close(found, cells(whole, rows, columns))


@pytest.mark.parametrize(
    "num_tokens, height, width, rows, columns",
    [
        (8, 14, 14, 2, 4),
        (6, 5, 7, 2, 3),
        (6, 9, 4, 3, 2),
        (8, 6, 12, 2, 4),
        (7, 7, 7, 1, 7),
        (1, 3, 5, 1, 1),
        (12, 3, 4, 3, 4),
    ],
)
def test_fixed_grid_averages_nearly_square_cells(num_tokens, height, width, rows, columns):
    x = array((2, height, width, 3), 0)
    found = run(random_layer(FixedGrid(num_tokens), x.shape), x)
    close(found, cells(x, rows, columns))


def test_direct_tokens_equals_one_dense_layer_over_the_frame():
    x = array((2, 4, 6, 8), 0)
    layer = random_layer(DirectTokens(3), x.shape)
    kernel, bias = layer.get_weights()
    assert kernel.shape == (4 * 6 * 8, 3 * 8)
    close(run(layer, x), (x.reshape(2, -1) @ kernel + bias).reshape(2, 3, 8))


def test_pooled_tokens_equals_an_mlp_of_the_frame_average():
    x = array((2, 4, 6, 8), 0)
    layer = random_layer(PooledTokens(3), x.shape)
    expected = helpers.mlp(x.mean((1, 2)), *layer.get_weights())
    close(run(layer, x), expected.reshape(2, 3, 8))
    assert layer.mlp.mlp_dim == 8


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "kind, arguments, words",
    [
        (SpatialPooling, {"pool_size": 2}, ["pool_size=2"]),
        (SpatialPooling, {"pool_size": (2, 0)}, ["pool_size=(2, 0)"]),
        (FixedGrid, {"num_tokens": 0}, ["num_tokens=0"]),
        (DirectTokens, {"num_tokens": "8"}, ["num_tokens='8'"]),
        (PooledTokens, {"num_tokens": True}, ["num_tokens=True"]),
        (PooledTokens, {"mlp_dim": 2.5}, ["mlp_dim=2.5"]),
        (PooledTokens, {"activation": "gelu_tan"}, ["activation='gelu_tan'", "'gelu_tanh'"]),
        *((kind, {"grid": 14}, ["grid=14"]) for kind in KINDS),
    ],
    ids=str,
)
def test_alternatives_to_token_learner_with_wrong_arguments_raise(kind, arguments, words):
    refused(lambda: kind(**arguments), kind.__name__, "Received: ", *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "grid, shape, words",
    [
        (None, (2, 24, 8), ["grid=None", "(2, 24, 8)"]),
        ((4, 5), (2, 24, 8), ["grid=(4, 5)", "(2, 24, 8)"]),
        (None, (2, None, 6, 8), ["shape=(2, None, 6, 8)"]),
        (None, (2, 4, 6, None), ["shape=(2, 4, 6, None)"]),
    ],
    ids=str,
)
def test_alternatives_to_token_learner_with_wrong_shapes_raise(kind, grid, shape, words):
    refused(lambda: kind(grid=grid).build(shape), kind.__name__, "Received: ", *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "layer, words",
    [
        (SpatialPooling((2, 3)), ["pool_size=(2, 3)", "(4, 2)"]),
        (FixedGrid(5), ["num_tokens=5", "(4, 2)"]),
    ],
    ids=str,
)
def test_spatial_pooling_and_fixed_grid_on_too_small_frames_raise(layer, words):
    refused(lambda: layer.build((2, 4, 2, 8)), type(layer).__name__, "Received: ", *words)


@pytest.mark.once("torch")
def test_fixed_grid_built_again_for_another_grid_takes_this_grid():
    layer = FixedGrid(4)
    layer.build((2, 2, 8, 8))
    layer.build((2, 4, 4, 8))
    x = array((2, 4, 4, 8), 0)
    close(run(layer, x), run(FixedGrid(4), x))


@pytest.mark.once("torch")
def test_built_spatial_pooling_on_a_too_small_frame_raises():
    layer = SpatialPooling()
    layer.build((2, 4, 4, 8))
    refused(lambda: layer(keras.Input((1, 4, 8))), "SpatialPooling", "pool_size=(2, 2)", "(1, 4)")


@pytest.mark.once("torch")
@pytest.mark.parametrize("kind", KINDS)
def test_alternatives_to_token_learner_with_channels_first_raise(kind):
    keras.config.set_image_data_format("channels_first")
    refused(kind, f"{kind.__name__}: ", "image_data_format='channels_first'")
