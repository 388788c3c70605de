"""The most multiply-adds a second that a backend reaches in one product of two matrices."""

import keras
import numpy as np

from benchmarks.timing import take_turns


def matrix_rate(dtype="float32", size=3072, repeats=9):
    """Return multiply-adds a second of `size` x `size` matrices on the backend of this process."""
    a, b = np.random.default_rng(0).normal(size=(2, size, size)).astype("float32")
    a, b = (keras.ops.cast(keras.ops.convert_to_tensor(x), dtype) for x in (a, b))
    (times,) = take_turns([_product(a, b)], repeats)
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
