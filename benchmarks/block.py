"""Time of a transformer block and its parts, compared with the time of its matrix products.

Run on an idle machine:

    python -m benchmarks.block

Each row measures the inference of six blocks of ViT-B in sequence, or of six equal parts. `ms` is a
sixth of this time. `least_ms` is the time of the multiply-adds of one block or part. Their rate is
measured by one large matrix product in the same process.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.rows import append_row, replace_file
from benchmarks.timing import BACKENDS, XLA, child, in_child, take_turns

WIDTH, HEADS, REPEATED = 768, 12, 6
COLUMNS = ("backend", "xla", "part", "ms", "spread", "least_ms", "of_matrix_rate")


def measure(xla, batch_size, tokens, repeats):
    """Return a row for each part on the backend of this process."""
    import keras

    from benchmarks.matrix_rate import matrix_rate

    random = np.random.default_rng(0)
    x = random.normal(size=(batch_size, tokens, WIDTH)).astype("float32")
    x, rate = keras.ops.convert_to_tensor(x), matrix_rate()
    attend, mlp = 4 * WIDTH**2 + 2 * tokens * WIDTH, 8 * WIDTH**2
    least = {
        "layer normalization": 0,
        "attention": attend,
        "attention of Keras": attend,
        "mlp": mlp,
        "mlp without gelu": mlp,
        "block": attend + mlp,
    }
    models = {name: _stack(_layer(name), x.shape, xla) for name in least}
    calls = [lambda model=model: model.predict_on_batch(x) for model in models.values()]
    rows = []
    for (name, macs), times in zip(least.items(), take_turns(calls, repeats), strict=True):
        ms, least_ms = 1e3 * times.median / REPEATED, 1e3 * batch_size * tokens * macs / rate
        figures = (ms, times.spread, least_ms, least_ms / ms)
        values = (name, *(f"{figure:.3g}" for figure in figures))
        rows.append(dict(zip(COLUMNS[2:], values, strict=True)))
    return rows


def _layer(name):
    """Return a function that makes the layers of one part."""
    import keras

    from keras_tokenlearner import layers
    from keras_tokenlearner.layers.multi_head_attention import MultiHeadAttention

    def self_attention(kind):
        layer = kind(HEADS, WIDTH // HEADS)
        return lambda x: layer(x, x)

    return {
        "layer normalization": lambda: keras.layers.LayerNormalization(epsilon=1e-6),
        "attention": lambda: self_attention(MultiHeadAttention),
        "attention of Keras": lambda: self_attention(keras.layers.MultiHeadAttention),
        "mlp": lambda: layers.MLP(4 * WIDTH),
        "mlp without gelu": lambda: layers.MLP(4 * WIDTH, activation=None),
        "block": lambda: layers.TransformerBlock(HEADS),
    }[name]


def _stack(make, shape, xla):
    import keras

    x = inputs = keras.Input(shape[1:])
    for _ in range(REPEATED):
        x = make()(x)
    model = keras.Model(inputs, x)
    if keras.backend.backend() == "tensorflow":
        model.compile(jit_compile=xla)
    return model


def main(arguments=None):
    """Write a row for each part and backend."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=577)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/block.csv"))
    options = parser.parse_args(arguments)
    sizes = {"batch_size": options.batch_size, "tokens": options.tokens}
    replace_file(options.output)
    for backend in options.backends:
        for xla in XLA[backend]:
            case = {"xla": xla, "repeats": options.repeats} | sizes
            for row in in_child("block", backend, case):
                append_row(options.output, COLUMNS, {"backend": backend, "xla": xla} | row)


if __name__ == "__main__":
    child(measure) or main()
