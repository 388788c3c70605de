"""Rotary positions, compared with their definition in complex numbers and with timm's tables."""

import numpy as np
import pytest
from keras import ops

from keras_tokenlearner.analysis.costs import count
from keras_tokenlearner.layers import RotaryPositions
from keras_tokenlearner.layers.rotary import rotate
from tests.conformance import array, to_numpy
from tests.layers.helpers import close, refused, run
from tests.skips import peer


def rotated(x, coordinates, frequencies, layout):
    """Rotate (N, D) by complex numbers: one for each pair of channels."""
    angles = coordinates @ frequencies  # (N, D / 2)
    if layout == "half":
        first, second = np.split(x, 2, axis=-1)
    else:
        first, second = x[..., ::2], x[..., 1::2]
    turned = (first + 1j * second) * np.exp(1j * angles)
    if layout == "half":
        return np.concatenate([turned.real, turned.imag], axis=-1)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def axial(channels, axes, theta):
    """Return the frequencies of pairs of channels. Each axis has an equal number of pairs."""
    count = channels // (2 * axes)
    frequencies = np.zeros((axes, channels // 2))
    for axis in range(axes):
        for k in range(count):
            frequencies[axis, axis * count + k] = theta ** (-k / count)
    return frequencies


def places(grid, width_first=False):
    """Indices of the tokens of a grid, row after row."""
    found = np.array(list(np.ndindex(*grid)), "float64")
    return found[:, ::-1] if width_first else found


def apply(layer, grid, x):
    """Return `x`, of shape (N, D), rotated by the table of a layer for a grid."""
    channels = layer.num_heads * x.shape[-1]
    table = layer(np.zeros((1, *grid, channels), "float32"))
    return rotation(x[None, :, None], table, layer.layout)[0, :, 0]


def rotation(x, table, layout):
    """Return `rotate` of an array as an array."""
    return to_numpy(rotate(ops.convert_to_tensor(x), table, layout))[0]


CASES = {
    "index": ({"theta": 50.0}, places((3, 5))),
    "width_first": ({"theta": 50.0, "order": "width_first"}, places((3, 5), True)),
    "offset": ({"theta": 50.0, "offset": 1.0}, places((3, 5)) + 1),
    "reference": (
        {"theta": 50.0, "reference_grid": (6, 10), "offset": 0.5},
        (places((3, 5)) + 0.5) * 2,
    ),
    "centred": (
        {"theta": 50.0, "coordinates": "centred"},
        2 * np.pi * (2 * (places((3, 5)) + 0.5) / [3, 5] - 1),
    ),
}


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("name", CASES)
def test_rotate_equals_complex_multiplication(name, layout):
    arguments, coordinates = CASES[name]
    x = array((15, 12), 0)
    layer = RotaryPositions(2, layout=layout, **arguments)
    close(apply(layer, (3, 5), x), rotated(x, coordinates, axial(12, 2, 50.0), layout))


def test_rotary_leaves_channels_without_an_axis_and_prefix_tokens_unchanged():
    # A head of 10 channels has 2 for each of three axes, and 4 are left over.
    x = array((3 + 12, 10), 0)
    layer = RotaryPositions(1, num_prefix_tokens=3, theta=7.0)
    found = apply(layer, (2, 2, 3), x)
    np.testing.assert_array_equal(found[:3], x[:3])
    np.testing.assert_array_equal(found[:, 6:], x[:, 6:])
    frequencies = axial(6, 3, 7.0)
    close(found[3:, :6], rotated(x[3:, :6], places((2, 2, 3)), frequencies, "interleaved"))


def test_rotary_query_key_products_depend_only_on_relative_positions():
    q, k = array((2, 12), 0)
    layer = RotaryPositions(1, layout="half", theta=30.0)
    grid = (5, 6)
    queries, keys = (apply(layer, grid, np.tile(x, (30, 1))).reshape(5, 6, 12) for x in (q, k))
    products = [queries[i, j] @ keys[i + 2, j + 1] for i in range(3) for j in range(5)]
    close(products, np.full(15, products[0]))
    assert abs(products[0] - q @ k) > 0.1


def test_rotary_learned_frequencies_rotate_each_head_by_its_own_frequencies():
    x = array((1, 1 + 6, 3, 8), 0)
    layer = RotaryPositions(3, 1, frequencies="learned", order="width_first", theta=10.0)
    table = layer(np.zeros((1, 2, 3, 24), "float32"))
    assert tuple(table.shape) == (1, 7, 3, 16)
    frequencies = layer.get_weights()[0]
    # each pair has two frequencies of equal length, at right angles
    lengths = np.hypot(*frequencies)
    close(lengths, np.tile(10.0 ** (-np.arange(2) / 2), (3, 2)))
    close(
        frequencies[0, :, :2] * frequencies[0, :, 2:],
        -frequencies[1, :, :2] * frequencies[1, :, 2:],
    )
    found = rotation(x, table, "interleaved")
    for head in range(3):
        of_head = frequencies[:, head]
        expected = rotated(x[0, 1:, head], places((2, 3), True), of_head, "interleaved")
        close(found[0, 1:, head], expected)


def test_rotary_with_maps_rotates_tokens_by_their_centres_of_mass():
    x = array((1, 1 + 3, 1, 8), 0)
    maps = np.zeros((1, 2, 4, 3), "float32")
    maps[0, 1, 2, 0] = 0.3  # one position
    maps[0, :, 1, 1] = 5.0  # between two positions
    maps[..., 2] = 0.1  # the middle of the grid
    layer = RotaryPositions(2, 1, layout="half", theta=20.0)
    patches = np.zeros((1, 2, 4, 16), "float32")
    centres = np.array([[1, 2], [0.5, 1], [0.5, 1.5]])
    expected = rotated(x[0, 1:, 0], centres, axial(8, 2, 20.0), "half")
    for given in (maps, maps.reshape(1, 8, 3)):
        found = rotation(x, layer(patches, given), "half")[0, :, 0]
        close(found[1:], expected)
        close(found[0], x[0, 0, 0])


def test_rotary_cost_is_zero_without_maps_and_equals_a_manual_count_with_maps():
    layer = RotaryPositions(2, 1)
    layer.build((None, 2, 4, 16))
    assert count(layer, (2, 4, 16)).macs == count(layer, (2, 4, 16)).elementwise == 0
    cost = count(layer, (2, 4, 16), (8, 3))
    assert cost.macs == 8 * 2 * 3 + 4 * 8 * 2  # centres of 3 maps, angles of 4 tokens
    assert cost.elementwise == 8 * 4 * 8


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "arguments, shape, words",
    [
        ({"coordinates": "pixels"}, None, ["coordinates='pixels'"]),
        ({"frequencies": "free"}, None, ["frequencies='free'"]),
        ({"layout": "pairs"}, None, ["layout='pairs'"]),
        ({"order": "xy"}, None, ["order='xy'"]),
        ({"theta": 0}, None, ["theta=0"]),
        ({"offset": "a"}, None, ["`offset`", "offset='a'"]),
        ({"offset": float("nan")}, None, ["`offset`", "offset=nan"]),
        ({"offset": None}, None, ["`offset`", "offset=None"]),
        ({"num_prefix_tokens": -1}, None, ["num_prefix_tokens=-1"]),
        ({"reference_grid": (4,)}, None, ["reference_grid=(4,)"]),
        (
            {"reference_grid": (4, 4), "coordinates": "centred"},
            None,
            ["coordinates='centred'", "reference_grid=(4, 4)"],
        ),
        ({"frequencies": "learned", "layout": "tiled"}, None, ["layout='tiled'"]),
        ({"frequencies": "learned"}, (None, 2, 2, 2, 16), ["(None, 2, 2, 2, 16)"]),
        ({"reference_grid": (4, 4)}, (None, 2, 2, 2, 16), ["reference_grid=(4, 4)"]),
        ({}, (None, 4, 16), ["(None, 4, 16)"]),
        ({}, (None, 2, 2, 6), ["num_heads=2", "3"]),
        ({}, (None, 2, 2, 2, 8), ["num_heads=2", "4", "6"]),
    ],
    ids=str,
)
def test_rotary_with_wrong_arguments_raises(arguments, shape, words):
    def make():
        layer = RotaryPositions(2, **arguments)
        if shape is not None:
            layer.build(shape)

    refused(make, "RotaryPositions: ", "Received: ", *words)


TIMM = {
    "eva02": (
        {"ref_feat_shape": [4, 4], "in_pixels": False},
        {"reference_grid": (4, 4)},
    ),
    "perception_encoder": (
        {"ref_feat_shape": [4, 3], "in_pixels": False, "grid_offset": 1.0, "grid_indexing": "xy"},
        {"reference_grid": (4, 3), "offset": 1.0, "order": "width_first"},
    ),
    "dinov3": (
        {"temperature": 100.0, "rotate_half": True},
        {"theta": 100.0, "coordinates": "centred", "layout": "half"},
    ),
}


@pytest.mark.peers
@pytest.mark.parametrize("name", TIMM)
def test_rotary_positions_equal_the_positions_of_timm(name):
    timm = peer("timm")
    import torch
    from timm.layers import pos_embed_sincos as theirs

    arguments, ours = TIMM[name]
    kind = "RotaryEmbeddingDinoV3" if name == "dinov3" else "RotaryEmbeddingCat"
    embedding = getattr(theirs, kind)(16, feat_shape=[5, 7], **arguments).get_embed()
    x = array((35, 16), 0)
    half = ours.get("layout") == "half"
    expected = theirs.apply_rot_embed_cat(torch.from_numpy(x), embedding, half=half).numpy()
    assert timm.__version__
    close(apply(RotaryPositions(3, **ours), (5, 7), x), expected)


@pytest.mark.peers
def test_rotary_positions_equal_the_positions_of_v_jepa_2():
    """V-JEPA 2 tiles the angles and rotates neighbouring channels."""
    vjepa = peer("transformers.models.vjepa2.modeling_vjepa2")
    import torch

    x = array((2 * 3 * 5, 26), 0)
    expected, start, part = [], 0, 2 * (26 // 3 // 2)
    for axis in range(3):
        place = torch.from_numpy(places((2, 3, 5))[:, axis]).float()
        segment = torch.from_numpy(x[None, None, :, start : start + part])
        expected.append(vjepa.rotate_queries_or_keys(segment, pos=place).numpy()[0, 0])
        start += part
    expected = np.concatenate([*expected, x[:, start:]], axis=-1)
    close(apply(RotaryPositions(1, layout="tiled"), (2, 3, 5), x), expected)
    assert run(RotaryPositions(1), np.zeros((4, 1, 2, 8), "float32")).shape == (4, 2, 1, 16)
