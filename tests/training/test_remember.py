"""Cached outputs of frozen models."""

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.training.remember import keep, remember

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3)).astype("float32")


@pytest.fixture
def parts():
    """Return two parts of one model, on the same input."""
    model = create_model("vit_pico8", classes=10)
    return [keras.Model(model.input, model.get_layer(name).output) for name in ("block_0", "head")]


def test_cached_outputs_of_several_models_are_written_once(parts, tmp_path):
    expected = [part.predict(IMAGES, verbose=0) for part in parts]
    keep(parts, IMAGES, "float32", tmp_path, verbose=0, batch_size=4)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 2
    for part, outputs in zip(parts, expected, strict=True):
        found = remember(part, IMAGES, "float32", verbose=0, cache=tmp_path)
        np.testing.assert_allclose(found, outputs, atol=1e-5)
        np.testing.assert_allclose(remember(part, IMAGES, "float32", verbose=0), outputs, atol=1e-5)
    keep(parts, IMAGES, "float32", tmp_path, verbose=0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files


def test_failed_predictions_leave_no_cache(parts, tmp_path):
    with pytest.raises(Exception, match="shape"):
        keep(parts, IMAGES[..., :1], "float32", tmp_path, verbose=0)
    assert not list(tmp_path.iterdir())
