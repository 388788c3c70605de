import keras
import numpy as np
import pytest

from keras_tokenlearner.layers import (
    DirectTokens,
    FixedGrid,
    PositionEmbedding,
    RotaryPositions,
    SequencePositions,
    TokenLearner,
    grids,
)
from tests.conformance import array, to_numpy
from tests.layers.helpers import refused

LEARNER = {"num_tokens": 2, "attention": "mlp", "position_bias": True}


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "shape, grid, expected",
    [
        ((2, 4, 6, 8), None, (1, 4, 6)),
        ((2, 3, 4, 6, 8), None, (3, 4, 6)),
        ((2, None, None, 8), None, (1, None, None)),
        ((2, 4, 6, 8), (4, 6), (1, 4, 6)),
        ((2, None, 6, 8), (4, 6), (1, None, 6)),
        ((2, 3, 4, 6, 8), (3, 4, 6), (3, 4, 6)),
        ((2, 24, 8), (4, 6), (1, 4, 6)),
        ((2, 72, 8), (4, 6), (3, 4, 6)),
        ((2, 72, 8), (3, 4, 6), (3, 4, 6)),
        ((2, None, 8), (4, 6), (None, 4, 6)),
        ((2, None, 8), (3, 4, 6), (3, 4, 6)),
    ],
    ids=str,
)
def test_resolve_grid_of_each_shape_returns_frames_height_and_width(shape, grid, expected):
    assert grids.resolve_grid("Owner", shape, grid) == expected


@pytest.mark.parametrize("shape", [(4, 6, 8), (3, 4, 6, 8)], ids=str)
def test_grid_reshapes_keep_positions_and_can_be_reversed(shape):
    x = array((2, *shape), 0)
    frames, height, width = grid = grids.resolve_grid("Owner", x.shape, None)
    volume = to_numpy(grids.to_volume(x, grid))[0]
    images = to_numpy(grids.to_frames(x, grid))[0]
    tokens = to_numpy(grids.flatten_grid(x))[0]
    assert volume.shape == (2, frames, height, width, 8)
    for b, t, h, w in np.ndindex(2, frames, height, width):
        expected = x[b, t, h, w] if len(shape) == 4 else x[b, h, w]
        np.testing.assert_array_equal(volume[b, t, h, w], expected)
        np.testing.assert_array_equal(images[b * frames + t, h, w], expected)
        np.testing.assert_array_equal(tokens[b, (t * height + h) * width + w], expected)
    np.testing.assert_array_equal(to_numpy(grids.restore_grid(tokens, x))[0], x)
    np.testing.assert_array_equal(to_numpy(grids.to_volume(tokens, grid))[0], volume)
    np.testing.assert_array_equal(to_numpy(grids.to_frames(tokens, grid))[0], images)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "shape, grid, words",
    [
        ((2, 4, 5, 8), (4, 6), ["grid=(4, 6)", "shape=(2, 4, 5, 8)"]),
        ((2, 4, 6, 8), (2, 4, 6), ["grid=(2, 4, 6)", "shape=(2, 4, 6, 8)"]),
        ((2, 23, 8), (4, 6), ["grid=(4, 6)", "24 tokens", "shape=(2, 23, 8)"]),
        ((2, 48, 8), (1, 4, 6), ["grid=(1, 4, 6)", "shape=(2, 48, 8)"]),
        ((2, 48, 8), None, ["grid=None", "shape=(2, 48, 8)"]),
        ((8,), None, ["shape=(8,)"]),
    ],
    ids=str,
)
def test_resolve_grid_of_a_wrong_shape_raises(shape, grid, words):
    refused(lambda: grids.resolve_grid("Owner", shape, grid), "Owner: ", "Received: ", *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("kind", "arguments", "built", "other"),
    [
        (FixedGrid, {"num_tokens": 4}, (2, 8, 8), (4, 4, 8)),
        (DirectTokens, {"num_tokens": 4}, (2, 8, 8), (4, 4, 8)),
        (RotaryPositions, {"num_heads": 2}, (2, 8, 8), (4, 4, 8)),
        (RotaryPositions, {"num_heads": 2}, (2, 8, 8), (8,)),
        (RotaryPositions, {"num_heads": 2, "frequencies": "learned"}, (2, 8, 8), (4, 4, 8)),
        (PositionEmbedding, {}, (1, 4, 4, 8), (3, 4, 4, 8)),
        (PositionEmbedding, {}, (4, 2, 8), (3, 4, 2, 8)),
        (SequencePositions, {}, (1, 4, 4, 8), (3, 4, 4, 8)),
        (TokenLearner, LEARNER, (1, 4, 8), (3, 4, 8)),
        (TokenLearner, {**LEARNER, "over": "space_time"}, (1, 2, 2, 8), (3, 2, 2, 8)),
    ],
    ids=str,
)
def test_layer_built_for_one_grid_called_on_another_grid_raises(kind, arguments, built, other):
    layer = kind(**arguments)
    layer(keras.Input(built))
    words = [kind.__name__, "Received: ", *(str(shape[:2])[:-1] for shape in (built, other))]
    for x in (np.zeros((2, *other), "float32"), keras.Input(other)):
        refused(lambda x=x: layer(x), *words)
    refused(lambda: layer.compute_output_shape((2, *other)), *words)
