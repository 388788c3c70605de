"""NumPy references for parts of layers, and small assertions, for the tests of layers."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.conformance import assign_weights, to_numpy

REFERENCE_FILE = Path(__file__).parents[1] / "data" / "reference_layers.npz"


class Reference:
    """Inputs, parameters and output of a layer of the authors' JAX code."""

    def __init__(self, name):
        with np.load(REFERENCE_FILE) as file:
            self._values = {
                key.removeprefix(f"{name}|"): file[key] for key in file if key.startswith(name)
            }
        self.inputs = [self._values[key] for key in ("in0", "in1") if key in self._values]
        self.output = self._values["out"]

    def __call__(self, *paths):
        return [self._values[f"p|{path}"] for path in paths]


def random_layer(layer, *shapes):
    """Build a layer for input shapes, which include the batch, and set random weights."""
    layer.build(*shapes)
    assign_weights(layer)
    return layer


def run(layer, *inputs, **kwargs):
    """Call a layer. Return its output as an array, or several outputs as a list of arrays."""
    outputs = to_numpy(layer(*inputs, **kwargs))
    return outputs[0] if len(outputs) == 1 else outputs


def close(found, expected, atol=1e-5):
    np.testing.assert_allclose(found, expected, rtol=atol, atol=atol)


def refused(function, *words):
    """Assert that a call raises a `ValueError` whose message has all the words."""
    with pytest.raises(ValueError) as error:
        function()
    for word in words:
        assert word in str(error.value), f"{word!r} is not in: {error.value}"


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def layer_norm(x, gamma, beta, epsilon=1e-6):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * gamma + beta


def rms_norm(x, scale, epsilon=1e-6):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * scale


def mlp(x, kernel_1, bias_1, kernel_2, bias_2):
    return gelu_tanh(x @ kernel_1 + bias_1) @ kernel_2 + bias_2


def convolution(x, kernel):
    """Convolve (B, ..., C) with a kernel, (..., C, S). Zero padding keeps the size."""
    sizes = kernel.shape[:-2]
    padding = [(0, 0), *(((size - 1) // 2, size // 2) for size in sizes), (0, 0)]
    padded = np.pad(x, padding)
    y = np.zeros((*x.shape[:-1], kernel.shape[-1]))
    for offset in np.ndindex(*sizes):
        window = [slice(o, o + n) for o, n in zip(offset, x.shape[1:-1], strict=True)]
        y += padded[(slice(None), *window)] @ kernel[offset]
    return y


def multi_head_attention(x, y, weights, mask=None):
    """Attention from x, (B, N, C), to y, (B, M, C), with the weights of a Keras layer."""
    kernel_q, bias_q, kernel_k, bias_k, kernel_v, bias_v, kernel_o, bias_o = weights
    q = np.einsum("bnc,chd->bhnd", x, kernel_q) + bias_q[:, None]
    k = np.einsum("bmc,chd->bhmd", y, kernel_k) + bias_k[:, None]
    v = np.einsum("bmc,chd->bhmd", y, kernel_v) + bias_v[:, None]
    logits = np.einsum("bhnd,bhmd->bhnm", q, k) / math.sqrt(q.shape[-1])
    if mask is not None:
        logits = np.where(mask[:, None], logits, -np.inf)
    return np.einsum("bhnm,bhmd,hdc->bnc", softmax(logits, -1), v, kernel_o) + bias_o


def transformer_block(x, weights, mask=None):
    """A pre-norm block. `weights` has the order of `TransformerBlock.get_weights()`."""
    x = x + multi_head_attention(*[layer_norm(x, *weights[:2])] * 2, weights[2:10], mask)
    return x + mlp(layer_norm(x, *weights[10:12]), *weights[12:16])


def largest_intermediate(function, *arrays):
    """Return the size of the largest tensor that JAX computes within a function."""
    if keras.backend.backend() != "jax":
        pytest.skip("only on jax: it can list the intermediate tensors")
    import jax

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (variable.aval.size for variable in equation.outvars)
            for parameter in jax.tree.leaves(equation.params, is_leaf=is_jaxpr):
                if is_jaxpr(parameter):
                    yield from sizes(getattr(parameter, "jaxpr", parameter))

    def is_jaxpr(value):
        return hasattr(value, "eqns")

    return max(sizes(jax.make_jaxpr(function)(*arrays).jaxpr))
