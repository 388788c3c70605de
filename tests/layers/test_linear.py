"""`linear` and `linear_each`, compared with the dense layers of Keras."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_tokenlearner.layers import activations
from keras_tokenlearner.layers.linear import linear, linear_each
from tests.conformance import array

ON_TORCH = keras.backend.backend() == "torch"
torch_alone = pytest.mark.skipif(not ON_TORCH, reason="only on torch: calls of oneDNN")


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
    """Return a list with one item for each call of `torch.addmm`, empty on other backends."""
    found = []
    if ON_TORCH:
        import torch

        addmm = torch.addmm
        monkeypatch.setattr(torch, "addmm", lambda *given: found.append(1) or addmm(*given))
    return found


@pytest.mark.parametrize("kind", ["dense", "to heads", "from heads"])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_linear_returns_the_same_output_as_a_call_of_the_layer(kind, dtype, products):
    layer, x = made(kind, dtype)
    found, wanted = (ops.cast(y, "float32") for y in (linear(layer, x), layer(x)))
    atol = 1e-6 if dtype == "float32" else 0.03
    np.testing.assert_allclose(*map(ops.convert_to_numpy, (found, wanted)), atol=atol)
    assert len(products) == ON_TORCH


@pytest.mark.parametrize("change", ["no bias", "quantized", "other dtype"])
def test_linear_of_unsupported_layers_or_dtypes_calls_the_layer(change, products):
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


def test_linear_with_lora_adds_the_lora_update(products):
    layer, x = made("dense")
    before = ops.convert_to_numpy(linear(layer, x))
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(array((2, 6), seed=0))
    found, wanted = (ops.convert_to_numpy(y) for y in (linear(layer, x), layer(x)))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.abs(found - before).max() > 0.1 and len(products) == 2 * ON_TORCH


def without_gradients(function):
    """Return the result of a function without gradients, as a float32 array."""
    import torch

    with torch.no_grad():
        return ops.convert_to_numpy(ops.cast(function(), "float32"))


@pytest.fixture
def steps(monkeypatch):
    """Return a list with the activation of each product that oneDNN computes."""
    import torch

    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("only on Linux: this PyTorch has no oneDNN")
    found, operator = [], torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(
        torch.ops.mkldnn, "_linear_pointwise", lambda *a: found.append(a[3:]) or operator(*a)
    )
    return found


def has_bfloat16():
    """Return whether oneDNN multiplies bfloat16 on this CPU: it needs AVX-512 or AMX."""
    import torch

    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


@torch_alone
@pytest.mark.parametrize("kind", ["dense", "to heads", "from heads"])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", [None, "gelu", "gelu_tanh", "quick_gelu"])
def test_linear_without_gradients_runs_supported_activations_in_onednn(kind, dtype, name, steps):
    layer, x = made(kind, dtype)
    activation = None if name is None else activations.get(name)
    found = without_gradients(lambda: linear(layer, x, activation))
    wanted = without_gradients(lambda: activations.get(activation)(layer(x)))
    np.testing.assert_allclose(found, wanted, atol=2e-6 if dtype == "float32" else 0.05)
    form = {"gelu": ("gelu", [], "none"), "gelu_tanh": ("gelu", [], "tanh")}
    in_one_step = name != "quick_gelu" and (dtype == "float32" or has_bfloat16())
    assert steps == ([form.get(name, ("none", [], ""))] if in_one_step else [])


@torch_alone
@pytest.mark.parametrize("case", ["gradient", "compiled", "autocast", "empty"])
def test_linear_where_onednn_is_unsupported_calls_addmm_once(case, steps, products):
    import torch

    layer, x = made("dense")
    wanted = ops.convert_to_numpy(layer(x))
    products.clear()
    if case == "gradient":
        linear(layer, x).sum().backward()
        assert layer.kernel.value.grad is not None
    elif case == "compiled":
        program = torch.export.export(_Module(layer), (x,), strict=False)
        assert "mkldnn" not in str(program.graph)
        found = program.module()(x).detach().numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    elif case == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            assert without_gradients(lambda: linear(layer, x)).shape == wanted.shape
    else:
        assert without_gradients(lambda: linear(layer, x[:0])).shape == (0, 5, 6)
    assert not steps and len(products) == 1


def _Module(layer):  # noqa: N802
    import torch

    class Module(torch.nn.Module):
        def forward(self, x):
            with torch.no_grad():
                return linear(layer, x)

    return Module()


@torch_alone
@pytest.mark.parametrize(("rows", "calls"), [(1024, 1), (8, 3)])
def test_linear_each_with_one_input_computes_a_joint_product_only_for_many_rows(rows, calls, steps):
    layers_of = [made("to heads", "mixed_bfloat16")[0] for _ in range(3)]
    for seed, layer in enumerate(layers_of):
        layer.kernel.assign(array(layer.kernel.shape, seed=seed))
    x = ops.convert_to_tensor(array((2, rows // 2, 8), seed=0), "bfloat16")
    found = without_gradients(lambda: ops.stack(linear_each(layers_of, [x] * 3)))
    wanted = without_gradients(lambda: ops.stack([layer(x) for layer in layers_of]))
    assert len(steps) == (calls if has_bfloat16() else 0)
    np.testing.assert_allclose(found, wanted, rtol=0.01, atol=0.05)


def test_linear_each_with_different_inputs_computes_separate_products():
    layers_of = [made("dense")[0] for _ in range(2)]
    inputs = [made("dense")[1], made("dense")[1] + 1]
    found = linear_each(layers_of, inputs)
    for y, layer, x in zip(found, layers_of, inputs, strict=True):
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (y, layer(x))), atol=1e-6)
