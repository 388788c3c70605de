"""Time and memory of vector attention, its direct form and Keras's multi-head attention.

Run on an idle machine:

    python -m benchmarks.vector_attention

A row is one forward and backward pass of a compiled training function in float32, in its own
process. Times are the median, the fastest and the slowest of the repeats after the first call.
Memory is the growth of the process's peak memory during the calls.
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.rows import append_row, replace_file
from benchmarks.timing import BACKENDS, XLA, child, forget_peak, in_child, peak_mib, take_turns

FORMS = ("direct", "ours", "multi_head", "direct_gamma", "ours_gamma")
COLUMNS = ("backend", "form", "xla", "ms", "fastest_ms", "slowest_ms", "first_s", "peak_mib")


def main(arguments=None):
    """Write a row for each backend and form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--channels", type=int, default=432)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    results = Path("benchmarks/results/vector_attention.csv")
    parser.add_argument("--output", type=Path, default=results)
    options = parser.parse_args(arguments)
    shape = (options.batch, options.tokens, options.channels)
    replace_file(options.output)
    for backend in options.backends:
        for xla, form in product(XLA[backend], options.forms):
            case = {"form": form, "shape": shape, "xla": xla, "repeats": options.repeats}
            row = {"backend": backend, "form": form, "xla": xla}
            append_row(options.output, COLUMNS, row | in_child("vector_attention", backend, case))


def measure(form, shape, xla, repeats):
    """Return the measurements of one form on the backend of this process."""
    import keras

    keras.utils.set_random_seed(0)
    tokens, upstream = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    layer = _layer(form, shape[-1])
    layer.build(shape)
    step = _step(layer, tokens, upstream, xla)
    forget_peak()
    before = peak_mib()
    (times,) = take_turns([step], repeats)
    return {
        "ms": f"{1e3 * times.median:.0f}",
        "fastest_ms": f"{1e3 * min(times.warm):.0f}",
        "slowest_ms": f"{1e3 * max(times.warm):.0f}",
        "first_s": f"{times.first:.1f}",
        "peak_mib": peak_mib() - before,
    }


def _layer(form, channels):
    from keras import layers, ops

    from keras_tokenlearner.layers import VectorAttention

    gamma = form.endswith("gamma")
    if form.startswith("ours"):
        return VectorAttention(gamma=gamma)

    class Direct(VectorAttention):
        """Vector attention computed directly, with the N x N x C tensor of its equation."""

        def call(self, query):
            q, k, v = self.query_dense(query), self.key_dense(query), self.value_dense(query)
            logits = ops.expand_dims(q, 2) * ops.expand_dims(k, 1)
            if self.gamma_kernel is not None:
                logits = ops.matmul(logits, self.gamma_kernel)
            return ops.sum(ops.softmax(logits, axis=2) * ops.expand_dims(v, 1), axis=2)

    class MultiHead(layers.Layer):
        """Keras's multi-head self-attention."""

        def build(self, shape):
            self.attention = layers.MultiHeadAttention(channels, key_dim=1)
            self.attention.build(shape, shape)

        def call(self, query):
            return self.attention(query, query)

    return MultiHead() if form == "multi_head" else Direct(gamma=gamma)


def _step(layer, tokens, upstream, xla):
    """Return a function that computes the gradients of all weights and of the tokens, and waits."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        def loss(weights, x):
            y, _ = layer.stateless_call(weights, [], x)
            return (y * upstream).sum()

        gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
        weights = [variable.value for variable in layer.trainable_variables]
        return lambda: jax.block_until_ready(gradient(weights, tokens))
    if backend == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=xla)
        def gradient(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(layer(x) * upstream)
            return tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])

        x = tf.constant(tokens)
        return lambda: [part.numpy() for part in gradient(x)]
    import torch

    def gradient():
        x = torch.tensor(tokens, requires_grad=True)
        (layer(x) * torch.tensor(upstream)).sum().backward()

    return gradient


if __name__ == "__main__":
    child(measure) or main()
