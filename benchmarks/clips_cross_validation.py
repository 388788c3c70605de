"""Small video models and motion statistics, cross-validated on a few hundred real clips.

    KERAS_BACKEND=torch OMP_NUM_THREADS=1 python -m benchmarks.clips_cross_validation FOLDER

`benchmarks.clips_recipe` describes FOLDER and the training. This benchmark trains each network for
every fold. Each result is written at once, and a second run computes only missing results. A result
takes one core two to four minutes.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from benchmarks.clips import load_clips
from benchmarks.clips_recipe import IMAGES, ClipsRecipe, at, fitted
from benchmarks.motion_statistics import accuracies, appearance_statistics, motion_statistics
from benchmarks.rows import append_row, check_columns, read_rows
from keras_tokenlearner import costs
from keras_tokenlearner.evaluation import top_k_accuracy

KEYS = ("model", "start", "folds", "seed")
COLUMNS = (
    *KEYS,
    "epochs",
    "mean_accuracy",
    "spread",
    "accuracies",
    "gmacs",
    "mparams",
)
_X2PLUS1D = ClipsRecipe(weights="", frames=7, epochs=20, learning_rate=4e-3)
NETWORKS = {
    ("tokenlearner_vivit", "images"): ClipsRecipe(IMAGES),
    ("tokenlearner_vivit", "random"): ClipsRecipe(IMAGES, weights=""),
    ("vivit", "images"): ClipsRecipe("vit_nano4"),
    ("vivit", "random"): ClipsRecipe("vit_nano4", weights=""),
    ("tokenlearner_x2plus1d", "random"): replace(_X2PLUS1D, model="tokenlearner_x2plus1d_pico"),
    ("x2plus1d", "random"): replace(_X2PLUS1D, model="x2plus1d_pico"),
}
STATISTICS = {
    "motion_statistics": motion_statistics,
    "appearance_statistics": appearance_statistics,
    "all_statistics": lambda pixels: np.concatenate(
        [motion_statistics(pixels), appearance_statistics(pixels)], axis=1
    ),
}


def views(motion, input_shape):
    """Return clips at three moments, each also mirrored: a list of six arrays."""
    found = []
    for place in (0.0, 0.5, 1.0):
        clips = fitted(at(motion, input_shape[0], place), input_shape)
        found += [clips, np.ascontiguousarray(clips[:, :, :, ::-1])]
    return found


def trained(recipe, clips):
    """Train the network of a recipe on clips, and return it."""
    keras.utils.set_random_seed(recipe.seed)
    model = recipe.build(len(clips.class_names))
    batches = recipe.batches(clips, model.input_shape[1:], training=True)
    model.compile(
        recipe.optimizer(len(batches)),
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
    )
    model.fit(batches, epochs=recipe.epochs, shuffle=False, verbose=0)
    return model


def network_row(recipe, clips, folds, seed):
    """Train and score a network in each fold, and return the result as a row of the CSV file."""
    found = []
    for number, (train, test) in enumerate(folds):
        model = trained(replace(recipe, seed=len(folds) * seed + number), clips.part(train))
        seen = views(clips.part(test).motion, model.input_shape[1:])
        scores = sum(np.log(model.predict(view, verbose=0) + 1e-9) for view in seen)
        found.append(top_k_accuracy(clips.labels[test], scores))
    counted = costs(model)
    return summary(found) | {
        "epochs": recipe.epochs,
        "gmacs": f"{counted.macs / 1e9:.4f}",
        "mparams": f"{counted.params / 1e6:.3f}",
    }


def summary(found):
    """Return the mean and the standard deviation of the accuracies of the folds."""
    return {
        "mean_accuracy": f"{np.mean(found):.3f}",
        "spread": f"{np.std(found):.3f}",
        "accuracies": " ".join(f"{accuracy:.3f}" for accuracy in found),
    }


def main(arguments=None):
    """Compute the missing results, and append them to the CSV file."""
    names = [*STATISTICS, *dict.fromkeys(name for name, _ in NETWORKS)]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="folder of the clips and labels.csv")
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="each has other folds")
    parser.add_argument("--cache", default="clips.npz", help="file of decoded videos")
    parser.add_argument(
        "--output", type=Path, default="benchmarks/results/clips_cross_validation.csv"
    )
    options = parser.parse_args(arguments)
    check_columns("clips_cross_validation", options.output, COLUMNS)
    clips = load_clips(options.folder, options.cache)
    for seed in options.seeds:
        folds = clips.folds(options.folds, seed)
        for name in options.models:
            for start in [start for model, start in NETWORKS if model == name] or [""]:
                wanted = dict(zip(KEYS, (name, start, options.folds, seed), strict=True))
                texts = {key: str(value) for key, value in wanted.items()}
                if any(texts.items() <= row.items() for row in read_rows(options.output)):
                    continue
                if name in STATISTICS:
                    found = accuracies(STATISTICS[name](clips.pixels), clips.labels, folds)
                    row = summary(found)
                else:
                    row = network_row(NETWORKS[name, start], clips, folds, seed)
                append_row(options.output, COLUMNS, wanted | row)


if __name__ == "__main__":
    main()
