"""Compare `from_preset` with every ViT that timm publishes, with two blocks and random weights.

`python -m tests.presets.timm_rows` compares all rows of `tests/data/timm_vits.csv`, the ViT
configurations of timm 1.0.31. It prints how many are exact, refused, wrong or crashed. Further
arguments select the rows whose names contain one of them. `--one-of-each` selects the smallest row
of each kind of model. `--results FILE` appends each verdict to this CSV file. An interrupted run
then continues from the verdicts in the file.
"""

import argparse
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
from benchmarks.torchvision_import import import_torchvision

TABLE = Path(__file__).parents[1] / "data" / "timm_vits.csv"
TOLERANCE = 1e-5  # relative to the size of the outputs
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
    # Models with stages accept no such `depth`.
    except (TypeError, AssertionError, IndexError, ValueError):
        module = timm.create_model(name)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1 and parameter.shape[0] > 1:
                fan_in = math.prod(parameter.shape[1:])
                parameter.normal_(0, fan_in**-0.5)
            else:  # biases, scales and tokens stay near their initial values, so scales stay near 1
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def refusal(name, folder):
    """Return the error of `from_preset` for an unsupported model, or `None`.

    The model gets no weights: models with stages cannot be made smaller, and have hundreds of
    millions of parameters.
    """
    import timm
    import torch
    from safetensors.numpy import save_file
    from timm.models._hub import save_config_for_hf

    with torch.device("meta"):
        module = timm.create_model(name)
    save_config_for_hf(module, folder / "config.json")
    save_file({"none": np.zeros(1, "float32")}, folder / "model.safetensors")
    try:
        kt.from_preset(folder)
    except ValueError as error:
        return str(error) if "does not support" in str(error) else None


def judge(row):
    """Return `"exact"`, `"refused"`, `"wrong"` or `"crashed"`, and the difference or the reason."""
    import torch
    from timm.models import save_for_hf

    with tempfile.TemporaryDirectory() as folder:
        reason = refusal(row["name"], Path(folder))
        if reason is not None:
            return "refused", reason.partition(": ")[2][-160:]
        try:
            module = theirs(row["name"])
        except RuntimeError as error:  # not enough memory
            return "unbuilt", str(error)[:80]
        save_for_hf(module, folder, safe_serialization=True)
        config = module.pretrained_cfg
        try:
            given = {"classifier_activation": None} if module.num_classes else {}
            model = kt.from_preset(folder, **given)
            height, width = model.input_shape[1:3]
            pixels = np.random.default_rng(0).uniform(0, 255, (1, height, width, 3))
            pixels = pixels.astype("float32")
            ours = outputs(model, pixels)
        except ValueError as error:
            return "refused", str(error).partition(": ")[2][-160:]
        except Exception as error:  # noqa: BLE001, counted
            return "crashed", f"{type(error).__name__}: {str(error)[:120]}"
    scaled = (pixels / 255 - np.asarray(config["mean"])) / np.asarray(config["std"])
    with torch.no_grad():
        scaled = torch.from_numpy(scaled.astype("float32")).permute(0, 3, 1, 2)
        try:
            tokens = module.forward_features(scaled)
        except AssertionError as error:  # our input has another size
            return "wrong", str(error)[:80]
        expected = [module.forward_head(tokens, pre_logits=True), module.forward_head(tokens)]
    expected = [array.numpy() for array in expected]
    differences = []
    for found, wanted in zip(ours, expected if len(ours) == 2 else expected[1:], strict=True):
        # Our features of DeiT are class token and distillation token, side by side. timm returns
        # their mean.
        if found.shape[-1] == 2 * wanted.shape[-1]:
            found = sum(np.split(found, 2, axis=-1)) / 2
        if found.shape != wanted.shape:
            return "wrong", f"shape {found.shape}, timm's is {wanted.shape}"
        differences.append(np.abs(found - wanted).max() / np.abs(wanted).max())
    is_exact = max(differences) < TOLERANCE
    return ("exact" if is_exact else "wrong"), " ".join(f"{d:.1e}" for d in differences)


def outputs(model, pixels):
    """Return features and logits, or features alone if the model has no classifier."""
    if model.head is None:
        found = [model(pixels, training=False)]
    else:
        found = keras.Model(model.input, [model.head.input, model.output])(pixels, training=False)
    return [keras.ops.convert_to_numpy(tensor) for tensor in found]


def results(path):
    """Return the verdicts and reasons of a file by name."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {name: (verdict, what) for name, verdict, what in csv.reader(file)}


def main():
    parser = argparse.ArgumentParser(description="Compare from_preset with timm, row by row.")
    parser.add_argument(
        "names", nargs="*", help="compare only rows whose names contain one of these"
    )
    parser.add_argument(
        "--one-of-each", action="store_true", help="compare only the smallest row of each kind"
    )
    parser.add_argument(
        "--results", type=Path, help="CSV file to add verdicts to; its rows are not compared again"
    )
    arguments = parser.parse_args()
    import_torchvision()  # timm imports it
    found = one_of_each(rows()) if arguments.one_of_each else rows()
    if arguments.names:
        found = [row for row in found if any(name in row["name"] for name in arguments.names)]
    known = results(arguments.results) if arguments.results else {}
    counts = collections.Counter()
    for row in sorted(found, key=size):  # smallest models first
        name = row["name"]
        if name in known:
            verdict, what = known[name]
        else:
            verdict, what = judge(row)
            if arguments.results:
                with arguments.results.open("a", newline="") as file:
                    csv.writer(file).writerow([name, verdict, what])
            keras.utils.clear_session()
            gc.collect()
        counts[verdict] += 1
        sys.stdout.write(f"{verdict:8} {name:60} {what}\n")
        sys.stdout.flush()
    total = ", ".join(f"{counts[k]} {k}" for k in ("exact", "refused", "wrong", "crashed"))
    sys.stdout.write(f"{len(found)} rows: {total}; {counts['unbuilt']} not built\n")


if __name__ == "__main__":
    main()
