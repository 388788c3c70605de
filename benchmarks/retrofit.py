"""How much of a ViT's accuracy learned tokens keep when they are fitted into it, at which cost.

    python -m benchmarks.retrofit dinov2s.pt cifar10:FOLDER --at 2 3 4 6 9

The teacher is a DINOv2 ViT-S/14 with four registers (Apache-2.0) at 112 pixels, with a linear head
on its class token that is fitted here. Students: `retrofit` at each place with each number of
tokens, then `distill` on the same images; with `--reducers`, also what stands in the TokenLearner's
place. A row is written as soon as it is known, and what the file has already is not done again.
"""

import argparse
import time
from pathlib import Path

import keras

from benchmarks.rows import append_row, read_rows
from keras_tokenlearner import distill, retrofit
from keras_tokenlearner.data import load_named
from keras_tokenlearner.evaluation import compare
from keras_tokenlearner.extras import require
from keras_tokenlearner.models import VisionTransformerConfig, vision_transformer
from keras_tokenlearner.training.remember import remember
from keras_tokenlearner.weights import load, source_config

KEYS = ("reducer", "at", "num_tokens", "start", "train_images", "epochs", "learning_rate")
COLUMNS = (
    *KEYS,
    "accuracy",
    "kept",
    "gmacs",
    "cost_ratio",
    "images_per_second",
    "speed_ratio",
    "train_seconds",
)


def teacher(checkpoint, images, labels, cache):
    """Return the ViT of a checkpoint with a linear head, fitted by logistic regression."""
    config = VisionTransformerConfig(
        hidden_size=384,
        num_layers=12,
        num_heads=6,
        patch_size=(14, 14),
        **source_config("dinov2", checkpoint),
    )
    shape = images.shape[1:]
    model = vision_transformer(config, input_shape=shape, classes=10, name="dinov2_s14")
    load(model, "dinov2", checkpoint, head="drop")
    head = model.get_layer("head")
    features = remember(keras.Model(model.input, head.input), images, "float32", cache=cache)
    linear = require("sklearn.linear_model", "distill")
    fitted = linear.LogisticRegression(C=0.01, max_iter=2000).fit(features, labels)
    head.set_weights([fitted.coef_.T, fitted.intercept_])
    return model


def student_row(model, images, labels, test, wanted, cache):
    """Make one student, train it, and return its row."""
    start = images[:500] if wanted["start"] == "clusters" else None
    keras.utils.set_random_seed(0)
    student = retrofit(
        model, wanted["at"], wanted["num_tokens"], images=start, reducer=wanted["reducer"]
    )
    begun = time.perf_counter()
    distill(
        student,
        model,
        images,
        labels,
        epochs=wanted["epochs"],
        learning_rate=wanted["learning_rate"],
        cache=cache,
        verbose=2,
    )
    seconds = time.perf_counter() - begun
    of_teacher, of_student = compare([model, student], *test)
    row = wanted | {name: of_student[name] for name in ("accuracy", "gmacs", "images_per_second")}
    return row | {
        "kept": of_student["accuracy"] / of_teacher["accuracy"],
        "cost_ratio": of_student["gmacs"] / of_teacher["gmacs"],
        "speed_ratio": of_student["images_per_second"] / of_teacher["images_per_second"],
        "train_seconds": round(seconds),
    }


def teacher_row(model, test, train_images):
    """Return the teacher's own row."""
    (found,) = compare([model], *test)
    names = ("accuracy", "gmacs", "images_per_second")
    wanted = dict.fromkeys(KEYS, "") | {"reducer": "teacher", "train_images": train_images}
    ratios = dict.fromkeys(("kept", "cost_ratio", "speed_ratio"), 1.0)
    return wanted | ratios | {name: found[name] for name in names} | {"train_seconds": ""}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="the .pt file of the teacher")
    parser.add_argument("data", help="as keras_tokenlearner.data.load_named takes it")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/retrofit.csv"))
    parser.add_argument("--cache", type=Path, default=Path("retrofit_cache"))
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--at", type=int, nargs="+", default=[6, 3])
    parser.add_argument("--num-tokens", type=int, nargs="+", default=[8])
    parser.add_argument("--reducers", nargs="+", default=["token_learner"])
    parser.add_argument("--start", choices=["clusters", "random"], default="clusters")
    parser.add_argument("--train-images", type=int, default=50_000)
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    arguments = parser.parse_args()
    (images, labels), test = load_named(arguments.data, (arguments.size, arguments.size, 3))
    images, labels = images[: arguments.train_images], labels[: arguments.train_images]
    test = tuple(array[: arguments.test_images] for array in test)
    model = teacher(arguments.checkpoint, images, labels, arguments.cache)
    done = read_rows(arguments.output)
    if not any(row["reducer"] == "teacher" for row in done):
        _append(arguments.output, teacher_row(model, test, len(images)))
    for at in arguments.at:
        for reducer in arguments.reducers:
            learns = reducer == "token_learner"
            for num_tokens in arguments.num_tokens:
                wanted = {
                    "reducer": reducer,
                    "at": at,
                    "num_tokens": num_tokens,
                    "start": arguments.start if learns else "none",
                    "train_images": len(images),
                    "epochs": arguments.epochs,
                    "learning_rate": arguments.learning_rate,
                }
                if all(any(row[k] != str(wanted[k]) for k in KEYS) for row in done):
                    row = student_row(model, images, labels, test, wanted, arguments.cache)
                    _append(arguments.output, row)


def _append(path, row):
    rounded = {
        name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()
    }
    append_row(path, COLUMNS, rounded | {"learning_rate": row["learning_rate"]})


if __name__ == "__main__":
    main()
