"""Top-1 accuracy of students of a fine-tuned ViT, over several seeds: one CSV and one plot.

    KERAS_BACKEND=torch python -m benchmarks.retrofit_ablation dinov2s.pt cifar10:FOLDER

The teacher is a DINOv2 ViT-S/14 with four registers (Apache-2.0). Its blocks from `--tuned-from` on
and its head are fine-tuned on the labels first. Students train the reducer and the blocks after the
reducer. The outputs of the frozen blocks are stored in bfloat16. `--views` is the number of stored
views of each image: the image, its mirror image, and random crops. All students learn from the same
number of images. Each result is written at once, and a second run computes only missing results. A
row has the settings of its run, so a run with other settings adds rows. The plot has the results
with the teacher and the settings of the last run.
"""

import argparse
import statistics
import time
from pathlib import Path

import keras
import numpy as np

from benchmarks.retrofit_students import (
    Cell,
    KeptOutputs,
    ViewBatches,
    cells,
    faster_reducer,
    float32,
    keep_features,
    models_of,
    needs_teacher,
    student_of,
    train_student,
)
from benchmarks.retrofit_teacher import fitted_teacher
from benchmarks.rows import append_row, check_columns, data_name, read_rows
from keras_tokenlearner._extras import require
from keras_tokenlearner.analysis import costs
from keras_tokenlearner.data import load_named

REDUCERS = ("token_learner", "spatial_pooling", "token_merging")
PARTS = ("main", "ablation")
KEYS = tuple(Cell("", "", 0, 0).key)
TRAINING = ("epochs", "views")
SOURCE = ("checkpoint", "data", "size", "policy")  # they decide the outputs of the frozen blocks
TUNING = ("train_images", "tuned_from", "teacher_epochs", "batch_size", "learning_rate")
COLUMNS = (
    *(*KEYS, "tokens", "accuracy", "kept", "gmacs", "cost_ratio", *TRAINING, "train_seconds"),
    *(*SOURCE, *TUNING, "test_images"),
)
Split = tuple[np.ndarray, np.ndarray]


