"""How much of a ViT's accuracy learned tokens keep when they are fitted into it, at which cost.

    python -m benchmarks.retrofit dinov2s.pt cifar10:FOLDER --at 2 3 4 6 9

The teacher is a DINOv2 ViT-S/14 with four registers (Apache-2.0) at 112 pixels, with a linear head
on its class token that is fitted here; with `--tuned-from`, its blocks from there on are trained on
the labels too, for as long as the students. Students: `retrofit` at each place with each number of
tokens, then `distill` on the same images; with `--reducers`, also what stands in the TokenLearner's
place, and `token_merging`, untrained, at the cost of the TokenLearner's student. What the teacher
gives is kept for all of them, at each place too, in float16 for training. A row is written as soon
as it is known, what the file has already is not done again, and the plot stands beside the file.
How fast these models are is another command, for a machine that does nothing else:
`benchmarks.retrofit_speed`.
"""

import argparse
import time
from pathlib import Path

import keras
import numpy as np

from benchmarks.rows import append_row, read_rows
from benchmarks.token_merging import merging_of_cost
from keras_tokenlearner import distill, retrofit
from keras_tokenlearner.analysis import costs
from keras_tokenlearner.data import load_named
from keras_tokenlearner.evaluation.scores import top_k_accuracy
from keras_tokenlearner.extras import require
from keras_tokenlearner.models import VisionTransformerConfig, vision_transformer
from keras_tokenlearner.models.head import before_head
from keras_tokenlearner.training.optimizers import adamw
from keras_tokenlearner.training.remember import keep, remember
from keras_tokenlearner.weights import load, source_config

KEYS = (
    *("reducer", "at", "num_tokens", "start"),
    *("train_images", "epochs", "learning_rate", "tuned_from"),
)
COLUMNS = (*KEYS, "accuracy", "kept", "gmacs", "cost_ratio", "train_seconds")
BATCH_SIZE = 64


def dinov2_small(input_shape, **settings):
    """Return the plain ViT-S/14 with four registers, with weights drawn at random."""
    config = VisionTransformerConfig(
        hidden_size=384, num_layers=12, num_heads=6, patch_size=(14, 14), **settings
    )
    return vision_transformer(config, input_shape=input_shape, classes=10, name="dinov2_s14")


def fitted_teacher(checkpoint, images, labels, cache):
    """Return the ViT of a checkpoint with a linear head, fitted by logistic regression."""
    model = dinov2_small(images.shape[1:], **source_config("dinov2", checkpoint))
    load(model, "dinov2", checkpoint, head="drop")
    head = model.get_layer("head")
    features = remember(before_head(model), images, "float32", cache=cache)
    scaler = require("sklearn.preprocessing", "distill").StandardScaler().fit(features)
    linear = require("sklearn.linear_model", "distill")
    fitted = linear.LogisticRegression(C=0.1, tol=1e-3, max_iter=1000)
    fitted.fit(scaler.transform(features), labels)
    kernel = fitted.coef_.T / scaler.scale_[:, None]
    head.set_weights([kernel, fitted.intercept_ - scaler.mean_ @ kernel])
    return model


def student_of(model, reducer, at, num_tokens, images=None):
    """Return the student that a row names, from its teacher, before any training."""
    if reducer == "token_merging":
        macs = costs(retrofit(model, at, num_tokens)).macs
        return merging_of_cost(model, macs)
    return retrofit(model, at, num_tokens, images=images, reducer=reducer)


def before_block(model, at):
    """Return the part of a model that gives what block `at` takes, or the tokens to be reduced."""
    return keras.Model(model.input, model.get_layer(f"block_{at - 1}").output)


