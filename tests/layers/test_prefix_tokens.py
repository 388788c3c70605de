import numpy as np
import pytest

from keras_tokenlearner.layers import PrefixTokens
from tests.conformance import array
from tests.layers.helpers import random_layer, refused, run


@pytest.mark.parametrize("num_tokens", [1, 3])
def test_prefix_tokens_precede_every_example(num_tokens):
    x = array((2, 5, 8), 0)
    layer = random_layer(PrefixTokens(num_tokens), x.shape)
    y = run(layer, x)
    np.testing.assert_array_equal(y[:, num_tokens:], x)
    for example in y:
        np.testing.assert_array_equal(example[:num_tokens], layer.get_weights()[0])


@pytest.mark.once("torch")
@pytest.mark.parametrize("num_tokens", [0, "1", True, 2.5])
def test_prefix_tokens_with_wrong_arguments_raise(num_tokens):
    refused(lambda: PrefixTokens(num_tokens), "PrefixTokens", f"num_tokens={num_tokens!r}")


@pytest.mark.once("torch")
@pytest.mark.parametrize("shape", [(2, 4, 6, 8), (2, 8), (2, 5, None)], ids=str)
def test_prefix_tokens_with_wrong_shapes_raise(shape):
    refused(lambda: PrefixTokens().build(shape), "PrefixTokens", "(B, N, C)", f"shape={shape}")
