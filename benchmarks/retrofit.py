"""Top-1 accuracy and cost of a trained ViT before and after `retrofit` and `distill`.

    python -m benchmarks.retrofit dinov2s.pt cifar10:FOLDER --at 2 3 4 6 9

The teacher is a DINOv2 ViT-S/14 with four registers (Apache-2.0) at 112 pixels. The command fits a
linear head to the class token. `--tuned-from N` also trains the teacher's blocks from N on, on the
labels and for the epochs of the students.

Each position and number of tokens gives one student by `retrofit`. `distill` trains it on the same
images. `--reducers` adds other reducers than the TokenLearner. `token_merging` is not trained, and
has a cost as near as possible to the cost of the TokenLearner's student.

Outputs of the teacher's blocks are stored for all students, in float16 for training. Each result is
written at once, and a second run computes only missing results. The plot is next to the CSV file.
`benchmarks.retrofit_speed` measures the speed of these models; run it on an idle machine.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from benchmarks.retrofit_recipe import RetrofitRecipe, before_block
from benchmarks.rows import append_row, read_rows
from keras_tokenlearner._extras import require
from keras_tokenlearner.analysis import costs
from keras_tokenlearner.evaluation.scores import top_k_accuracy
from keras_tokenlearner.models.features import before_head
from keras_tokenlearner.training.remember import keep, remember

KEYS = (
    *("reducer", "at", "num_tokens", "start"),
    *("train_images", "epochs", "learning_rate", "tuned_from"),
)
COLUMNS = (*KEYS, "accuracy", "kept", "gmacs", "cost_ratio", "train_seconds")


def keep_for_students(model, places, train_images, test_images, cache):
    """Store the teacher's outputs for students at the positions `places`, in one run per split."""
    before = [before_block(model, at) for at in places]
    keep(before, train_images, "float16", cache)
    keep([*before, before_head(model)], test_images, "float32", cache)


def scores(model, images, labels):
    """Return the columns of the CSV file with the accuracy and cost of a model."""
    return {"accuracy": accuracy(model, images, labels), "gmacs": costs(model).macs / 1e9}


def scores_behind(before, model, images, labels, cache):
    """Return the result of `scores`, and store the outputs of `before` for other models."""
    kept = remember(before, images, "float32", cache=cache)
    behind = keras.Model(before.output, model.output)
    return {"accuracy": accuracy(behind, kept, labels), "gmacs": costs(model).macs / 1e9}


def accuracy(model, images, labels):
    """Return the top-1 accuracy of a model."""
    batches = range(0, len(images), 50)
    found = np.concatenate([model.predict_on_batch(images[i : i + 50]) for i in batches])
    return top_k_accuracy(labels, found)


def wanted_recipes(recipe, places, reducers, nums_tokens):
    """Return a recipe for each position, reducer and number of tokens."""
    for at in places:
        for reducer in reducers:
            for num_tokens in nums_tokens:
                wanted = replace(recipe, reducer=reducer, at=at, num_tokens=num_tokens)
                if reducer != "token_learner":
                    wanted = replace(wanted, start="none")
                if reducer == "token_merging":
                    wanted = replace(wanted, epochs=0, learning_rate=0)
                yield wanted


def keys_of(recipe):
    """Return the columns that identify a recipe in the CSV file."""
    return {key: getattr(recipe, key) for key in KEYS} | {"tuned_from": recipe.tuned_from or ""}


def main():
    default = RetrofitRecipe()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="the .pt file of the teacher")
    parser.add_argument("data", help="name of a data set for keras_tokenlearner.data.load_named")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/retrofit.csv"))
    parser.add_argument("--cache", default=default.cache)
    parser.add_argument("--size", type=int, default=default.size)
    places = range(1, 13)
    parser.add_argument("--at", type=int, nargs="+", default=[6, 3], choices=places)
    help_tuned = "also train the teacher on the labels, from this block on"
    parser.add_argument("--tuned-from", type=int, default=0, choices=places, help=help_tuned)
    parser.add_argument("--num-tokens", type=int, nargs="+", default=[8])
    parser.add_argument("--reducers", nargs="+", default=["token_learner"])
    parser.add_argument("--start", choices=["grid", "random"], default=default.start)
    parser.add_argument("--train-images", type=int, default=50_000)
    parser.add_argument("--test-images", type=int, default=default.test_images)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate)
    options = vars(parser.parse_args())
    output, places = options.pop("output"), options.pop("at")
    reducers, nums_tokens = options.pop("reducers"), options.pop("num_tokens")
    recipe = RetrofitRecipe(data=options.pop("data"), **options)
    (images, labels), test = recipe.arrays
    model, cache = recipe.teacher, recipe.cache
    keep_for_students(model, places, images, test[0], cache)
    of_teacher = dict.fromkeys(KEYS, "") | {"reducer": "teacher", "train_images": len(images)}
    of_teacher["tuned_from"] = keys_of(recipe)["tuned_from"]
    done = [{key: row[key] for key in COLUMNS} for row in read_rows(output)]
    known = [row for row in done if all(row[key] == str(of_teacher[key]) for key in KEYS)]
    if known:
        of_teacher |= {name: float(known[0][name]) for name in ("accuracy", "gmacs")}
    else:
        of_teacher |= scores_behind(before_head(model), model, *test, cache)
        of_teacher |= {"kept": 1.0, "cost_ratio": 1.0, "train_seconds": ""}
        _append(output, of_teacher)
    for wanted in wanted_recipes(recipe, places, reducers, nums_tokens):
        keys = keys_of(wanted) | {"train_images": len(images)}
        if any(all(row[key] == str(keys[key]) for key in KEYS) for row in done):
            continue
        begun = time.perf_counter()
        student = wanted.student(model, images)
        if wanted.epochs:
            wanted.teach(student, model, images, labels)
        seconds = round(time.perf_counter() - begun)
        if wanted.reducer == "token_merging":  # it merges in every block
            scored = scores(student, *test)
        else:
            scored = scores_behind(before_block(student, wanted.at), student, *test, cache)
        row = keys | scored | {"train_seconds": seconds}
        row["kept"] = row["accuracy"] / of_teacher["accuracy"]
        row["cost_ratio"] = row["gmacs"] / of_teacher["gmacs"]
        _append(output, row)
    _draw(output, len(images))


def _draw(path, train_images):
    """Plot top-1 accuracy over cost: one colour per reducer, one line per number of tokens."""
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
        accuracies = [100 * float(row["accuracy"]) for row in rows]
        axis.plot(cost, accuracies, "o-", color=color, linewidth=1, **named)
        offset = (6, -12) if kind == "token learner" else (-6, 8)
        for x, y, row in zip(cost, accuracies, rows, strict=True):
            if row["reducer"] not in ("teacher", "token_merging"):
                text = f"{num_tokens} at {row['at']}"
                axis.annotate(text, (x, y), offset, textcoords="offset points", fontsize=8)
    axis.set_xlabel("multiply-adds, in percent of the teacher's")
    axis.set_ylabel("top-1 accuracy, in percent")
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