def tune(model, images, labels, options):
    """Train the blocks of the teacher from a place on, and its head, on the labels alone."""
    before, epochs = before_block(model, options.tuned_from), options.epochs
    (path,) = keep([before], images, "float16", options.cache)
    weights = path.with_name(f"{path.stem}_{epochs}_{options.learning_rate}.weights.h5")
    if not weights.is_file():
        keras.utils.set_random_seed(0)
        steps = epochs * -(-len(images) // BATCH_SIZE)
        upper = keras.Model(before.output, model.output)
        optimizer = adamw(options.learning_rate, steps, warmup_steps=steps // 10)
        upper.compile(optimizer, "sparse_categorical_crossentropy")
        upper.fit(np.load(path), labels, batch_size=BATCH_SIZE, epochs=epochs, verbose=2)
        model.save_weights(weights)
    model.load_weights(weights)


def trained_student(model, images, labels, wanted, cache):
    """Return a student that is trained as its row wants it."""
    keras.utils.set_random_seed(0)
    start = images[:500] if wanted["start"] == "clusters" else None
    student = student_of(model, wanted["reducer"], wanted["at"], wanted["num_tokens"], start)
    if wanted["epochs"]:
        distill(
            student,
            model,
            images,
            labels,
            epochs=wanted["epochs"],
            batch_size=BATCH_SIZE,
            learning_rate=wanted["learning_rate"],
            cache=cache,
            verbose=2,
        )
    return student


def keep_for_students(model, places, train_images, test_images, cache):
    """Keep what students at some places take from their teacher, in one pass of each split."""
    before = [before_block(model, at) for at in places]
    keep(before, train_images, "float16", cache)
    keep([*before, before_head(model)], test_images, "float32", cache)


def scores(model, images, labels):
    """Return the columns of a model that need no other model."""
    return {"accuracy": accuracy(model, images, labels), "gmacs": costs(model).macs / 1e9}


def scores_behind(before, model, images, labels, cache):
    """Return the same columns; what the first part of the model gives is kept for other models."""
    kept = remember(before, images, "float32", cache=cache)
    behind = keras.Model(before.output, model.output)
    return {"accuracy": accuracy(behind, kept, labels), "gmacs": costs(model).macs / 1e9}


def accuracy(model, images, labels):
    """Return how often a model is right."""
    batches = range(0, len(images), 50)
    found = np.concatenate([model.predict_on_batch(images[i : i + 50]) for i in batches])
    return top_k_accuracy(labels, found)


def wanted_rows(arguments, train_images):
    """Return what each row of the curve is to be made with."""
    for at in arguments.at:
        for reducer in arguments.reducers:
            for num_tokens in arguments.num_tokens:
                epochs = 0 if reducer == "token_merging" else arguments.epochs
                values = (
                    reducer,
                    at,
                    num_tokens,
                    arguments.start if reducer == "token_learner" else "none",
                    train_images,
                    epochs,
                    arguments.learning_rate if epochs else 0,
                    arguments.tuned_from or "",
                )
                yield dict(zip(KEYS, values, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="the .pt file of the teacher")
    parser.add_argument("data", help="as keras_tokenlearner.data.load_named takes it")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/retrofit.csv"))
    parser.add_argument("--cache", type=Path, default=Path("retrofit_cache"))
    parser.add_argument("--size", type=int, default=112)
    places = range(1, 13)
    parser.add_argument("--at", type=int, nargs="+", default=[6, 3], choices=places)
    help_tuned = "train the teacher's blocks from there on, on the labels"
    parser.add_argument("--tuned-from", type=int, choices=places, help=help_tuned)
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
    cache = arguments.cache
    model = fitted_teacher(arguments.checkpoint, images, labels, cache)
    if arguments.tuned_from:
        tune(model, images, labels, arguments)
    keep_for_students(model, arguments.at, images, test[0], cache)
    of_teacher = dict.fromkeys(KEYS, "") | {"reducer": "teacher", "train_images": len(images)}
    of_teacher["tuned_from"] = arguments.tuned_from or ""
    done = [{key: row[key] for key in COLUMNS} for row in read_rows(arguments.output)]
    known = [row for row in done if all(row[key] == str(of_teacher[key]) for key in KEYS)]
    if known:
        of_teacher |= {name: float(known[0][name]) for name in ("accuracy", "gmacs")}
    else:
        of_teacher |= scores_behind(before_head(model), model, *test, cache)
        of_teacher |= {"kept": 1.0, "cost_ratio": 1.0, "train_seconds": ""}
        _append(arguments.output, of_teacher)
    for wanted in wanted_rows(arguments, len(images)):
        if any(all(row[key] == str(wanted[key]) for key in KEYS) for row in done):
            continue
        begun = time.perf_counter()
        student = trained_student(model, images, labels, wanted, cache)
        seconds = round(time.perf_counter() - begun)
        if wanted["reducer"] == "token_merging":  # in every block
            scored = scores(student, *test)
        else:
            scored = scores_behind(before_block(student, wanted["at"]), student, *test, cache)
        row = wanted | scored | {"train_seconds": seconds}
        row["kept"] = row["accuracy"] / of_teacher["accuracy"]
        row["cost_ratio"] = row["gmacs"] / of_teacher["gmacs"]
        _append(arguments.output, row)
    _draw(arguments.output, len(images))


def _draw(path, train_images):
    """Draw accuracy over cost for as many images: a colour a reducer, a line as many tokens."""
    figure = require("matplotlib.figure", "plot").Figure(figsize=(8, 6.5), layout="constrained")
    axis = figure.subplots()
    groups, colors = {}, {}
    for row in read_rows(path):
        if row["train_images"] == str(train_images):
            kind = row["reducer"].replace("_", " ")
            if row["tuned_from"]:
                kind += ", tuned" if kind == "teacher" else " of the tuned teacher"
            groups.setdefault((kind, row["num_tokens"]), []).append(row)
    for (kind, num_tokens), rows in groups.items():
        named = {} if kind in colors else {"label": kind}
        color = colors.setdefault(kind, f"C{len(colors)}")
        rows = sorted(rows, key=lambda row: float(row["cost_ratio"]))
        cost = [100 * float(row["cost_ratio"]) for row in rows]
        right = [100 * float(row["accuracy"]) for row in rows]
        axis.plot(cost, right, "o-", color=color, linewidth=1, **named)
        offset = (6, -12) if kind == "token learner" else (-6, 8)
        for x, y, row in zip(cost, right, rows, strict=True):
            if row["reducer"] not in ("teacher", "token_merging"):
                text = f"{num_tokens} at {row['at']}"
                axis.annotate(text, (x, y), offset, textcoords="offset points", fontsize=8)
    axis.set_xlabel("multiply-adds, in percent of the teacher's")
    axis.set_ylabel("right of the test images, in percent")
    axis.legend()
    axis.grid(alpha=0.3)
    figure.savefig(path.with_suffix(".png"), dpi=120)


def _append(path, row):
    rounded = {
        name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()
    }
    append_row(path, COLUMNS, rounded | {"learning_rate": row["learning_rate"]})


if __name__ == "__main__":
    main()
