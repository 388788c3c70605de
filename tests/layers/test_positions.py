import math

import keras
import numpy as np
import pytest

from keras_tokenlearner.layers import PositionEmbedding
from keras_tokenlearner.layers.positions import resize_positions, sincos_positions
from tests.conformance import array
from tests.layers.helpers import close, random_layer, refused, run


def interpolate(table, grid):
    """Resize a table position by position: each is a weighted sum of the corners around it."""
    output = np.zeros((*grid, table.shape[-1]))
    for place in np.ndindex(*grid):
        at = [
            p * (old - 1) / (new - 1) if new > 1 else 0.0
            for p, old, new in zip(place, table.shape, grid, strict=False)
        ]
        for corner in np.ndindex(*table.shape[:-1]):
            weight = np.prod([max(0.0, 1 - abs(a - c)) for a, c in zip(at, corner, strict=True)])
            output[place] += weight * table[corner]
    return output


@pytest.mark.parametrize("shape", [(2, 4, 6, 8), (2, 3, 4, 6, 8)], ids=str)
def test_position_embedding_adds_the_table(shape):
    x = array(shape, 0)
    layer = random_layer(PositionEmbedding(), shape)
    close(run(layer, x), x + layer.get_weights()[0])


@pytest.mark.parametrize("shape", [(4, 6, 8), (2, 3, 4, 13)], ids=str)
def test_sincos_positions_give_each_axis_an_equal_share_of_the_channels(shape):
    layer = PositionEmbedding("sincos")
    layer.build((None, *shape))
    table, axes = layer.get_weights()[0], len(shape) - 1
    count = shape[-1] // (2 * axes)
    for place in np.ndindex(*shape[:-1]):
        expected = [
            wave(place[axis] / 10000 ** (index / count))
            for axis in range(axes)
            for wave in (math.sin, math.cos)
            for index in range(count)
        ]
        expected += [0] * (shape[-1] - len(expected))
        close(table[place], expected)


@pytest.mark.parametrize(
    "old, new",
    [
        ((4, 4), (4, 4)),
        ((4, 4), (6, 9)),
        ((7, 5), (3, 4)),
        ((1, 5), (3, 4)),
        ((5, 5), (1, 1)),
        ((2, 4, 4), (4, 3, 6)),
    ],
    ids=str,
)
def test_resize_positions_is_linear_with_aligned_corners(old, new):
    table = array((*old, 3), 0)
    found = resize_positions(table, new)
    close(found, interpolate(table, new))
    assert found.shape == (*new, 3) and found.dtype == table.dtype


@pytest.mark.parametrize("new", [(2, 2), (7, 11), (24, 3)], ids=str)
def test_resize_positions_keeps_the_corners_exactly(new):
    table = array((5, 4, 3), 0)
    found = resize_positions(table, new)
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        np.testing.assert_array_equal(found[corner], table[corner])


def test_resize_positions_of_an_image_to_a_video_repeats_the_table():
    table = array((4, 4, 3), 0)
    found = resize_positions(table, (5, 6, 3))
    assert found.shape == (5, 6, 3, 3)
    for frame in found:
        close(frame, interpolate(table, (6, 3)))


def model(grid):
    inputs = keras.Input((*grid, 8))
    return keras.Model(inputs, PositionEmbedding()(inputs))


@pytest.mark.parametrize("name", ["model.weights.h5", "model.keras"])
@pytest.mark.parametrize("new", [(4, 4), (3, 6), (2, 5, 3)], ids=str)
def test_position_embedding_is_resized_on_load(tmp_path, name, new):
    old = model((4, 4))
    old.set_weights([array((4, 4, 8), 0)])
    old.save_weights(tmp_path / name) if name.endswith("h5") else old.save(tmp_path / name)
    loaded = model(new)
    loaded.load_weights(tmp_path / name)
    expected = interpolate(array((4, 4, 8), 0), new[-2:])
    close(loaded.get_weights()[0], np.broadcast_to(expected, (*new, 8)))


def test_position_table_in_bfloat16_is_saved_and_loaded(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    old, loaded = model((4, 4)), model((4, 4))
    old.set_weights([array((4, 4, 8), 0)])
    old.save_weights(tmp_path / "model.weights.h5")
    loaded.load_weights(tmp_path / "model.weights.h5")
    found, expected = (np.asarray(m.get_weights()[0], "float32") for m in (loaded, old))
    np.testing.assert_array_equal(found, expected)
    assert np.abs(expected).max() > 1


def test_resize_positions_of_a_video_to_an_image_raises(tmp_path):
    words = ["(2, 4, 4, 8)", "grid=(4, 4)"]
    refused(lambda: resize_positions(array((2, 4, 4, 8), 0), (4, 4)), "Received: ", *words)
    model((2, 4, 4)).save_weights(tmp_path / "model.weights.h5")
    refused(lambda: model((4, 4)).load_weights(tmp_path / "model.weights.h5"), "grid=(4, 4)")


@pytest.mark.once("torch")
@pytest.mark.parametrize("shape", [(2, 16, 8), (2, None, 4, 8), (2, 4, 4, None)], ids=str)
def test_position_embedding_with_wrong_shapes_raises(shape):
    refused(
        lambda: PositionEmbedding().build(shape),
        "PositionEmbedding: ",
        "(B, T, H, W, C)",
        f"Received: shape={shape}",
    )


@pytest.mark.once("torch")
def test_position_embedding_with_wrong_initializers_raises():
    words = ["PositionEmbedding: ", "Received: initializer='sincosine'", "'sincos'?"]
    refused(lambda: PositionEmbedding("sincosine"), *words)
    words = ["initializer='sincos'", "6 channels", "Received: shape=(2, 3, 4, 5)"]
    refused(lambda: sincos_positions((2, 3, 4, 5)), *words)


@pytest.mark.once("torch")
def test_position_embedding_with_channels_first_raises():
    keras.config.set_image_data_format("channels_first")
    refused(
        lambda: PositionEmbedding().build((2, 4, 4, 8)),
        "PositionEmbedding: ",
        "image_data_format='channels_first'",
    )
