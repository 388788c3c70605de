"""Small video models on a few hundred real clips, cross-validated: do they beat motion statistics?

    KERAS_BACKEND=torch OMP_NUM_THREADS=1 python -m benchmarks.clips_cross_validation FOLDER

FOLDER holds the clips and `labels.csv` with columns file, label and source_video; no source is
split between folds. Networks see where the clips move: differences of frames, 28 x 28 and grey as
the images of the shipped weights, so that the same networks start from those too. A row is written
as soon as it is known, and what the file has already is not done again. Two to four minutes of one
core each.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from benchmarks.clips import load_clips
from benchmarks.motion_statistics import accuracies, appearance_statistics, motion_statistics
from benchmarks.rows import append_row, read_rows
from keras_tokenlearner import costs, create_model
from keras_tokenlearner.data.batches import ReadBatches
from keras_tokenlearner.data.video import augment_clip, fit_clip
from keras_tokenlearner.training.optimizers import adamw
from keras_tokenlearner.weights import load

IMAGES = "tokenlearner_nano4_8at2"
BATCH_SIZE = 16
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


@dataclass(frozen=True)
class Network:
    """How a network is built and trained.

    Attributes:
        name: In the catalogue.
        frames: Of a clip.
        epochs: Passes over the training clips.
        learning_rate: The highest.
    """

    name: str
    frames: int
    epochs: int
    learning_rate: float

    def build(self, start):
        """Return the network, to be compiled; with `start` "images" from the weights that ship."""
        is_vivit = self.name in (IMAGES, "vit_nano4")
        changes = {"patch_size": (1, 4, 4)} if is_vivit else {}
        shape = (self.frames, 28, 28, 1)
        model = create_model(self.name, classes=2, input_shape=shape, **changes)
        if start == "images":
            trained = create_model(IMAGES, weights="fashion_mnist")
            # The plain network has no place for the weights of the TokenLearner.
            partial = self.name != IMAGES
            load(model, "keras_tokenlearner", trained, head="reset", partial=partial)
        return model


NETWORKS = {
    ("tokenlearner_vivit", "images"): Network(IMAGES, 4, 6, 5e-4),
    ("tokenlearner_vivit", "random"): Network(IMAGES, 4, 6, 5e-4),
    ("vivit", "images"): Network("vit_nano4", 4, 6, 5e-4),
    ("vivit", "random"): Network("vit_nano4", 4, 6, 5e-4),
    ("tokenlearner_x2plus1d", "random"): Network("tokenlearner_x2plus1d_pico", 7, 20, 4e-3),
    ("x2plus1d", "random"): Network("x2plus1d_pico", 7, 20, 4e-3),
}
STATISTICS = {
    "motion_statistics": motion_statistics,
    "appearance_statistics": appearance_statistics,
    "all_statistics": lambda pixels: np.concatenate(
        [motion_statistics(pixels), appearance_statistics(pixels)], axis=1
    ),
}


class MotionBatches(ReadBatches):
    """Training batches: clips at random moments, each cropped and mirrored alike in all frames."""

    def __init__(self, motion, labels, input_shape, seed):
        super().__init__(motion, threads=1, batch_size=BATCH_SIZE, seed=seed)
        self.targets, self.input_shape = np.eye(2, dtype="float32")[labels], input_shape

    def __getitem__(self, index):
        rows = self.rows(index)
        return np.stack(self.found(index)), self.targets[rows]

    def read(self, row, epoch):
        random = np.random.default_rng((self.seed, epoch, row))
        frames, height, width, _ = self.input_shape
        motion = self.arrays[0][row]
        clip = at(motion, frames, random.uniform())
        return augment_clip(clip, height, width, random, scale=(0.7, 1.0), colour=0.1)


def at(motion, frames, place):
    """Return some frames at even distances of one clip or several; `place` is in [0, 1]."""
    stride = motion.shape[-4] // frames
    start = round(place * (motion.shape[-4] - 1 - stride * (frames - 1)))
    return motion[..., start : start + stride * frames : stride, :, :, :]


def views(motion, input_shape):
    """Return three moments of clips, and each mirrored: a list of six arrays."""
    frames, height, width, _ = input_shape
    found = []
    for place in (0.0, 0.5, 1.0):
        clips = at(motion, frames, place)
        clips = np.stack([fit_clip(clip, height, width) for clip in clips])
        found += [clips, np.ascontiguousarray(clips[:, :, :, ::-1])]
    return found


def trained(network, start, motion, labels, seed):
    """Return a network that was trained on clips."""
    keras.utils.set_random_seed(seed)
    model = network.build(start)
    batches = MotionBatches(motion, labels, model.input_shape[1:], seed)
    steps = network.epochs * len(batches)
    model.compile(
        adamw(network.learning_rate, steps, len(batches)),
        keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
    )
    model.fit(batches, epochs=network.epochs, shuffle=False, verbose=0)
    return model


def network_row(network, start, clips, folds, seed):
    """Train and score a network in each fold, and return what the row says of it."""
    motion, found = clips.motion, []
    for number, (train, test) in enumerate(folds):
        model_seed = len(folds) * seed + number
        model = trained(network, start, motion[train], clips.labels[train], model_seed)
        seen = views(motion[test], model.input_shape[1:])
        scores = sum(np.log(model.predict(view, verbose=0) + 1e-9) for view in seen)
        found.append(np.mean(scores.argmax(1) == clips.labels[test]))
    counted = costs(model)
    return summary(found) | {
        "epochs": network.epochs,
        "gmacs": f"{counted.macs / 1e9:.4f}",
        "mparams": f"{counted.params / 1e6:.3f}",
    }


def summary(found):
    """Return mean and spread, the standard deviation, of the accuracies of the folds."""
    return {
        "mean_accuracy": f"{np.mean(found):.3f}",
        "spread": f"{np.std(found):.3f}",
        "accuracies": " ".join(f"{accuracy:.3f}" for accuracy in found),
    }


def main(arguments=None):
    """Compute the rows that are missing."""
    names = [*STATISTICS, *dict.fromkeys(name for name, _ in NETWORKS)]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="of the clips and labels.csv")
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="each with its folds")
    parser.add_argument("--cache", default="clips.npz", help="of what was decoded")
    parser.add_argument(
        "--output", type=Path, default="benchmarks/results/clips_cross_validation.csv"
    )
    options = parser.parse_args(arguments)
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
                    row = network_row(NETWORKS[name, start], start, clips, folds, seed)
                append_row(options.output, COLUMNS, wanted | row)


if __name__ == "__main__":
    main()
