"""Measured and predicted speedup of the students of `benchmarks.retrofit`.

    python -m benchmarks.retrofit_speed
    python -m benchmarks.retrofit_speed --rows benchmarks/results/retrofit_epochs.csv

The weights are random, because speed does not depend on them. All students with the reducer at one
position take turns with the teacher, batch by batch. The result is the median over the turns.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

from benchmarks.retrofit import KEYS
from benchmarks.retrofit_recipe import dinov2_small, student_of
from benchmarks.rows import append_row, read_rows
from keras_tokenlearner.analysis import costs
from keras_tokenlearner.evaluation import images_per_second

COLUMNS = (
    "backend",
    *KEYS[:3],
    "batch_size",
    "images_per_second",
    "speed_ratio",
    "promised",
    "realised",
)


def main():
    """Write a row for each model and each position of the reducer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results = Path("benchmarks/results")
    parser.add_argument(
        "--rows",
        type=Path,
        default=results / "retrofit.csv",
        help="the CSV file that lists the students",
    )
    parser.add_argument("--output", type=Path, default=results / "retrofit_speed.csv")
    parser.add_argument("--at", type=int, nargs="+", help="positions to measure; default: all rows")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    shape = (arguments.size, arguments.size, 3)
    wanted = [row for row in read_rows(arguments.rows) if row["reducer"] not in ("teacher", "none")]
    # The rows of `retrofit_ablation` have the number after 2 x 2 pooling in the column `tokens`.
    models = sorted(
        {
            (row["reducer"], int(row["at"]), int(row.get("tokens") or row["num_tokens"]))
            for row in wanted
        }
    )
    settings = {"class_token": True, "register_tokens": 4, "layer_scale": 1.0}
    teacher = dinov2_small(shape, activation="gelu", **settings)
    batch = np.random.default_rng(0).integers(0, 256, (arguments.batch_size, *shape), "uint8")
    macs = costs(teacher).macs
    for place in sorted(arguments.at or {at for _, at, _ in models}):
        named = [model for model in models if model[1] == place]
        students = [student_of(teacher, *model) for model in named]
        speeds = images_per_second([teacher, *students], batch, arguments.repeats)
        for model, student, speed in zip(named, students, speeds[1:], strict=True):
            promised = macs / costs(student).macs
            numbers = (speed, speed / speeds[0], promised, speed / speeds[0] / promised)
            row = (keras.backend.backend(), *model, len(batch), *(f"{n:.4g}" for n in numbers))
            append_row(arguments.output, COLUMNS, dict(zip(COLUMNS, row, strict=True)))


if __name__ == "__main__":
    main()
