"""Maps against the definition, and the picture that is drawn of them."""

import keras
import numpy as np
import pytest

import keras_tokenlearner
from keras_tokenlearner.analysis import draw_token_maps, token_maps, with_token_maps

MODEL = "tokenlearner_pico8_4at1"


@pytest.fixture
def model():
    return keras_tokenlearner.create_model(MODEL, classes=10, input_shape=(32, 48, 3))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3)).astype("float32")


def test_maps_pool_the_tokens_that_the_next_block_gets(model, images):
    maps = token_maps(model, images, batch_size=2)
    assert maps.shape == (5, 4, 6, 4)
    assert ((maps > 0) & (maps < 1)).all()
    learner = model.get_layer("token_learner")
    both = keras.Model(model.inputs, [learner.input, learner.output])
    positions, tokens = both.predict(images, verbose=0)
    expected = np.einsum("bns,bnc->bsc", maps.reshape(5, 24, 4), positions) / 24
    np.testing.assert_allclose(tokens, expected, atol=1e-5)


def test_asking_twice_leaves_the_model_as_it_was(model, images):
    first = token_maps(model, images)
    np.testing.assert_array_equal(first, token_maps(model, images))
    assert model.get_layer("token_learner").input is not None


def test_each_learner_of_a_model_with_fusers(images):
    model = keras_tokenlearner.create_model(
        "tokenlearner_pico8_4at1_fuser", classes=10, input_shape=(32, 48, 3), at=0
    )
    first = token_maps(model, images, layer="token_learner_0")
    second = token_maps(model, images, layer="token_learner_1")
    np.testing.assert_array_equal(first, token_maps(model, images))
    assert np.abs(first - second).max() > 0


def test_a_model_without_learned_tokens_is_refused(images):
    model = keras_tokenlearner.create_model("vit_pico8", classes=10, input_shape=(32, 48, 3))
    with pytest.raises(ValueError, match="must be a TokenLearner of the model"):
        token_maps(model, images)


@pytest.mark.parametrize("name", [MODEL, f"{MODEL}_fuser", "tokenlearner_x2plus1d_pico"])
def test_a_model_that_gives_its_maps_too(name):
    model = keras_tokenlearner.create_model(name, classes=3)
    inputs = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:]))
    found = with_token_maps(model).predict(inputs, verbose=0)
    np.testing.assert_allclose(found["outputs"], model.predict(inputs, verbose=0), atol=1e-6)
    np.testing.assert_allclose(found["token_maps"], token_maps(model, inputs), atol=1e-6)


def test_picture(model, images, tmp_path):
    maps = token_maps(model, images)
    figure = draw_token_maps(images, maps, titles=list("abcde"), path=tmp_path / "maps.png")
    assert len(figure.axes) == 5 * (1 + 4 + 1)
    assert (tmp_path / "maps.png").stat().st_size > 10_000
    overlay = figure.axes[1].images[0].get_array()
    assert overlay.shape == (32, 48, 3)
    assert 0 <= overlay.min() < overlay.max() <= 1


def test_without_matplotlib_the_extra_is_named(model, images, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"keras-tokenlearner\[plot\]"):
        draw_token_maps(images, np.ones((5, 4, 6, 4)))
