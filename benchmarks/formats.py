"""One trained model in every format from every backend: success, difference and speed.

Run on an idle machine:

    pip install -e ".[formats,tensorflow,jax,torch]"
    python -m benchmarks.formats tokenlearner_nano4_8at2 --weights fashion_mnist

ONNX from JAX also needs jax2onnx and an older orbax. LiteRT from torch needs litert-torch. Rows
without these libraries state that they are missing. Each row has its own process. A failed export
has a row with its error. Outputs are logits, compared with the Keras model on the same backend.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.format_kinds import KINDS, left_in_float
from benchmarks.rows import append_row
from benchmarks.timing import BACKENDS

BATCHES = (1, 32)
COLUMNS = (
    "format",
    "backend",
    "works",
    "batch",
    "max_difference",
    "bytes",
    "ms_1",
    "ms_32",
    "note",
)
LONGEST = 200  # characters of an error that are kept
LIBRARIES = ("keras", *BACKENDS, "onnx", "onnxruntime", "openvino", "ai-edge-litert")


def main(arguments=None):
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name of a model")
    parser.add_argument("--weights", help="name or path of weights; random without it")
    parser.add_argument("--formats", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument(
        "--repeats", type=int, default=50, help="number of calls, whose median is printed"
    )
    parser.add_argument("--row", help=argparse.SUPPRESS)  # measure this format in this process
    parser.add_argument("--output", type=Path, default="benchmarks/results/formats.csv")
    options = parser.parse_args(arguments)
    if options.row:
        try:
            row = measure(options.row, options.model, options.weights, options.repeats)
        except Exception as error:  # noqa: BLE001, whatever it is, it goes into the table
            row = {"works": "no", "note": _said(error)}
        print(json.dumps(row))
        return
    options.output.unlink(missing_ok=True)
    for kind in options.formats:
        for backend in options.backends:
            row = {"format": kind, "backend": backend, **_row(kind, backend, options)}
            append_row(options.output, COLUMNS, row, LIBRARIES)


def measure(kind, name, weights, repeats):
    """Return a row of the table, as a dictionary, on the backend of this process."""
    model, images = _model(name, weights)
    right = model.predict(images, batch_size=len(images), verbose=0)
    batch, failure = "any", None
    with tempfile.TemporaryDirectory() as folder:
        try:
            runs = dict.fromkeys(BATCHES, _write(kind, model, Path(folder) / "any", None))
            found = runs[1](images[:1]), runs[32](images)
        except Exception as error:  # noqa: BLE001, it goes into the table too
            if kind not in ("onnx", "openvino", "litert", "torch"):
                raise
            batch, failure = "fixed", error
            runs = {size: _write(kind, model, Path(folder) / str(size), size) for size in BATCHES}
            found = runs[1](images[:1]), runs[32](images)
        used = Path(folder) / ("any" if batch == "any" else "1")
        size = sum(file.stat().st_size for file in used.rglob("*") if file.is_file())
    differences = [np.abs(np.asarray(x) - right[: len(x)]).max() for x in found]
    note = left_in_float(model) if kind == "int8" else ""
    return {
        "works": "yes",
        "batch": batch,
        "max_difference": f"{max(differences):.1e}",
        "bytes": size,
        "ms_1": f"{_median_ms(runs[1], images[:1], repeats):.3g}",
        "ms_32": f"{_median_ms(runs[32], images, repeats):.3g}",
        "note": f"with any batch: {_said(failure)}" if failure else note,
    }


def _model(name, weights):
    """Return a model and images for it. Random weights are large, so outputs differ by input."""
    import keras

    from keras_tokenlearner import create_model

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    model = create_model(name, weights=weights, classifier_activation=None)
    if weights is None:
        noise = [random.normal(0, 0.05, w.shape) for w in model.get_weights()]
        model.set_weights([w + x for w, x in zip(model.get_weights(), noise, strict=True)])
    shape = (max(BATCHES), *model.input_shape[1:])
    return model, random.integers(0, 256, shape).astype("float32")


def _write(kind, model, folder, size):
    folder.mkdir()
    return KINDS[kind](model, folder, (size, *model.input_shape[1:]))


def _median_ms(run, images, repeats):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        np.asarray(run(images))
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def _row(kind, backend, options):
    """Return a row that another process has measured, or the reason of its failure."""
    again = [sys.executable, "-m", "benchmarks.formats", options.model, "--row", kind]
    again += ["--repeats", str(options.repeats)]
    again += ["--weights", options.weights] if options.weights else []
    done = subprocess.run(
        again, capture_output=True, text=True, env={**os.environ, "KERAS_BACKEND": backend}
    )
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = done.stderr.strip().splitlines()[-1:]
    return {"works": "no", "note": f"exit status {done.returncode}: {' '.join(last)}"[:LONGEST]}


def _said(error):
    """Return an error in one line, without the paths of this machine."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return re.sub(r"/\S*/site-packages/", "", text)[:LONGEST]


if __name__ == "__main__":
    main()
