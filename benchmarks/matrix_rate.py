"""The highest rate of multiply-adds that a backend reaches in one product of two matrices."""

import keras

from benchmarks.timing import take_turns

# A shorter product does not fill the device.
_LEAST_SECONDS = 3e-3


def matrix_rate(dtype="float32", size=3072, repeats=9):
    """Return multiply-adds per second of large square matrices on the backend of this process.

    Args:
        dtype: Name of the dtype of the matrices.
        size: Integer, side of the matrices. The side is doubled until a product takes long enough.
        repeats: Integer, number of products. The fastest product counts.
    """
    a, b = (keras.ops.cast(keras.random.normal((size, size)), dtype) for _ in range(2))
    (times,) = take_turns([_product(a, b)], repeats)
    if min(times.warm) < _LEAST_SECONDS:
        return matrix_rate(dtype, 2 * size, repeats)
    return size**3 / min(times.warm)


def _product(a, b):
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        product = jax.jit(jax.numpy.matmul)
        return lambda: jax.block_until_ready(product(a, b))
    if backend == "tensorflow":
        import tensorflow as tf

        product = tf.function(tf.matmul)
        return lambda: product(a, b)[0, 0].numpy()
    import torch

    def product():
        torch.matmul(a, b)
        if a.is_cuda:
            torch.cuda.synchronize()

    return product