def run(
    teacher: keras.Model,
    train: Split,
    test: Split,
    wanted: list[Cell],
    folder: Path,
    output: Path,
    source: dict[str, str],
    tuned_from: int = 6,
    epochs: int = 12,
    teacher_epochs: int = 6,
    batch_size: int = 64,
    learning_rate: float = 1e-4,
    views: int = 2,
) -> None:
    """Fine-tune the teacher, train the students that are not in the CSV file, and draw the plot.

    Args:
        teacher: A plain ViT with a head. It is fine-tuned from block `tuned_from` on.
        train: Images and labels to train on.
        test: Images and labels to score.
        wanted: The students to train. The blocks before the reducer are frozen.
        folder: Path for the outputs of the frozen blocks and the weights of this source's models.
        output: Path of the CSV file.
        source: Values of the columns `SOURCE`.
        tuned_from: Integer, number of the teacher's frozen blocks, 1 or more.
        epochs: Integer, epochs of each student.
        teacher_epochs: Integer, epochs of the teacher.
        batch_size: Integer, images per step.
        learning_rate: Float, the highest learning rate.
        views: Integer, views of each training image. The teacher learns from the first two.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = {"train": train[0], "test": test[0]}
    outputs = KeptOutputs(teacher, images, {"train": views, "test": 1}, folder)
    tokens = outputs.of("train", tuned_from)
    numbers = (len(train[1]), tuned_from, teacher_epochs, batch_size, learning_rate)
    tuning = dict(zip(TUNING, map(str, numbers), strict=True))
    settings, shown = source | tuning | {"test_images": str(len(test[1]))}, min(views, 2)
    tuned = "_".join(tuning.values())
    weights = folder / f"teacher_{tuned}_{shown}.weights.h5"
    _tune(
        teacher,
        tokens[:, :shown],
        train[1],
        weights,
        tuned_from,
        teacher_epochs,
        batch_size,
        learning_rate,
    )
    known = read_rows(output)
    of_teacher = Cell("teacher", "none", tuned_from, 0, start="none", proportional=False).key
    of_teacher |= settings | {"epochs": str(teacher_epochs), "views": str(shown)}
    macs = costs(teacher).macs
    found = [float(row["accuracy"]) for row in known if _same(row, of_teacher)]
    if found:
        best = found[0]
    else:
        best = accuracy(teacher, outputs.of("test", tuned_from), test[1], tuned_from)
        append_row(output, COLUMNS, _row(of_teacher, (0, best, 1.0, macs / 1e9, 1.0, "")))
    features = None
    for cell in wanted:
        training = {"epochs": str(epochs), "views": str(views)}
        key = cell.key | training | settings
        if any(_same(row, key) for row in known):
            continue
        student, begun = student_of(cell, teacher), time.perf_counter()
        if features is None and not needs_teacher(cell):
            features = keep_features(
                teacher, tokens, tuned_from, weights.with_suffix(f".features{views}.npy")
            )
        given = None if needs_teacher(cell) else features
        kept = outputs.of("train", cell.at)
        batches = ViewBatches(kept, train[1], batch_size, cell.seed, given, cell.mixup)
        train_student(cell, student, teacher, batches, epochs, learning_rate)
        seconds = round(time.perf_counter() - begun)
        name = "_".join(("student", *cell.key.values(), *training.values(), tuned))
        student.save_weights(folder / f"{name}.weights.h5")
        for budget, model in models_of(cell, student).items():
            right = accuracy(model, outputs.of("test", cell.at), test[1], cell.at)
            cost = costs(model).macs
            results = (budget, right, right / best, cost / 1e9, cost / macs, seconds)
            append_row(output, COLUMNS, _row(key, results))
            print(f"{cell.reducer} {cell.start} at {cell.at}: {budget} tokens, {right:.2%}")
        draw(output, settings)


def _same(row: dict[str, str], wanted: dict[str, str]) -> bool:
    return all(row[key] == value for key, value in wanted.items())


def _row(key: dict[str, str], results: tuple[float | int | str, ...]) -> dict[str, str]:
    texts = [f"{x:.5g}" if isinstance(x, float) else str(x) for x in results]
    return key | dict(zip([name for name in COLUMNS if name not in key], texts, strict=True))


def _tune(
    teacher: keras.Model,
    kept: np.ndarray,
    labels: np.ndarray,
    weights: Path,
    frozen: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
) -> None:
    """Fine-tune the teacher after its frozen blocks, or load the weights of an earlier run."""
    if not weights.is_file():
        keras.utils.set_random_seed(0)
        batches = ViewBatches(kept, labels, batch_size, seed=0)
        upper = keras.Model(teacher.get_layer(f"block_{frozen - 1}").output, teacher.output)
        steps = epochs * len(batches)
        upper.compile(faster_reducer(learning_rate, steps), "sparse_categorical_crossentropy")
        upper.fit(batches, epochs=epochs, shuffle=False, verbose=2)
        teacher.save_weights(weights)
    teacher.load_weights(weights)


def accuracy(model: keras.Model, kept: np.ndarray, labels: np.ndarray, frozen: int) -> float:
    """Return the top-1 accuracy of a model on the images that are not mirrored."""
    upper = keras.Model(model.get_layer(f"block_{frozen - 1}").output, model.output)
    right = 0
    for start in range(0, len(labels), 200):
        rows = slice(start, start + 200)
        answers = keras.ops.convert_to_numpy(upper.predict_on_batch(float32(kept[rows, 0])))
        right += int((answers.argmax(1) == labels[rows]).sum())
    return right / len(labels)


def draw(path: Path, settings: dict[str, str]) -> None:
    """Draw the mean accuracy over the cost, with the standard error over the seeds.

    Args:
        path: Path of the CSV file.
        settings: Columns and values of the rows to draw. Rows of other settings are left out.
    """
    figure = require("matplotlib.figure", "plot").Figure(figsize=(8, 6), layout="constrained")
    axis, groups = figure.subplots(), {}
    for row in read_rows(path):
        if row["part"] in ("teacher", "main") and _same(row, settings):
            learned = row["reducer"] == "token_learner"
            tokens, mixup = row["tokens"] if learned else "", row["mixup"] == "True"
            kind = (row["reducer"], row["start"], tokens, mixup, row["epochs"], row["views"])
            groups.setdefault(kind, {}).setdefault(row["cost_ratio"], []).append(row)
    for (reducer, start, tokens, mixup, epochs, views), points in groups.items():
        costs_of, means, errors = [], [], []
        for ratio, rows in sorted(points.items()):
            values = [100 * float(row["accuracy"]) for row in rows]
            costs_of.append(100 * float(ratio))
            means.append(statistics.mean(values))
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            errors.append(spread / len(values) ** 0.5)
        label = f"{tokens} learned tokens, {start} start" if tokens else reducer
        label += f", {epochs} epochs" + (", mixup" if mixup else "")
        label += "" if views == "2" else f", {views} views"
        label = "teacher" if reducer == "none" else label
        axis.errorbar(costs_of, means, errors, fmt="o-", capsize=3, label=label.replace("_", " "))
    axis.set_xlabel("multiply-adds, in percent of the teacher's")
    axis.set_ylabel("top-1 accuracy, in percent")
    axis.legend()
    axis.grid(alpha=0.3)
    figure.savefig(path.with_suffix(".png"), dpi=120)


def selected(images: np.ndarray, labels: np.ndarray, count: int) -> Split:
    """Return the first `count` images, in a random order if they are sorted by their classes."""
    labels = np.asarray(labels)
    if (np.diff(labels) >= 0).all():  # as in a folder
        rows = np.random.default_rng(0).permutation(len(labels))[:count]
        return images[rows], labels[rows]
    return images[:count], labels[:count]


def main() -> None:
    """Read the options, load the data, and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="the .pt file of the teacher")
    parser.add_argument("data", help="name of a data set for keras_tokenlearner.data.load_named")
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks/results/retrofit_ablation.csv")
    )
    parser.add_argument("--folder", type=Path, default=Path("retrofit_cache"))
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--tuned-from", type=int, default=6, metavar="BLOCK")
    parser.add_argument(
        "--places", type=int, nargs="+", default=[6, 16, 6, 8, 3, 8], metavar="AT TOKENS"
    )
    parser.add_argument("--reducers", nargs="+", choices=REDUCERS, default=REDUCERS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--mixup", action="store_true", help="mix images behind the frozen blocks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train-images", type=int, default=50_000)
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--teacher-epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument(
        "--policy",
        default="mixed_bfloat16",
        help="dtype policy; float32 is faster on CPUs without bfloat16 instructions",
    )
    options = parser.parse_args()
    if max(options.places[::2]) > options.tuned_from:
        parser.error("--places must reduce the tokens before the first tuned block of the teacher")
    pairs = tuple(zip(options.places[::2], options.places[1::2], strict=True))
    wanted = [
        cell
        for cell in cells(pairs, options.seeds, options.mixup)
        if cell.reducer in options.reducers and cell.part in options.parts
    ]
    if not wanted:
        parser.error(
            "--reducers must be in one of --parts; add one. Received: "
            f"--reducers {' '.join(options.reducers)} --parts {' '.join(options.parts)}"
        )
    check_columns("retrofit_ablation", options.output, COLUMNS)
    checkpoint, data = Path(options.checkpoint).name, data_name(options.data)
    values = (checkpoint, data, str(options.size), options.policy)
    source = dict(zip(SOURCE, values, strict=True))
    folder = options.folder / "_".join(values)
    keras.config.set_dtype_policy(options.policy)
    (images, labels), (others, targets) = load_named(options.data, (options.size, options.size, 3))
    train = selected(images, labels, options.train_images)
    test = selected(others, targets, options.test_images)
    some = slice(0, 10_000)
    teacher = fitted_teacher(options.checkpoint, train[0][some], train[1][some], folder)
    run(
        teacher,
        train,
        test,
        wanted,
        folder,
        options.output,
        source,
        options.tuned_from,
        options.epochs,
        options.teacher_epochs,
        options.batch_size,
        learning_rate=options.learning_rate,
        views=options.views,
    )


if __name__ == "__main__":
    main()
