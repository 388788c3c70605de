"""After all processes of `train --distribute` are killed, the same command completes the run."""

import csv
import json
import sys
import time

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.weights import load_weights
from tests.training.distribution.launch import BACKEND, kill, launch

NAME = "tokenlearner_pico8_4at1"
SETTINGS = {"model": NAME, "size": 32, "batch_size": 8, "epochs": 12, "warmup_steps": 4}


@pytest.fixture
def images(tmp_path):
    """A folder of dark and light images, 32 to train on and 16 to test."""
    image = pytest.importorskip("PIL.Image", reason="the extra `image`")
    random = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 8)):
        for label, name in enumerate(("dark", "light")):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 150, (36, 40, 3)) + 100 * label
                file = tmp_path / split / name / f"{index}.png"
                image.fromarray(pixels.astype("uint8")).save(file)
    return tmp_path


def start(images, output):
    settings = {**SETTINGS, "data": f"folder:{images}"}
    arguments = [part for pair in settings.items() for part in ("--set", "{}={}".format(*pair))]
    arguments += ["--distribute", "data_parallel", "--output", output]
    processes, cpus = {"jax": (1, 8), "tensorflow": (1, 4), "torch": (2, 1)}[BACKEND]
    command = "tests.training.distribution.command"
    return launch(command, ["train", "imagenet_384", *arguments], processes, cpus)


def ended(output):
    """Return the losses of the epochs, the result, and the weights."""
    with open(output / f"{NAME}.csv") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    result = json.loads((output / f"{NAME}.json").read_text())
    model = create_model(NAME, classes=2, input_shape=(32, 32, 3))
    load_weights(model, output / f"{NAME}.weights.h5", result["sha256"])
    return losses, result["test_accuracy"], model.get_weights()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux: finds the processes in /proc")
def test_killed_training_command_started_again_gives_the_same_result(images):
    whole, broken = images / "whole", images / "broken"
    assert [process.wait() for process in start(images, whole)] == [0]
    expected = ended(whole)
    (process,) = start(images, broken)
    log = broken / f"{NAME}.csv"
    while not log.exists() or log.read_text().count("\n") < 3:
        assert process.poll() is None
        time.sleep(0.01)
    kill(process)
    assert (broken / f"{NAME}.backup.npz").exists()
    keras.utils.clear_session()
    assert [process.wait() for process in start(images, broken)] == [0]
    found = ended(broken)
    assert len(found[0]) == SETTINGS["epochs"]
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    assert found[1] == expected[1]
    for array, same in zip(found[2], expected[2], strict=True):
        np.testing.assert_allclose(array, same, atol=1e-6)
