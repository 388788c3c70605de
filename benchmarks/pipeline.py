"""Throughput of the pipeline from JPEG files to batches, compared with a model's training.

    python -m benchmarks.pipeline FOLDER --model tokenlearner_b16_8at6

FOLDER has one subfolder of images per class. Without FOLDER, JPEG files of 500 x 375 pixels are
generated. A row for each number of threads has the throughput of the warm pipeline alone: decoding,
inception crop and mirroring. The row `train` is the model's rate on a batch in memory. A pipeline
with a larger rate than `train` keeps up with the model.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from benchmarks.rows import append_row, replace_file
from keras_tokenlearner import create_model
from keras_tokenlearner._extras import require
from keras_tokenlearner.data import ImageBatches, from_folder

COLUMNS = ("backend", "what", "model", "size", "batch_size", "threads", "images_per_second")


def main(arguments=None):
    """Write a row for each number of threads, and a row for the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="images, one subfolder per class")
    parser.add_argument("--model", default="tokenlearner_b16_8at6")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=20, help="batches to measure")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--output", type=Path, default="benchmarks/results/pipeline.csv")
    options = parser.parse_args(arguments)

    def write(what, threads, rate):
        row = {"backend": keras.backend.backend(), "what": what, "threads": threads}
        row |= {name: getattr(options, name) for name in ("model", "size", "batch_size")}
        append_row(options.output, COLUMNS, row | {"images_per_second": f"{rate:.1f}"})

    with tempfile.TemporaryDirectory() as made:
        if options.folder is None:
            _write_images(made, options.batch_size * 4)
        images = from_folder(options.folder or made)
        replace_file(options.output)
        shape = (options.size, options.size, 3)
        for threads in options.threads:
            batches = _batches(images, shape, options.batch_size, threads)
            write("pipeline", threads, _pipeline_rate(batches, options.batches))
        batch = _batches(images, shape, options.batch_size, max(options.threads))[0]
    write("train", "", _training_rate(options.model, batch, options.batches))


def _batches(images, shape, batch_size, threads):
    def augment(seed):
        return keras.layers.RandomFlip("horizontal", seed=seed)

    options = {"crop": 0.05, "augment": augment, "label_mode": "categorical", "threads": threads}
    return ImageBatches(images, shape, batch_size, **options)


def _pipeline_rate(batches, count):
    batches[0]
    batches.on_epoch_end()  # so the first measured batch is not read ahead
    start = time.perf_counter()
    for number in range(count):
        index = number % len(batches)
        if number and index == 0:
            batches.on_epoch_end()
        batches[index]
    return count * batches.batch_size / (time.perf_counter() - start)


def _training_rate(name, batch, count):
    images, labels = batch
    model = create_model(name, classes=labels.shape[1], input_shape=images.shape[1:])
    model.compile("adamw", "categorical_crossentropy")
    times = []
    for _ in range(count + 2):
        start = time.perf_counter()
        float(model.train_on_batch(images, labels))
        times.append(time.perf_counter() - start)
    return len(images) / statistics.median(times[2:])  # the first two batches compile


def _write_images(folder, count):
    """Write JPEG files with the detail of photographs, about 100 kB each."""
    pillow = require("PIL.Image", "image")
    random = np.random.default_rng(0)
    for number in range(count):
        path = Path(folder) / f"class_{number % 4}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        image = np.zeros((375, 500, 3))
        for scale in (4, 16, 64):
            coarse = random.integers(0, 256, (375 // scale + 1, 500 // scale + 1, 3))
            grown = pillow.fromarray(coarse.astype("uint8")).resize((500, 375))
            image += np.asarray(grown) / 3
        pillow.fromarray(image.astype("uint8")).save(path, quality=90)


if __name__ == "__main__":
    main()
