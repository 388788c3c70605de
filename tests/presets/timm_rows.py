"""Every ViT that timm publishes, with two blocks and random weights: does `from_preset` agree?

`python -m tests.presets.timm_rows` goes through all rows of `tests/data/timm_vits.csv`, the ViT
configurations of timm 1.0.31, and prints how many are exact, refused, wrong or crashed. With names
behind it, it goes through those that contain one of them; with `--one-of-each`, through the
smallest row of each kind of model.
"""

import collections
import csv
import gc
import math
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

import keras_tokenlearner as kt

TABLE = Path(__file__).parents[1] / "data" / "timm_vits.csv"
TOLERANCE = 1e-5  # of the size of the outputs
SIZES = ("name", "dim", "depth", "heads", "patch", "mlp_hidden", "params", "classes", "input")
NOT_OF_THE_GRAPH = (*SIZES, "lic", "mean", "interp", "crop", "reg", "nblk_types")


def rows():
    with TABLE.open(newline="") as file:
        return [row for row in csv.DictReader(file) if not row["err"]]


def one_of_each(found):
    """Return the smallest row of each kind of model."""
    kinds = {}
    for row in sorted(found, key=size):
        kinds.setdefault(tuple(row[c] for c in row if c not in NOT_OF_THE_GRAPH), row)
    return list(kinds.values())


def size(row):
    """Return a number that grows with the time that a row takes."""
    return int(row["dim"] or 0) * int(row["input"] or 0)


def theirs(name):
    """Return timm's model of two blocks, every parameter at random."""
    import timm
    import torch

    torch.manual_seed(0)
    try:
        module = timm.create_model(name, depth=2)
    except (TypeError, AssertionError, IndexError, ValueError):  # stages, not blocks
        module = timm.create_model(name)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1 and parameter.shape[0] > 1:
                fan_in = math.prod(parameter.shape[1:])
                parameter.normal_(0, fan_in**-0.5)
            else:  # biases, scales and tokens keep where they start, so that scales stay near 1
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def judge(row):
    """Return `"exact"`, `"refused"`, `"wrong"` or `"crashed"`, and the difference or the reason."""
    import torch
    from timm.models import save_for_hf

    with tempfile.TemporaryDirectory() as folder:
        try:
            module = theirs(row["name"])
        except RuntimeError as error:  # more memory than there is
            return "unbuilt", str(error)[:80]
        save_for_hf(module, folder, safe_serialization=True)
        config = module.pretrained_cfg
        try:
            model = kt.from_preset(folder, classifier_activation=None)
            height, width = model.input_shape[1:3]
            pixels = np.random.default_rng(0).uniform(0, 255, (1, height, width, 3))
            pixels = pixels.astype("float32")
            ours = keras.ops.convert_to_numpy(model(pixels, training=False))
        except ValueError as error:
            return "refused", str(error).partition(": ")[2][-160:]
        except Exception as error:  # noqa: BLE001, counted
            return "crashed", f"{type(error).__name__}: {str(error)[:120]}"
    scaled = (pixels / 255 - np.asarray(config["mean"])) / np.asarray(config["std"])
    with torch.no_grad():
        expected = module(torch.from_numpy(scaled.astype("float32")).permute(0, 3, 1, 2)).numpy()
    if ours.shape != expected.shape:
        return "wrong", f"shape {ours.shape}, timm's is {expected.shape}"
    difference = np.abs(ours - expected).max() / np.abs(expected).max()
    return ("exact" if difference < TOLERANCE else "wrong"), f"{difference:.1e}"


def main(arguments):
    found = rows()
    if "--one-of-each" in arguments:
        found = one_of_each(found)
    names = [name for name in arguments if not name.startswith("--")]
    if names:
        found = [row for row in found if any(name in row["name"] for name in names)]
    counts = collections.Counter()
    for row in sorted(found, key=size):  # the small ones first
        verdict, what = judge(row)
        counts[verdict] += 1
        sys.stdout.write(f"{verdict:8} {row['name']:60} {what}\n")
        sys.stdout.flush()
        gc.collect()
    total = ", ".join(f"{counts[k]} {k}" for k in ("exact", "refused", "wrong", "crashed"))
    sys.stdout.write(f"{len(found)} rows: {total}; {counts['unbuilt']} not built\n")


if __name__ == "__main__":
    main(sys.argv[1:])
