"""Times outside the model: import, building, compilation, Python, preprocessing, and `fit`.

Run on an idle machine:

    python -m benchmarks.around

KerasHub and timm are compared if they are installed. A run replaces its file: pass another
`--output` for a part of the rows.
`benchmarks.pipeline` has the rate from JPEG files to batches.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.rows import append_row, replace_file
from benchmarks.timing import BACKENDS, child, in_child, take_turns

MEASURED = ("imports", "large", "python", "build", "preprocessing", "fit")
COLUMNS = ("backend", "what", "value", "unit", "goal")


def imports(repeats):
    """Return the time to import the package after Keras, and the time of the command's `--help`."""
    start = "import keras, time; t = time.perf_counter()"
    code = f"{start}; import keras_tokenlearner; print(time.perf_counter() - t)"
    seconds = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        seconds.append(float(done.stdout.split()[-1]))
    command, helps = [sys.executable, "-m", "keras_tokenlearner.cli", "--help"], []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        helps.append(time.perf_counter() - start)
    return [
        ("import after keras", 1e3 * statistics.median(seconds), "ms", "at most 300"),
        ("keras-tokenlearner --help", 1e3 * statistics.median(helps), "ms", "at most 1000"),
    ]


def large(repeats):
    """Return the time to build ViT-L/16, and the time of KerasHub's ViT-L/16."""
    from benchmarks.peers import keras_hub_vit
    from keras_tokenlearner import create_model

    calls = {"build vit_l16": lambda: create_model("vit_l16")}
    if importlib.util.find_spec("keras_hub"):
        calls["build KerasHub's ViT-L/16"] = lambda: keras_hub_vit(224, 24, 16, 1024)
    times = take_turns(list(calls.values()), repeats)
    return [(name, each.median, "s", "") for name, each in zip(calls, times, strict=True)]


def python(repeats):
    """Return the time of one image in a narrow ViT of 12 blocks: nearly only Python's overhead."""
    import keras

    from benchmarks.peers import step_of_any, timm_vit
    from keras_tokenlearner import create_model

    narrow = {"hidden_dim": 24, "num_heads": 12, "mlp_dim": 96}
    model = create_model("vit_b16", input_shape=(32, 32, 3), **narrow)
    models = {"ViT of 12 blocks and 24 channels, one image": model}
    if keras.backend.backend() == "torch" and importlib.util.find_spec("timm"):
        models["the same by timm"] = timm_vit(32, embed_dim=24)
    calls = [step_of_any(each, "inference", "float32", 1, 32) for each in models.values()]
    times = take_turns(calls, 10 * repeats)
    return [(name, 1e3 * each.median, "ms", "") for name, each in zip(models, times, strict=True)]


def build(repeats):
    """Return the time to build the largest model, and the time to compile B/16."""
    from benchmarks.steps import STEPS, step_of
    from keras_tokenlearner import create_model

    start = time.perf_counter()
    create_model("tokenlearner_l10_35_16at18")
    rows = [("build tokenlearner_l10_35_16at18", time.perf_counter() - start, "s", "under 15")]
    for step in STEPS:
        model = create_model("tokenlearner_b16_8at6", input_shape=(224, 224, 3))
        (times,) = take_turns([step_of(model, step, 1)], 3)
        name = f"first {step} step of tokenlearner_b16_8at6 at 224 over a warm one"
        rows.append((name, times.first - times.median, "s", ""))
    return rows


def preprocessing(repeats):
    """Return the time that scaling pixels inside the model adds to a step of B/16."""
    from benchmarks.steps import step_of
    from keras_tokenlearner import create_model

    shape = (224, 224, 3)
    models = [
        create_model("vit_b16", input_shape=shape, include_preprocessing=inside)
        for inside in (True, False)
    ]
    inside, outside = take_turns([step_of(m, "inference", 8) for m in models], repeats)
    return [("preprocessing inside vit_b16 at 224", overhead(inside, outside), "%", "at most 5")]


def fit(repeats, steps=30, batch_size=64):
    """Return how much longer an epoch of `fit` takes than `train_on_batch`, in percent."""
    import numpy as np

    from benchmarks.steps import random_batch, step_of
    from keras_tokenlearner import create_model

    model = create_model("tokenlearner_nano4_8at2", classes=10)
    step = step_of(model, "training", batch_size)
    pixels, labels = (np.concatenate([x] * steps) for x in random_batch(model, batch_size))
    calls = [
        lambda: [step() for _ in range(steps)],
        lambda: model.fit(pixels, labels, batch_size=batch_size, verbose=0),
    ]
    bare, whole = take_turns(calls, repeats)
    name = "fit of tokenlearner_nano4_8at2 over train_on_batch"
    return [(name, overhead(whole, bare), "%", "at most 5")]


def overhead(more, less):
    """Return the extra time of the fastest `more` call over the fastest `less` call, in percent.

    On a busy machine, the median of long calls would vary by more than this difference.
    """
    return 100 * (min(more.warm) / min(less.warm) - 1)


def measure(what, repeats):
    """Return the measurements of one function of this file, on the backend of this process."""
    return globals()[what](repeats)


def main(arguments=None):
    """Write a row for each measurement and backend."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--what", nargs="+", choices=MEASURED, default=MEASURED)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/around.csv"))
    options = parser.parse_args(arguments)
    replace_file(options.output)
    for backend in options.backends:
        for what in options.what:
            case = {"what": what, "repeats": options.repeats}
            for name, value, unit, goal in in_child("around", backend, case):
                row = (backend, name, f"{value:.3g}", unit, goal)
                append_row(options.output, COLUMNS, dict(zip(COLUMNS, row, strict=True)))


if __name__ == "__main__":
    child(measure) or main()
