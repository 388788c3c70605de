"""Models in every format of `export`: agreement, latency and throughput in the format's runtime.

Run on an idle machine, with the runtimes installed:

    pip install -e ".[formats,tensorflow,jax,torch]"
    python -m benchmarks.formats vit_b16 tokenlearner_b16_8at6 --backends torch

Each row has its own process, which builds the model and exports it. `difference` is the largest
difference from the probabilities of the Keras model in float32. `same_top_1` counts the images with
the same most probable class. A failed export has a row with its error.

Rows of `bfloat16` export a model of the policy `mixed_bfloat16`. OpenVINO runs the float32 file in
bfloat16 instead. The format `compiled` is a `.pt2` file under `torch.compile`. The format `keras`
is the model itself.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.rows import append_row, replace_file
from benchmarks.timing import BACKENDS

KINDS = {  # format: its precisions
    "keras": ("float32", "bfloat16"),
    "saved_model": ("float32", "bfloat16"),
    "onnx": ("float32", "int8"),
    "openvino": ("float32", "bfloat16"),
    "litert": ("float32", "int8"),
    "pt2": ("float32", "bfloat16"),
    "compiled": ("float32", "bfloat16"),
}
BATCHES = (1, 8)
COLUMNS = (
    *("model", "format", "precision", "backend", "works", "mib", "difference", "same_top_1"),
    *("ms_1", "images_per_second", "best_batch", "note"),
)
LONGEST = 200  # characters of an error that are kept
LIBRARIES = ("keras", *BACKENDS, "onnx", "onnxruntime", "openvino", "ai-edge-litert")


def main(arguments=None):
    """Write a table with a row for each model, format and precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="names of models")
    parser.add_argument("--weights", help="name or path of weights; random without it")
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--formats", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument(
        "--repeats", type=int, default=5, help="number of calls, whose median is printed"
    )
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)  # measured in this process
    parser.add_argument("--output", type=Path, default="benchmarks/results/formats.csv")
    options = parser.parse_args(arguments)
    if options.case:
        try:
            row = measure(*options.case, options)
        except Exception as error:  # noqa: BLE001, the table shows each error
            row = {"works": "no", "note": _in_one_line(error)}
        print(json.dumps(row))
        return
    replace_file(options.output)
    pairs = [(kind, precision) for kind in options.formats for precision in KINDS[kind]]
    for model, pair, backend in product(options.models, pairs, options.backends):
        row = dict(zip(COLUMNS, (model, *pair, backend), strict=False))
        row |= _in_own_process(model, *pair, backend, options)
        append_row(options.output, COLUMNS, row, LIBRARIES)


def measure(kind, precision, options):
    """Measure a model in one format, and return a row of the table as a dictionary."""
    name, size = options.models[0], options.size
    model, images = model_and_images(name, size, options.weights)
    right = _probabilities(model.predict(images, batch_size=1, verbose=0))
    if precision == "bfloat16" and kind != "openvino":
        values = model.get_weights()
        model = _build(name, size, dtype="mixed_bfloat16")
        model.set_weights(values)
    with tempfile.TemporaryDirectory() as folder:
        run, file_bytes = _runner(model, kind, precision, Path(folder))
        found = np.concatenate([run(images[:1]), run(images[1:])])
        seconds = {
            batch: _median_seconds(run, images[:batch], options.repeats) for batch in BATCHES
        }
    best = max(BATCHES, key=lambda batch: batch / seconds[batch])
    return {
        "works": "yes",
        "mib": f"{file_bytes / 2**20:.1f}",
        "difference": f"{np.abs(found - right).max():.1e}",
        "same_top_1": f"{(found.argmax(-1) == right.argmax(-1)).sum()}/{len(right)}",
        "ms_1": f"{1e3 * seconds[1]:.3g}",
        "images_per_second": f"{best / seconds[best]:.3g}",
        "best_batch": best,
    }


def _build(name, size, **options):
    from keras_tokenlearner import create_model

    options["input_shape"] = (size, size, 3)
    return create_model(name, classifier_activation="softmax", **options)


def model_and_images(name, size, weights=None):
    """Return a model and test images. Random weights are large, so outputs differ by image."""
    import keras

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    model = _build(name, size, weights=weights)
    if weights is None:
        noise = [random.normal(0, 0.05, w.shape) for w in model.get_weights()]
        model.set_weights([w + x for w, x in zip(model.get_weights(), noise, strict=True)])
    shape = (max(BATCHES), *model.input_shape[1:])
    return model, random.integers(0, 256, shape).astype("uint8")


def _runner(model, kind, precision, folder):
    """Return a function from uint8 pixels to probabilities, and the bytes of the exported file."""
    from keras_tokenlearner import export
    from keras_tokenlearner.serving.formats import FORMATS
    from keras_tokenlearner.serving.runtimes import load_exported, load_openvino

    if kind == "keras":
        size = sum(np.asarray(value).nbytes for value in model.get_weights())
        return lambda images: _probabilities(model.predict_on_batch(images)), size
    format = "pt2" if kind == "compiled" else kind
    path = folder / f"model{FORMATS[format].suffix}"
    int8 = "int8" if precision == "int8" else None
    path = export(model, path, format=format, precision=int8, check=False).path
    if kind == "compiled":
        run = compiled_file(path)
    elif (kind, precision) == ("openvino", "bfloat16"):
        run = load_openvino(path, "bf16")
    else:
        run = load_exported(path, format)
    files = folder.rglob("*")
    size = sum(file.stat().st_size for file in files if file.is_file())
    return lambda images: run(images)["probabilities"], size


def compiled_file(path):
    """Return a function from uint8 pixels to the outputs of a `.pt2` file under `torch.compile`."""
    import torch

    module = torch.compile(torch.export.load(path).module())

    def run(images):
        with torch.no_grad():
            return {name: x.float().numpy() for name, x in module(torch.from_numpy(images)).items()}

    return run


def _probabilities(outputs):
    import keras

    return np.asarray(keras.ops.convert_to_numpy(outputs), "float32")


def _median_seconds(run, images, repeats):
    times = []
    for _ in range(repeats + 1):  # the first call may compile
        start = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def _in_own_process(model, kind, precision, backend, options):
    """Run `measure` in another process. Return the measured row, or the reason of a failure."""
    again = [sys.executable, "-m", "benchmarks.formats", model, "--case", kind, precision]
    again += ["--repeats", str(options.repeats), "--size", str(options.size)]
    again += ["--weights", options.weights] if options.weights else []
    done = subprocess.run(
        again, capture_output=True, text=True, env={**os.environ, "KERAS_BACKEND": backend}
    )
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = done.stderr.strip().splitlines()[-1:]
    return {"works": "no", "note": f"exit status {done.returncode}: {' '.join(last)}"[:LONGEST]}


def _in_one_line(error):
    """Return an error in one line, without the paths of this machine."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return re.sub(r"/\S*/site-packages/", "", text)[:LONGEST]


if __name__ == "__main__":
    main()
