"""Outputs and gradients of channel attention on every code path, against its definition."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_tokenlearner.layers import channel_attention as module
from keras_tokenlearner.layers.channel_attention import channel_attention
from tests.conformance import array, assert_close, to_numpy
from tests.layers import helpers

SHAPES = [(1, 1), (8, 8), (21, 18), (16, 3)]


@pytest.fixture(params=["default path", "closed form"], autouse=True)
def path(request, monkeypatch):
    """Run each test on the backend's own path, and also on the closed form if it differs."""
    if request.param == "closed form":
        if keras.backend.backend() != "torch":
            pytest.skip("only on torch: other backends always use the closed form")
        monkeypatch.setattr(module, "_has_fused_kernel", lambda q: False)


def tensors(queries, keys, scale):
    q, k, v = (array((2, length, 5), seed) for seed, length in enumerate((queries, keys, keys)))
    return scale * q, scale * k + 1, v


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_channel_attention_equals_its_definition(shape, scale):
    q, k, v = tensors(*shape, scale)
    weights = helpers.softmax(q[:, :, None].astype("float64") * k[:, None], axis=2)
    (found,) = to_numpy(channel_attention(*(ops.convert_to_tensor(x) for x in (q, k, v))))
    np.testing.assert_allclose(found, (weights * v[:, None]).sum(2), atol=1e-5)


class Three(layers.Layer):
    """Queries, keys and values that `fit` learns, so that every backend differentiates them."""

    def __init__(self, function, values):
        super().__init__()
        self.function = function
        self.parts = [
            self.add_weight(shape=value.shape, name=f"part_{i}") for i, value in enumerate(values)
        ]
        self.set_weights(values)

    def call(self, x):
        return self.function(*(ops.convert_to_tensor(part) for part in self.parts)) + 0 * x


def direct(q, k, v):
    logits = ops.expand_dims(q, 2) * ops.expand_dims(k, 1)
    return ops.sum(ops.softmax(logits, axis=2) * ops.expand_dims(v, 1), axis=2)


@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
@pytest.mark.parametrize("scale", [1, 10])
def test_channel_attention_gradients_equal_the_gradients_of_its_definition(shape, scale):
    values, target = tensors(*shape, scale), array((2, shape[0], 5), 9)

    def after_a_step(function):
        layer = Three(function, values)
        model = keras.Sequential([layer])
        model.compile(keras.optimizers.SGD(1.0), "mse")
        model.fit(np.zeros_like(target), target, batch_size=2, shuffle=False, verbose=0)
        return layer.get_weights()

    found = after_a_step(channel_attention)
    assert_close(found, after_a_step(direct))
    assert all(np.abs(a - b).max() > 1e-5 for a, b in zip(found, values, strict=True))
