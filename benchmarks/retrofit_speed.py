"""Measured and predicted speedup of a ViT-S/14 with learned tokens, pooling or token merging.

    python -m benchmarks.retrofit_speed token_learner:5:16 spatial_pooling:5:16

The weights are random, because speed does not depend on them. Each backend and batch size has its
own process. All students with the reducer at one position take turns with the teacher, batch by
batch. The result is the median over the turns. Token merging merges in all blocks, and has about
the cost of AT:TOKENS learned tokens.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import keras
import numpy as np

from benchmarks.retrofit_teacher import dinov2_small
from benchmarks.rows import append_row, replace_file
from benchmarks.timing import BACKENDS, child, in_child
from benchmarks.token_merging import merging_of_cost
from keras_tokenlearner import retrofit
from keras_tokenlearner.analysis import costs
from keras_tokenlearner.evaluation import images_per_second

COLUMNS = (
    *("backend", "reducer", "at", "num_tokens"),
    *("batch_size", "images_per_second", "speed_ratio", "promised", "realised"),
)
MODELS = ["token_learner:5:16", "spatial_pooling:5:16", "token_merging:5:16"]


def student(name: str) -> tuple[str, int, int]:
    """Return the reducer, the blocks before it and the number of tokens of REDUCER:AT:TOKENS."""
    reducer, at, num_tokens = name.split(":")
    return reducer, int(at), int(num_tokens)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a row for each backend, batch size and model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "models",
        nargs="*",
        type=student,
        default=[student(name) for name in MODELS],
        metavar="REDUCER:AT:TOKENS",
        help=f"default: {MODELS}",
    )
    results = Path("benchmarks/results")
    parser.add_argument("--output", type=Path, default=results / "retrofit_speed.csv")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(arguments)
    replace_file(options.output)
    shared = {"models": options.models, "size": options.size, "repeats": options.repeats}
    for batch_size, backend in product(options.batch_sizes, options.backends):
        for row in in_child("retrofit_speed", backend, shared | {"batch_size": batch_size}):
            append_row(options.output, COLUMNS, {"backend": backend} | row)


def measure(
    models: Sequence[tuple[str, int, int]], size: int, batch_size: int, repeats: int
) -> list[dict[str, str]]:
    """Return a row for each model on the backend of this process.

    Args:
        models: The reducer, the blocks before it and the number of tokens of each model.
        size: Integer, height and width in pixels.
        batch_size: Integer, images per batch.
        repeats: Integer, turns of each model.
    """
    shape, rows = (size, size, 3), []
    settings = {"class_token": True, "register_tokens": 4, "layer_scale": 1.0}
    teacher = dinov2_small(shape, activation="gelu", **settings)
    batch = np.random.default_rng(0).integers(0, 256, (batch_size, *shape), "uint8")
    macs = costs(teacher).macs
    for place in sorted({at for _, at, _ in models}):
        named = [model for model in models if model[1] == place]
        students = [_built(teacher, *model) for model in named]
        speeds = images_per_second([teacher, *students], batch, repeats)
        for model, built, speed in zip(named, students, speeds[1:], strict=True):
            promised = macs / costs(built).macs
            numbers = (speed, speed / speeds[0], promised, speed / speeds[0] / promised)
            row = (*map(str, model), str(batch_size), *(f"{n:.4g}" for n in numbers))
            rows.append(dict(zip(COLUMNS[1:], row, strict=True)))
    return rows


def _built(teacher: keras.Model, reducer: str, at: int, num_tokens: int) -> keras.Model:
    """Return an untrained student. Raise `ValueError` if it has another number of tokens."""
    if reducer == "token_merging":  # in all blocks, with the cost of learned tokens
        return merging_of_cost(teacher, costs(retrofit(teacher, at, num_tokens)).macs)
    given = None if reducer == "spatial_pooling" else num_tokens
    built = retrofit(teacher, at, given, reducer=reducer)
    found = built.get_layer(reducer).output.shape[1]
    if found != num_tokens:  # rows of the CSV file must state the real number of tokens
        raise ValueError(
            f"retrofit_speed: the number of tokens must be {found} with {reducer}. "
            f"Received: {reducer}:{at}:{num_tokens}"
        )
    return built


if __name__ == "__main__":
    child(measure) or main()
