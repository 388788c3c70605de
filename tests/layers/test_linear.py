"""Products that add their bias, compared with the dense layers of Keras."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_tokenlearner.layers.linear import linear
from tests.conformance import array

ON_TORCH = keras.backend.backend() == "torch"


def made(kind, dtype="float32"):
    """Return a built layer with a bias that is not zero, and inputs for it."""
    options = {"bias_initializer": keras.initializers.RandomNormal(seed=1), "dtype": dtype}
    if kind == "dense":
        layer, x = layers.Dense(6, **options), array((2, 5, 8), seed=0)
    elif kind == "to heads":
        layer = layers.EinsumDense("abc,cde->abde", (None, 3, 4), bias_axes="de", **options)
        x = array((2, 5, 8), seed=0)
    else:
        layer = layers.EinsumDense("abde,dec->abc", (None, 6), bias_axes="c", **options)
        x = array((2, 5, 3, 4), seed=0)
    layer.build(x.shape)
    return layer, ops.convert_to_tensor(x, layer.compute_dtype)


@pytest.fixture
def products(monkeypatch):
    """Return the list of the products with a bias that PyTorch computes, empty elsewhere."""
    found = []
    if ON_TORCH:
        import torch

        addmm = torch.addmm
        monkeypatch.setattr(torch, "addmm", lambda *given: found.append(1) or addmm(*given))
    return found


@pytest.mark.parametrize("kind", ["dense", "to heads", "from heads"])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_linear_equals_the_layer(kind, dtype, products):
    layer, x = made(kind, dtype)
    found, wanted = (ops.cast(y, "float32") for y in (linear(layer, x), layer(x)))
    atol = 1e-6 if dtype == "float32" else 0.03
    np.testing.assert_allclose(*map(ops.convert_to_numpy, (found, wanted)), atol=atol)
    assert len(products) == ON_TORCH


@pytest.mark.parametrize("change", ["no bias", "quantized", "other dtype"])
def test_linear_of_special_layers_calls_the_layer(change, products):
    layer, x = made("dense")
    if change == "no bias":
        layer = layers.Dense(6, use_bias=False)
        layer.build(x.shape)
    elif change == "quantized":
        layer.quantize("int8")
    else:
        x = ops.cast(x, "bfloat16")
    found, wanted = (ops.convert_to_numpy(y) for y in (linear(layer, x), layer(x)))
    np.testing.assert_array_equal(found, wanted)
    assert not products


def test_linear_with_lora_adds_the_update(products):
    layer, x = made("dense")
    before = ops.convert_to_numpy(linear(layer, x))
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(array((2, 6), seed=0))
    found, wanted = (ops.convert_to_numpy(y) for y in (linear(layer, x), layer(x)))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.abs(found - before).max() > 0.1 and len(products) == 2 * ON_TORCH
