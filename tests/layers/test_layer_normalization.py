"""`LayerNormalization`, compared with the layer of Keras and with float32."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_tokenlearner.layers.layer_normalization import LayerNormalization, normalized


def both(dtype):
    """Return our layer and Keras's layer with the same weights, and inputs for both."""
    random = np.random.default_rng(0)
    kinds = LayerNormalization, layers.LayerNormalization
    ours, theirs = (kind(epsilon=1e-6, dtype=dtype) for kind in kinds)
    weights = random.normal(1, 0.3, 24), random.normal(0, 0.3, 24)
    for layer in (ours, theirs):
        layer.build((None, None, 24))
        layer.set_weights(weights)
    return ours, theirs, random.normal(3, 2, (2, 5, 24)).astype("float32")


def numbers(x):
    return ops.convert_to_numpy(ops.cast(x, "float32"))


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_layer_normalization_equals_the_layer_of_keras(dtype):
    ours, theirs, x = both(dtype)
    for given in (ops.convert_to_tensor(x), ops.cast(x, ours.compute_dtype)):
        found, wanted = ours(given), theirs(given)
        assert found.dtype == wanted.dtype
        on_cpu = keras.backend.backend() != "torch" or found.device.type == "cpu"
        atol = 0 if on_cpu or dtype == "float32" else 0.03
        np.testing.assert_allclose(numbers(found), numbers(wanted), atol=atol, rtol=0)


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="only on torch: others use the layer of Keras"
)
@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_layer_normalization_in_half_precision_is_near_float32(half):
    _, exact, x = both("float32")
    x, gradient = ops.cast(x, half), ops.cast(np.random.default_rng(1).normal(size=x.shape), half)
    results = []
    for normalize in (exact, lambda x: normalized(x, exact.gamma, exact.beta, 1e-6)):
        given = x.detach().clone().requires_grad_()
        found = normalize(given)
        found.backward(gradient.to(found.dtype))
        results.append([numbers(found.detach()), numbers(given.grad)])
    assert keras.backend.standardize_dtype(found.dtype) == half
    for right, close in zip(*results, strict=True):
        error = np.linalg.norm(close - right) / np.linalg.norm(right)
        assert 0 < error < (6e-3 if half == "bfloat16" else 8e-4)
