"""The paper's comparisons on CIFAR-10, repeated with a small model.

    python -m benchmarks.paper_comparisons FOLDER --train-images 10000 --epochs 4

The comparisons are Figure 4 (place of the TokenLearner), Table 4 (TokenFuser), Table 5 (pooling)
and Figure 7 (fuser alternatives). The tokenisers of section 6.3 are for videos in the paper, and
for images here. Each variant of `vit_nano4` is trained by the recipe `cifar10` from scratch with
each seed. Each result is written at once, and a second run computes only missing results. The plot
is next to the CSV file. It has the results with the images and epochs of the last run.
"""

import argparse
import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.rows import append_row, check_columns, read_rows
from keras_tokenlearner import costs, create_model
from keras_tokenlearner._extras import require
from keras_tokenlearner._precision import dtype_policy
from keras_tokenlearner.training import Cifar10Recipe, train

_LEARNER = {"reducer": "token_learner", "num_tokens": 8, "token_attention": "mlp", "at": 3}

# Changes of each variant to the config of `vit_nano4`, which has 6 blocks on 8 x 8 tokens.
VARIANTS = {
    "plain": {},
    **{f"token_learner_at{at}": {**_LEARNER, "at": at} for at in range(6)},
    "token_fuser": {**_LEARNER, "fuser": "token_fuser"},
    "unpool": {**_LEARNER, "fuser": "unpool"},
    "reproject": {**_LEARNER, "fuser": "reproject"},
    "spatial_pooling": {"reducer": "spatial_pooling", "at": 3},
    "fixed_grid": {"reducer": "fixed_grid", "num_tokens": 8, "at": 3},
    "direct_tokens": {"reducer": "direct_tokens", "num_tokens": 8, "at": 3},
    "pooled_tokens": {"reducer": "pooled_tokens", "num_tokens": 8, "at": 3},
}
COMPARISONS = {
    "Figure 4: place": ("plain", *(f"token_learner_at{at}" for at in range(6))),
    "Table 4: fuser": ("plain", "token_learner_at3", "token_fuser"),
    "Table 5: pooling": ("plain", "token_learner_at3", "spatial_pooling"),
    "Figure 7: fuser alternatives": ("token_fuser", "unpool", "reproject"),
    "Section 6.3: tokenisers": (
        "token_learner_at3",
        "fixed_grid",
        "direct_tokens",
        "pooled_tokens",
    ),
}
SHARED = ("train_images", "test_images", "epochs")
KEYS = ("variant", "seed", *SHARED)
COLUMNS = (*KEYS, "accuracy", "gmacs", "mparams", "train_seconds")


@dataclass(frozen=True)
class VariantRecipe(Cifar10Recipe):
    """The recipe `cifar10` for a variant of the model, on a part of the images.

    Attributes:
        model: Name in the catalogue.
        variant: Name of a variant.
        train_images: Number of training images.
        test_images: Number of test images.
    """

    model: str = "vit_nano4"
    variant: str = "plain"
    train_images: int = 50_000
    test_images: int = 10_000

    def open(self):
        """Return the training images and the test images."""
        counts = self.train_images, self.test_images
        splits = zip(super().open(), counts, strict=True)
        return tuple(images.take(range(min(count, len(images)))) for images, count in splits)

    def build(self, classes):
        """Return the variant, not yet compiled."""
        shape, changes = (self.SIDE, self.SIDE, 3), VARIANTS[self.variant]
        with dtype_policy(self.precision):
            return create_model(self.model, classes=classes, input_shape=shape, **changes)


def main(arguments=None):
    """Train the missing variants, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("origin", help="argument `origin` of keras_tokenlearner.data.load_cifar10")
    parser.add_argument("--output", type=Path, default="benchmarks/results/paper_comparisons.csv")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-images", type=int, default=50_000)
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=Cifar10Recipe.epochs)
    options = parser.parse_args(arguments)
    check_columns("paper_comparisons", options.output, COLUMNS)
    shared = {name: getattr(options, name) for name in SHARED}
    for seed in options.seeds:
        for variant in options.variants:
            recipe = VariantRecipe(
                variant=variant, seed=seed, data=f"cifar10:{options.origin}", **shared
            )
            wanted = {key: str(getattr(recipe, key)) for key in KEYS}
            if not any(wanted.items() <= row.items() for row in read_rows(options.output)):
                append_row(options.output, COLUMNS, _row(recipe))
    texts = {name: str(value) for name, value in shared.items()}
    rows = [row for row in read_rows(options.output) if texts.items() <= row.items()]
    _draw(rows, options.output.with_suffix(".png"))


def _row(recipe):
    counted = costs(recipe.build(classes=10))
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        accuracy = train(recipe, folder)
    return {key: dataclasses.asdict(recipe)[key] for key in KEYS} | {
        "accuracy": f"{accuracy:.4f}",
        "gmacs": f"{counted.macs / 1e9:.5f}",
        "mparams": f"{counted.params / 1e6:.3f}",
        "train_seconds": round(time.perf_counter() - begun),
    }


def _draw(rows, path):
    """Draw a panel per comparison, a line per variant with its cost, and a dot per seed."""
    found = {}
    for row in rows:
        found.setdefault(row["variant"], []).append(row)
    groups = {
        title: [variant for variant in variants if variant in found]
        for title, variants in COMPARISONS.items()
    }
    groups = {title: variants for title, variants in groups.items() if variants}
    heights = [len(variants) for variants in groups.values()]
    figure = require("matplotlib.figure", "plot").Figure((8, 9), layout="constrained")
    panels = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for panel, (title, variants) in zip(panels, groups.items(), strict=True):
        names = []
        for line, variant in enumerate(variants):
            right = [100 * float(row["accuracy"]) for row in found[variant]]
            panel.plot(right, [line] * len(right), "o", color="C0", alpha=0.5)
            panel.plot(np.mean(right), line, "|", color="C1", markersize=16)
            cost = 1e3 * float(found[variant][0]["gmacs"])
            names.append(f"{variant.replace('_at', ' at ').replace('_', ' ')}, {cost:.1f} M")
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.set_title(title, loc="left", fontsize=10)
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel("top-1 accuracy in percent; multiply-adds after each name")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
