"""Throughput of the networks of `benchmarks.clips_cross_validation` in clips per second.

    python -m benchmarks.clips_speed

Weights are random, because speed does not depend on them. The networks take turns in one run, batch
by batch, and the result is the median over the turns.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

from benchmarks.clips_cross_validation import NETWORKS
from benchmarks.rows import append_row
from keras_tokenlearner import costs
from keras_tokenlearner.evaluation import images_per_second

COLUMNS = ("backend", "model", "frames", "batch_size", "gmacs", "clips_per_second")


def main(arguments=None):
    """Measure the throughput of all networks. Networks with the same input size take turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default="benchmarks/results/clips_speed.csv")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(arguments)
    networks = {name: network for (name, start), network in NETWORKS.items() if start == "random"}
    for frames in sorted({network.frames for network in networks.values()}):
        models = {n: m.build(2) for n, m in networks.items() if m.frames == frames}
        shape = (options.batch_size, *next(iter(models.values())).input_shape[1:])
        batch = np.random.default_rng(0).random(shape, "float32")
        speeds = images_per_second(list(models.values()), batch, options.repeats)
        for (name, model), speed in zip(models.items(), speeds, strict=True):
            gmacs = f"{costs(model).macs / 1e9:.4f}"
            row = (keras.backend.backend(), name, frames, len(batch), gmacs, f"{speed:.4g}")
            append_row(options.output, COLUMNS, dict(zip(COLUMNS, row, strict=True)))


if __name__ == "__main__":
    main()
