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


def test_cached_outputs_of_equal_models_share_one_file(parts, tmp_path):
    again = keras.Model(parts[0].input, parts[0].output)
    first, second, other = keep([parts[0], again, parts[1]], IMAGES, "float32", tmp_path, verbose=0)
    assert first == second != other and len(list(tmp_path.iterdir())) == 2


def test_failed_predictions_leave_no_cache(parts, tmp_path):
    with pytest.raises(Exception, match="shape"):
        keep(parts, IMAGES[..., :1], "float32", tmp_path, verbose=0)
    assert not list(tmp_path.iterdir())


def built(scale=1.0, activation="relu", epsilon=1e-3, axis=0, dtype="float32"):
    """Return a small model with fixed weights. No argument changes a weight or a shape."""
    inputs = keras.Input((4, 4))
    x = keras.layers.Rescaling(scale, dtype=dtype)(inputs)
    x = x[:, axis] + x[:, 3]
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, activation=activation)])
    x = keras.layers.LayerNormalization(epsilon=epsilon)(inner(x))
    model = keras.Model(inputs, x)
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(size=array.shape) for array in model.get_weights()])
    return model


VECTORS = np.random.default_rng(1).normal(size=(6, 4, 4)).astype("float32")
WEIGHTLESS = [
    {"scale": 2.0},
    {"activation": "gelu"},
    {"epsilon": 10.0},
    {"axis": 1},
    {"dtype": "bfloat16"},
]


@pytest.mark.parametrize("changes", WEIGHTLESS, ids=str)
def test_cached_outputs_of_models_with_different_settings_are_separate(changes, tmp_path):
    for model in (built(), built(**changes)):
        found = remember(model, VECTORS, "float32", verbose=0, cache=tmp_path)
        np.testing.assert_allclose(found, model.predict(VECTORS, verbose=0), atol=1e-6)
    assert len(list(tmp_path.iterdir())) == 2


def test_cached_outputs_of_the_same_model_built_again_are_reused(tmp_path):
    """Keras numbers the names of the second model: `dense_1`, `functional_1`, `get_item_2`."""
    models = [built(), built()]
    assert {layer.name for layer in models[0].layers} != {layer.name for layer in models[1].layers}
    models[1].trainable = False
    models[1].compile("sgd", "mse")
    for model in models:
        remember(model, VECTORS, "float32", verbose=0, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


class Unknown(keras.layers.Layer):
    """A layer without `get_config`, whose argument Keras cannot store."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def test_cache_of_a_model_without_config_raises(tmp_path):
    inputs = keras.Input((4, 4))
    model = keras.Model(inputs, Unknown(lambda x: x)(inputs), name="mine")
    with pytest.raises(ValueError, match="remember: .*`get_config`.*'mine'"):
        remember(model, VECTORS, "float32", verbose=0, cache=tmp_path)
    assert not list(tmp_path.iterdir())
    assert remember(model, VECTORS, "float32", verbose=0).shape == VECTORS.shape
