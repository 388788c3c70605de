import keras
import numpy as np
import pytest

from keras_tokenlearner.layers import SpaceTimeAttention
from tests.conformance import array
from tests.layers.helpers import close, random_layer, refused, run
from tests.layers.test_self_attention import self_attention
from tests.layers.test_vector_attention import equation_3

FORMS = {"num_heads": 2, "key_dim": 6}
B, T, H, W, C = 2, 3, 2, 4, 8


def attend(x, layer):
    """Attention of a sequence, (B, N, C), with the weights of a layer."""
    if layer.attention == "vector":
        return equation_3(x, x, layer.get_weights(), gamma=False, use_bias=False)
    return self_attention(x, layer.get_weights(), layer.num_heads)


def oracle(x, layer):
    """Return the attention over the axes that `layer.over` selects, one sequence at a time."""
    y = np.zeros_like(x)
    if layer.over == "joint":
        return attend(x.reshape(B, -1, C), layer).reshape(x.shape)
    if layer.over == "spatial":
        for t in range(T):
            y[:, t] = attend(x[:, t].reshape(B, -1, C), layer).reshape(B, H, W, C)
        return y
    for h in range(H):
        for w in range(W):
            y[:, :, h, w] = attend(x[:, :, h, w], layer)
    return y


@pytest.mark.parametrize("attention", ["multi_head", "vector"])
@pytest.mark.parametrize("over", ["spatial", "temporal", "joint"])
def test_space_time_attention_equals_the_weighted_sum_over_its_axes(over, attention):
    x = array((B, T, H, W, C), 0)
    layer = random_layer(SpaceTimeAttention(over, attention, **FORMS), x.shape)
    close(run(layer, x), oracle(x, layer))


@pytest.mark.parametrize("attention", ["multi_head", "vector"])
@pytest.mark.parametrize("over", ["spatial", "temporal", "joint"])
def test_space_time_attention_mixes_only_tokens_along_its_axes(over, attention):
    x = array((1, T, H, W, C), 0)
    changed = x.copy()
    changed[0, 1, 0, 2] += 1
    layer = random_layer(SpaceTimeAttention(over, attention, **FORMS), x.shape)
    seen = np.abs(run(layer, changed) - run(layer, x)).max(-1)[0] > 1e-6
    expected = np.zeros((T, H, W), bool)
    if over == "spatial":
        expected[1] = True
    elif over == "temporal":
        expected[:, 0, 2] = True
    else:
        expected[:] = True
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"over": "space"}, ["over='space'", "'spatial'", "'joint'"]),
        ({"attention": "multihead"}, ["attention='multihead'", "'multi_head'?"]),
        ({"num_heads": 0}, ["num_heads=0"]),
        ({"key_dim": "6"}, ["key_dim='6'"]),
    ],
    ids=str,
)
def test_space_time_attention_with_wrong_arguments_raises(arguments, words):
    arguments = {"over": "joint", **arguments}
    refused(lambda: SpaceTimeAttention(**arguments), "SpaceTimeAttention", "Received: ", *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize("shape", [(None, 4, 6, 8), (None, 2, 4, 6, None)], ids=str)
def test_space_time_attention_with_wrong_shapes_raises(shape):
    layer = SpaceTimeAttention("joint")
    refused(lambda: layer.build(shape), "SpaceTimeAttention: ", f"shape={shape}")


@pytest.mark.once("torch")
def test_space_time_attention_with_channels_first_raises():
    keras.config.set_image_data_format("channels_first")
    refused(
        lambda: SpaceTimeAttention("joint"),
        "SpaceTimeAttention: ",
        "image_data_format='channels_first'",
    )
