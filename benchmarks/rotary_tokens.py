"""Top-1 accuracy of students with and without rotated learned tokens, over several seeds.

    KERAS_BACKEND=torch python -m benchmarks.rotary_tokens cifar10:FOLDER

The teacher is a small ViT with rotary positions and no position table, as in DINOv3. It is trained
from random weights. Each student is scored before and after `distill`. Each result is written at
once, and a second run computes only missing results.
"""

import argparse
import dataclasses
from pathlib import Path

import keras
import numpy as np

from benchmarks.rows import append_row, check_columns, data_name, read_rows
from keras_tokenlearner import create_model, distill, retrofit
from keras_tokenlearner.data import load_named
from keras_tokenlearner.models import VisionTransformer

RULES = ("none", "centre_of_mass")
STUDENT = ("rotary_tokens", "at", "num_tokens", "seed")
SETTINGS = ("epochs", "data", "teacher_epochs", "train_images")
KEYS = (*STUDENT, *SETTINGS)
COLUMNS = (*STUDENT, "untrained", "accuracy", "teacher", *SETTINGS)


class ShiftedBatches(keras.utils.PyDataset):
    """Batches of 128 images, each shifted by up to 3 pixels and mirrored at random."""

    def __init__(self, images, labels):
        super().__init__()
        self.images = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)))
        self.labels, self.random = labels, np.random.default_rng(0)
        self.on_epoch_end()

    def on_epoch_end(self):
        """Draw another order."""
        self.order = self.random.permutation(len(self.labels))

    def __len__(self):
        return len(self.labels) // 128

    def __getitem__(self, index):
        rows = self.order[index * 128 : (index + 1) * 128]
        height, width = (size - 6 for size in self.images.shape[1:3])
        places = self.random.integers(0, 7, (128, 2))
        mirrors = self.random.choice((-1, 1), 128)
        pairs = zip(rows, places, mirrors, strict=True)
        batch = [
            self.images[row, y : y + height, x : x + width][:, ::mirror]
            for row, (y, x), mirror in pairs
        ]
        return np.stack(batch), self.labels[rows]


def trained_teacher(images, labels, weights, epochs):
    """Return the plain ViT, trained on mirrored and shifted images, or read from a file."""
    keras.utils.set_random_seed(0)
    teacher = create_model(
        "vit_pico8",
        classes=10,
        input_shape=images.shape[1:],
        hidden_dim=96,
        num_layers=6,
        num_heads=4,
        mlp_dim=192,
        patch_size=(4, 4),
        positions=None,
        rotary="centred",
        class_token=True,
    )
    if not weights.is_file():
        steps = epochs * (len(images) // 128)
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, steps * 9 // 10, warmup_target=2e-3, warmup_steps=steps // 10
        )
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.05, global_clipnorm=1.0)
        teacher.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        teacher.fit(ShiftedBatches(images, labels), epochs=epochs, shuffle=False, verbose=2)
        weights.parent.mkdir(parents=True, exist_ok=True)
        teacher.save_weights(weights)
    teacher.load_weights(weights)
    return teacher


def student_of(teacher, rule, at, num_tokens, seed):
    """Return an untrained student whose learned tokens rotate by a rule of `RULES`."""
    keras.utils.set_random_seed(seed)
    plain = retrofit(teacher, at, num_tokens)
    student = VisionTransformer(
        dataclasses.replace(plain.config, rotary_tokens=rule),
        input_shape=teacher.input_shape[1:],
        classes=10,
        preprocessing=plain.preprocessing,
    )
    for layer in plain.layers:
        student.get_layer(layer.name).set_weights(layer.get_weights())
    return student


def accuracy(model, images, labels):
    """Return the top-1 accuracy of a model."""
    answers = model.predict(images, batch_size=200, verbose=0)
    return float((answers.argmax(1) == labels).mean())


def main(arguments=None):
    """Read the options, train the teacher, and write a row for each student."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="name of a data set for keras_tokenlearner.data.load_named")
    results = Path("benchmarks/results")
    parser.add_argument("--output", type=Path, default=results / "rotary_tokens.csv")
    parser.add_argument("--folder", type=Path, default=Path("retrofit_cache"))
    parser.add_argument("--places", type=int, nargs="+", default=[3, 16, 3, 4], metavar="AT TOKENS")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teacher-epochs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--train-images", type=int, default=20_000, help="images of the students")
    options = parser.parse_args(arguments)
    check_columns("rotary_tokens", options.output, COLUMNS)
    keras.config.set_dtype_policy("mixed_bfloat16")
    (images, labels), (test, targets) = load_named(options.data, (32, 32, 3))
    labels, targets = np.asarray(labels), np.asarray(targets)
    data = data_name(options.data)
    name = f"rotary_{data}_{len(images)}_{options.teacher_epochs}.weights.h5"
    teacher = trained_teacher(images, labels, options.folder / name, options.teacher_epochs)
    best = accuracy(teacher, test, targets)
    print(f"teacher: {best:.2%}", flush=True)
    known = [tuple(row[key] for key in KEYS) for row in read_rows(options.output)]
    few = slice(0, options.train_images)
    settings = (options.epochs, data, options.teacher_epochs, len(labels[few]))
    for seed in range(options.seeds):
        for at, tokens in zip(options.places[::2], options.places[1::2], strict=True):
            for rule in RULES:
                cell = (rule, at, tokens, seed)
                if tuple(map(str, (*cell, *settings))) in known:
                    continue
                student = student_of(teacher, rule, at, tokens, seed)
                untrained = accuracy(student, test, targets)
                training = {"epochs": options.epochs, "verbose": 2, "seed": seed}
                distill(student, teacher, images[few], labels[few], **training)
                numbers = (untrained, accuracy(student, test, targets), best)
                row = (*cell, *(f"{n:.4f}" for n in numbers), *settings)
                append_row(options.output, COLUMNS, dict(zip(COLUMNS, row, strict=True)))


if __name__ == "__main__":
    main()
