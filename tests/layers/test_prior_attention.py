import numpy as np
import pytest

from keras_tokenlearner.layers import PriorAttention
from tests.conformance import array
from tests.layers import helpers
from tests.layers.helpers import close, random_layer, refused, run


def test_prior_attention_equals_the_weighted_sum_of_values():
    x = array((2, 5, 8), 0)
    layer = random_layer(PriorAttention(), x.shape)
    table, kernel = layer.get_weights()
    close(run(layer, x), helpers.softmax(table, -1) @ (x @ kernel))


def test_prior_attention_weights_do_not_depend_on_the_tokens():
    x, y = array((2, 5, 8), 0), array((2, 5, 8), 1)
    layer = random_layer(PriorAttention(), x.shape)
    close(run(layer, x + y), run(layer, x) + run(layer, y))


def test_untrained_prior_attention_is_near_the_average_of_all_tokens():
    x = array((2, 5, 8), 0)
    layer = PriorAttention()
    layer.build(x.shape)
    layer.value_dense.set_weights([np.eye(8)])
    assert np.abs(run(layer, x) - x.mean(1, keepdims=True)).max() < 0.2


@pytest.mark.once("torch")
@pytest.mark.parametrize("shape", [(None, None, 8), (None, 5, None), (None, 2, 5, 8)], ids=str)
def test_prior_attention_with_wrong_shapes_raises(shape):
    refused(lambda: PriorAttention().build(shape), "PriorAttention: ", f"shape={shape}")
