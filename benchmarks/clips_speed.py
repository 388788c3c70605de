"""Throughput of the networks of `benchmarks.clips_cross_validation` in clips per second.

    python -m benchmarks.clips_speed

Weights are random, because speed does not depend on them. Each backend has its own process. The
networks take turns in it, batch by batch, and the result is the median over the turns.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.clips_cross_validation import NETWORKS
from benchmarks.rows import append_row, replace_file
from benchmarks.timing import BACKENDS, child, in_child
from keras_tokenlearner import costs
from keras_tokenlearner.evaluation import images_per_second

COLUMNS = ("backend", "model", "frames", "batch_size", "gmacs", "clips_per_second")


def measure(batch_size, repeats):
    """Return a row for each network on the backend of this process. Equal input sizes take turns.

    Args:
        batch_size: Integer, clips per batch.
        repeats: Integer, turns of each network.
    """
    networks = {name: network for (name, start), network in NETWORKS.items() if start == "random"}
    rows = []
    for frames in sorted({network.frames for network in networks.values()}):
        models = {n: m.build(2) for n, m in networks.items() if m.frames == frames}
        shape = (batch_size, *next(iter(models.values())).input_shape[1:])
        batch = np.random.default_rng(0).random(shape, "float32")
        speeds = images_per_second(list(models.values()), batch, repeats)
        for (name, model), speed in zip(models.items(), speeds, strict=True):
            gmacs = f"{costs(model).macs / 1e9:.4f}"
            row = (name, frames, batch_size, gmacs, f"{speed:.4g}")
            rows.append(dict(zip(COLUMNS[1:], row, strict=True)))
    return rows


def main(arguments=None):
    """Write a row for each network and backend."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--output", type=Path, default="benchmarks/results/clips_speed.csv")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(arguments)
    replace_file(options.output)
    for backend in options.backends:
        case = {"batch_size": options.batch_size, "repeats": options.repeats}
        for row in in_child("clips_speed", backend, case):
            append_row(options.output, COLUMNS, {"backend": backend} | row)


if __name__ == "__main__":
    child(measure) or main()
