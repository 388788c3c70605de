import math

import numpy as np
import pytest

from keras_tokenlearner.layers import SelfAttention
from tests.conformance import array
from tests.layers import helpers
from tests.layers.helpers import close, random_layer, refused, run


def self_attention(x, kernels, num_heads):
    """Attention of (B, N, C), head by head, with kernels without bias."""
    q, k, v = (np.split(x @ kernel, num_heads, axis=-1) for kernel in kernels)
    heads = []
    for head in range(num_heads):
        logits = q[head] @ k[head].transpose(0, 2, 1) / math.sqrt(q[head].shape[-1])
        heads.append(helpers.softmax(logits, -1) @ v[head])
    return np.concatenate(heads, axis=-1)


@pytest.mark.parametrize("arguments", [{"key_dim": 6}, {"key_dim": 4, "value_dim": 10}], ids=str)
def test_self_attention_equals_the_weighted_sum_in_each_head(arguments):
    x = array((2, 5, 8), 0)
    layer = random_layer(SelfAttention(num_heads=2, **arguments), x.shape)
    assert len(layer.weights) == 3  # no bias, no output projection
    close(run(layer, x), self_attention(x, layer.get_weights(), 2))


def test_self_attention_of_one_channel_per_head_equals_vector_attention():
    from keras_tokenlearner.layers import VectorAttention

    x = array((2, 5, 8), 0)
    heads = random_layer(SelfAttention(num_heads=8, key_dim=8), x.shape)
    vector = random_layer(VectorAttention(use_bias=False), x.shape)
    close(run(heads, x), run(vector, x))  # the scale, 1 / sqrt(1), is 1


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"num_heads": 0}, ["num_heads=0"]),
        ({"key_dim": 2.5}, ["key_dim=2.5"]),
        ({"num_heads": 3}, ["`key_dim`", "num_heads=3, key_dim=128"]),
        ({"value_dim": -1}, ["value_dim=-1"]),
    ],
    ids=str,
)
def test_self_attention_with_wrong_arguments_raises(arguments, words):
    refused(lambda: SelfAttention(**arguments), "SelfAttention", "Received: ", *words)


@pytest.mark.once("torch")
def test_self_attention_of_a_value_dim_that_heads_do_not_divide_raises():
    layer = SelfAttention(num_heads=2, key_dim=4, value_dim=7)
    refused(lambda: layer.build((None, 5, 8)), "`value_dim`", "num_heads=2, value_dim=7")


@pytest.mark.once("torch")
@pytest.mark.parametrize("shape", [(None, 5, 9), (None, 5, None), (None, 2, 5, 8)], ids=str)
def test_self_attention_with_wrong_shapes_raises(shape):
    layer = SelfAttention(num_heads=2, key_dim=4)
    refused(lambda: layer.build(shape), "SelfAttention", "Received: ")
