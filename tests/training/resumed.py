"""A short training with dropout, shuffling and augmentation, to be killed and started again.

`python -m tests.training.resumed FOLDER KILL_AT` kills itself while it writes backup number
KILL_AT. `python -m tests.training.resumed FOLDER` runs slowly enough for another process to
kill it.
"""

import os
import signal
import stat
import sys
import time
from pathlib import Path

import keras
import numpy as np

from keras_tokenlearner import create_model
from keras_tokenlearner.data import ArrayImages, ImageBatches
from keras_tokenlearner.training import Resume
from tests import quick_traces, quick_weights

EPOCHS = 3


def augment(seed):
    return keras.layers.Pipeline(
        [keras.layers.RandomFlip("horizontal", seed=seed), keras.layers.MixUp(seed=seed + 1)]
    )


def run(folder, save_freq=2, callbacks=()):
    """Train to the end; return weights and history."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 255, (40, 32, 32, 3)).astype("uint8"), np.arange(40) % 10
    model = create_model("tokenlearner_pico8_4at1", classes=10, dropout_rate=0.1)
    model.compile(
        "adamw",
        "categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    options = {"shift": 0.1, "augment": augment, "label_mode": "categorical"}
    batches = ImageBatches(ArrayImages(images, labels), (32, 32, 3), 8, **options)
    logger = keras.callbacks.CSVLogger(Path(folder) / "log.csv")
    resume = Resume(Path(folder) / "backup.npz", batches, save_freq, [logger])
    history = model.fit(
        batches,
        epochs=EPOCHS,
        initial_epoch=resume.initial_epoch,
        callbacks=[resume, logger, *callbacks],
        verbose=0,
    )
    return model.get_weights(), history


class Rest(keras.callbacks.Callback):
    """Sleeps after every batch, so that another process can kill this one."""

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.1)


def kill_at(count):
    """Kill this process while it writes backup number `count`, before the file is renamed."""
    sync = os.fsync

    def fsync(descriptor):
        nonlocal count
        sync(descriptor)
        # `Resume` also syncs the folder, after the rename: count only files.
        count -= stat.S_ISREG(os.fstat(descriptor).st_mode)
        if not count:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = fsync


if __name__ == "__main__":
    # The weights and rounding errors of the tests' own process.
    quick_weights.draw_by_numpy()
    quick_traces.leave_out_optimization()
    if len(sys.argv) > 2:
        kill_at(int(sys.argv[2]))
        run(sys.argv[1])
    else:
        run(sys.argv[1], callbacks=[Rest()])
