import keras
from keras import ops


def linear(dense: keras.Layer, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Return `dense(inputs)`, on PyTorch by one product that adds the bias too.

    A separate sum would read and write the outputs a second time. On a GPU, that is a fourth of the
    time of a ViT in bfloat16. Calling a layer also costs more CPU time than calling a product.

    Args:
        dense: A built `Dense`, or an `EinsumDense` that contracts the last axes of its inputs with
            the first of its kernel.
        inputs: Tensor.
    """
    on_torch = keras.backend.backend() == "torch"
    same = keras.backend.standardize_dtype(inputs.dtype) == dense.compute_dtype
    if not on_torch or not same or dense.bias is None or dense.quantization_mode is not None:
        return dense(inputs)
    import torch

    kernel, bias = (ops.cast(x, inputs.dtype) for x in (dense.kernel, dense.bias))
    kept = inputs.shape[: inputs.ndim - (kernel.ndim - bias.ndim)]
    kernel = kernel.reshape(-1, bias.numel())
    inputs = inputs.reshape(-1, kernel.shape[0])
    return torch.addmm(bias.reshape(-1), inputs, kernel).reshape(*kept, *bias.shape)
