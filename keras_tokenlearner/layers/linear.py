import functools
from collections.abc import Sequence

import keras
from keras import ops

from keras_tokenlearner.layers.activations import ActivationFunction, gelu_tanh

# From this number of rows on, one product with three joined kernels is faster than three products,
# in bfloat16.
_MANY_ROWS = 1024
# Activations that oneDNN fuses with a matrix product, and oneDNN's names for them.
_FORMS = {
    None: ("none", ""),
    gelu_tanh: ("gelu", "tanh"),
    keras.activations.gelu: ("gelu", "none"),
}


def linear(
    dense: keras.Layer,
    inputs: keras.KerasTensor,
    activation: ActivationFunction | None = None,
) -> keras.KerasTensor:
    """Return `activation(dense(inputs))`. On PyTorch, one matrix product replaces the layer's call.

    The product also adds the bias. A separate sum would read and write the outputs a second time.
    Separate sums take a fourth of the time of a ViT in bfloat16 on a GPU. The call of a Keras layer
    also takes more CPU time than a product.

    Without gradients on a CPU, oneDNN computes product, bias and gelu in one step. The float32
    product of oneDNN is faster than `torch.addmm`, above all for few rows.

    Args:
        dense: A built `Dense`, or an `EinsumDense` that contracts the last input axes with the
            first kernel axes.
        inputs: Tensor.
        activation: Function of the outputs, or `None`.
    """
    if not _is_plain(dense, inputs):
        outputs = dense(inputs)
        return outputs if activation is None else activation(outputs)
    kernel, bias = (ops.cast(x, inputs.dtype) for x in (dense.kernel, dense.bias))
    kept = inputs.shape[: inputs.ndim - (kernel.ndim - bias.ndim)]
    kernel = kernel.reshape(-1, bias.numel())
    outputs = _product(inputs.reshape(-1, kernel.shape[0]), kernel, bias.reshape(-1), activation)
    return outputs.reshape(*kept, *bias.shape)


def linear_each(
    denses: Sequence[keras.Layer], inputs: Sequence[keras.KerasTensor]
) -> list[keras.KerasTensor]:
    """Return `linear(dense, x)` for each layer, by one joint matrix product where it is faster.

    The joint product is faster for many rows of the same inputs in bfloat16 on a CPU.

    Args:
        denses: Layers that `linear` accepts, all with the same output shape.
        inputs: Tensors, one for each layer.
    """
    first = inputs[0]
    if any(x is not first for x in inputs) or not all(_is_plain(d, first) for d in denses):
        return list(map(linear, denses, inputs))
    import torch

    # The number of rows is checked last. Exported graphs do not know this number, but return before
    # this check, because `_has_one_step` is false for them.
    if (
        first.dtype != torch.bfloat16
        or not _has_one_step(first)
        or first.numel() // max(first.shape[-1], 1) < _MANY_ROWS
    ):
        return list(map(linear, denses, inputs))
    kernels = [ops.reshape(dense.kernel, (first.shape[-1], -1)) for dense in denses]
    biases = [ops.reshape(dense.bias, (-1,)) for dense in denses]
    kernel, bias = (torch.cat(x, -1).to(first.dtype) for x in (kernels, biases))
    outputs = _product(first.reshape(-1, first.shape[-1]), kernel, bias)
    parts = outputs.split([x.numel() for x in biases], -1)
    return [  # contiguous copies: PyTorch multiplies batches of strided matrices slowly
        part.contiguous().reshape(*first.shape[:-1], *dense.bias.shape)
        for part, dense in zip(parts, denses, strict=True)
    ]


def _is_plain(dense: keras.Layer, inputs: keras.KerasTensor) -> bool:
    """Return whether `_product` can compute a layer: on PyTorch, with a bias, not quantized.

    The layer must also compute in the dtype of the inputs.
    """
    on_torch = keras.backend.backend() == "torch"
    same = keras.backend.standardize_dtype(inputs.dtype) == dense.compute_dtype
    return on_torch and same and dense.bias is not None and dense.quantization_mode is None


def _product(
    inputs: keras.KerasTensor,
    kernel: keras.KerasTensor,
    bias: keras.KerasTensor,
    activation: ActivationFunction | None = None,
) -> keras.KerasTensor:
    import torch

    if activation in _FORMS and _has_one_step(inputs):
        kind, form = _FORMS[activation]
        return torch.ops.mkldnn._linear_pointwise(inputs, kernel.t(), bias, kind, [], form)
    outputs = torch.addmm(bias, inputs, kernel)
    return outputs if activation is None else activation(outputs)


def _has_one_step(inputs: keras.KerasTensor) -> bool:
    """Return whether oneDNN can compute a product with bias and activation in one step.

    This step is an operator without a gradient. Exported graphs must not contain the operator, and
    PyTorch's compiler inserts it on its own.
    """
    import torch

    return bool(
        type(inputs) is torch.Tensor
        and inputs.device.type == "cpu"
        and _multiplies(keras.backend.standardize_dtype(inputs.dtype))
        and inputs.numel() > 0
        and torch.backends.mkldnn.enabled
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


@functools.cache
def _multiplies(dtype: str) -> bool:
    """Return whether PyTorch's oneDNN multiplies matrices of a dtype on this CPU."""
    import torch

    if not torch.backends.mkldnn.is_available() or not hasattr(
        torch.ops.mkldnn, "_linear_pointwise"
    ):
        return False
    if dtype == "bfloat16":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == "float32"
