"""Models import and train where TensorFlow is not installed: `make test-without-tensorflow`."""

import importlib.util
import sys

import numpy as np
import pytest

import keras_tokenlearner

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None,
    reason="TensorFlow is installed; `make test-without-tensorflow` runs this without it",
)


@pytest.mark.parametrize("name", ["vit_pico8", "tokenlearner_pico8_4at1_fuser"])
def test_training_without_tensorflow_lowers_the_loss(name):
    model = keras_tokenlearner.create_model(name, classes=3)
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3)).astype("float32")
    labels = np.arange(12) % 3
    model.compile("adam", "sparse_categorical_crossentropy")
    losses = model.fit(images, labels, batch_size=4, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert "tensorflow" not in sys.modules
