"""Vector attention beside its direct form and Keras's multi-head attention with one channel a head.

Run on a machine that has nothing else to do:

    python -m benchmarks.vector_attention > vector_attention.csv

One forward and backward pass of a compiled training function, float32, each row in a process of its
own: the median of the repeats after the first call, the fastest and the slowest of them, and by how
much the first two calls raised the most memory that the process has held.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time

import numpy as np

from benchmarks.machine import command, machine

BACKENDS = ("tensorflow", "jax", "torch")
FORMS = ("direct", "ours", "multi_head", "direct_gamma", "ours_gamma")
COLUMNS = ("backend", "form", "ms", "fastest_ms", "slowest_ms", "first_s", "peak_mib")
LIBRARIES = ("keras", *BACKENDS)


def main(arguments=None):
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--channels", type=int, default=432)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--xla", action="store_true", help="let XLA compile on TensorFlow")
    parser.add_argument("--row", choices=FORMS, help=argparse.SUPPRESS)  # in this process
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    if options.row:
        print(json.dumps(measure(options)))
        return
    print(f"# {command()}\n# {machine(*LIBRARIES)}")
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for backend in options.backends:
        for form in options.forms:
            again = [sys.executable, "-m", "benchmarks.vector_attention", *arguments]
            done = subprocess.run(
                [*again, "--row", form],
                env={**os.environ, "KERAS_BACKEND": backend},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            row = json.loads(done.stdout.splitlines()[-1])
            writer.writerow({"backend": backend, "form": form, **row})
            sys.stdout.flush()


def measure(options):
    """Return the figures of one form on the backend of this process."""
    import keras

    keras.utils.set_random_seed(0)
    shape = (options.batch, options.tokens, options.channels)
    tokens, upstream = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    layer = _layer(options.row, options.channels)
    layer.build(shape)
    step = _step(layer, tokens, upstream, options.xla)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(options.repeats + 2):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
        if len(times) == 2:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    rest = 1e3 * np.array(times[2:])
    return {
        "ms": f"{np.median(rest):.0f}",
        "fastest_ms": f"{rest.min():.0f}",
        "slowest_ms": f"{rest.max():.0f}",
        "first_s": f"{times[0]:.1f}",
        "peak_mib": peak // 1024,
    }


def _layer(form, channels):
    from keras import layers, ops

    from keras_tokenlearner.layers import VectorAttention

    gamma = form.endswith("gamma")
    if form.startswith("ours"):
        return VectorAttention(gamma=gamma)

    class Direct(VectorAttention):
        """The equation as it is written, with the N x N x C tensor."""

        def call(self, query):
            q, k, v = self.query_dense(query), self.key_dense(query), self.value_dense(query)
            logits = ops.expand_dims(q, 2) * ops.expand_dims(k, 1)
            if self.gamma_kernel is not None:
                logits = ops.matmul(logits, self.gamma_kernel)
            return ops.sum(ops.softmax(logits, axis=2) * ops.expand_dims(v, 1), axis=2)

    class MultiHead(layers.Layer):
        """Keras's layer, with itself as query and value."""

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
    main()
