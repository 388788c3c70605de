"""Token maps, similarity and entropy, compared with their definitions."""

import keras
import numpy as np
import pytest

import keras_tokenlearner
from keras_tokenlearner.analysis import (
    position_entropy,
    token_maps,
    token_similarity,
    with_token_maps,
)
from keras_tokenlearner.analysis.maps import with_all_token_maps
from keras_tokenlearner.layers import TokenLearner

MODEL = "tokenlearner_pico8_4at1"


@pytest.fixture
def model():
    return keras_tokenlearner.create_model(MODEL, classes=10, input_shape=(32, 48, 3))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3)).astype("float32")


def test_token_maps_applied_to_positions_give_the_learned_tokens(model, images):
    maps = token_maps(model, images, batch_size=2)
    assert maps.shape == (5, 4, 6, 4)
    assert ((maps > 0) & (maps < 1)).all()
    learner = model.get_layer("token_learner")
    both = keras.Model(model.inputs, [learner.input, learner.output])
    positions, tokens = both.predict(images, verbose=0)
    expected = np.einsum("bns,bnc->bsc", maps.reshape(5, 24, 4), positions) / 24
    np.testing.assert_allclose(tokens, expected, atol=1e-5)


def test_token_maps_of_two_calls_are_equal_and_the_model_is_unchanged(model, images):
    first = token_maps(model, images)
    np.testing.assert_array_equal(first, token_maps(model, images))
    assert all(len(layer._inbound_nodes) == 1 for layer in model.layers)


def test_token_maps_of_a_model_with_fusers_default_to_the_first_token_learner(images):
    model = keras_tokenlearner.create_model(
        "tokenlearner_pico8_4at1_fuser", classes=10, input_shape=(32, 48, 3), at=0
    )
    first = token_maps(model, images, layer="token_learner_0")
    second = token_maps(model, images, layer="token_learner_1")
    np.testing.assert_array_equal(first, token_maps(model, images))
    assert np.abs(first - second).max() > 0


@pytest.mark.once("torch")
def test_token_maps_of_a_model_without_learned_tokens_raise(images):
    model = keras_tokenlearner.create_model("vit_pico8", classes=10, input_shape=(32, 48, 3))
    with pytest.raises(ValueError, match="token_maps: .*'vit_pico8'"):
        token_maps(model, images)


@pytest.mark.once("torch")
def test_token_maps_of_a_wrong_image_shape_or_layer_raise(model, images):
    with pytest.raises(ValueError, match=r"`images` .*\(None, 32, 48, 3\).*\(5, 16, 48, 3\)"):
        token_maps(model, images[:, :16])
    with pytest.raises(ValueError, match=r"\['token_learner'\]. Received: layer='head'"):
        token_maps(model, images, layer="head")


def test_token_maps_of_a_model_with_a_fixed_batch_size_take_any_number_of_images(model, images):
    inputs = keras.Input((32, 48, 3), batch_size=2)
    fixed = keras_tokenlearner.create_model(MODEL, classes=10, input_tensor=inputs)
    fixed.set_weights(model.get_weights())
    np.testing.assert_allclose(token_maps(fixed, images), token_maps(model, images), atol=1e-6)
    assert token_similarity(fixed, images[:3]).shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (MODEL, {}),
        (f"{MODEL}_fuser", {}),
        (f"{MODEL}_fuser", {"fuser": "unpool"}),  # the graph uses the maps too
        ("tokenlearner_x2plus1d_pico", {}),
    ],
    ids=str,
)
def test_model_with_token_maps_returns_outputs_and_maps(name, changes):
    model = keras_tokenlearner.create_model(name, classes=3, **changes)
    inputs = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:]))
    found = with_token_maps(model).predict(inputs, verbose=0)
    np.testing.assert_allclose(found["outputs"], model.predict(inputs, verbose=0), atol=1e-6)
    np.testing.assert_allclose(found["token_maps"], token_maps(model, inputs), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("vit_pico8", []),
        (MODEL, ["token_learner"]),
        (f"{MODEL}_fuser", ["token_learner_0", "token_learner_1"]),
    ],
)
def test_model_with_all_token_maps_returns_the_maps_of_each_token_learner(name, layers):
    model = keras_tokenlearner.create_model(name, classes=3, **({"at": 0} if layers[1:] else {}))
    inputs = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:]))
    found = with_all_token_maps(model).predict_on_batch(inputs)
    np.testing.assert_allclose(found["outputs"], model.predict(inputs, verbose=0), atol=1e-6)
    assert list(found["token_maps"]) == layers
    for layer, maps in found["token_maps"].items():
        np.testing.assert_allclose(maps, token_maps(model, inputs, layer), atol=1e-6)


def test_token_maps_of_a_model_with_token_maps_equal_the_maps_of_the_plain_model(model, images):
    longer = with_token_maps(model)
    np.testing.assert_allclose(token_maps(longer, images), token_maps(model, images), atol=1e-6)


def test_token_maps_of_a_model_compiled_with_a_custom_loss_leave_the_model_compiled(model, images):
    model.compile("adamw", loss=lambda wanted, found: keras.ops.mean(found))
    optimizer = model.optimizer
    for longer in (with_token_maps(model), with_all_token_maps(model)):
        assert not longer.compiled
    assert model.compiled and model.optimizer is optimizer
    assert token_maps(model, images[:1]).shape == (1, 4, 6, 4)


@pytest.mark.filterwarnings("ignore:.*quantize.*")
@pytest.mark.parametrize("change", ["LoRA", "int8"])
def test_adding_token_maps_to_a_model_with_lora_or_int8_weights_raises(change, model, images):
    if change == "LoRA":
        model.blocks[0].mlp.hidden.enable_lora(2)
    else:
        model.quantize("int8")
    with pytest.raises(ValueError, match=f"with_token_maps: .*{change}"):
        with_token_maps(model)
    assert token_maps(model, images[:1]).shape == (1, 4, 6, 4)


@pytest.mark.parametrize("frames", [1, 3])
def test_token_maps_of_a_sequence_of_frames_equal_the_maps_of_each_frame(frames):
    sequence = keras.Input((frames * 24, 8))
    learner = TokenLearner(3, grid=(4, 6), name="learner")
    model = keras.Model(sequence, learner(sequence))
    x = np.random.default_rng(0).normal(size=(2, frames * 24, 8)).astype("float32")
    image = TokenLearner(3)
    image.build((None, 4, 6, 8))
    image.set_weights(learner.get_weights())
    _, expected = image(x.reshape(2 * frames, 4, 6, 8), return_maps=True)
    shape = (2, 4, 6, 3) if frames == 1 else (2, frames, 4, 6, 3)
    expected = keras.ops.convert_to_numpy(expected).reshape(shape)
    for maps in (token_maps(model, x), with_token_maps(model).predict(x, verbose=0)["token_maps"]):
        np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_token_similarity_equals_the_cosine_of_the_learned_tokens(model, images):
    similarity = token_similarity(model, images, batch_size=2)
    tokens = keras.Model(model.inputs, model.get_layer("token_learner").output)
    for cosines, rows in zip(similarity, tokens.predict(images, verbose=0), strict=True):
        for (a, b), cosine in np.ndenumerate(cosines):
            lengths = np.sqrt(rows[a] @ rows[a]) * np.sqrt(rows[b] @ rows[b])
            assert cosine == pytest.approx(rows[a] @ rows[b] / lengths, abs=1e-5)


def test_position_entropy_is_0_where_one_token_attends_and_1_where_all_attend_equally():
    alone, alike = np.zeros((2, 2, 4)), np.ones((2, 2, 4)) * [1, 2, 3, 4]
    alone[range(2), range(2), [0, 1]] = 5
    np.testing.assert_allclose(position_entropy(alone), 0, atol=1e-9)
    np.testing.assert_allclose(position_entropy(alike), 1, atol=1e-9)
    halves = np.array([[[1.0, 1, 0, 0], [1, 1, 0, 0]], [[0, 0, 1, 1], [0, 0, 1, 1]]])
    np.testing.assert_allclose(position_entropy(halves), 0.5, atol=1e-9)


def test_token_maps_of_a_clone_with_shared_layers_equal_the_maps_of_the_model(model, images):
    """`input` of a shared layer is a tensor of its first call, in the other model."""
    clone = keras.models.clone_model(model, clone_function=lambda layer: layer)
    np.testing.assert_allclose(token_maps(clone, images), token_maps(model, images), atol=1e-6)


def test_token_maps_of_a_token_learner_that_was_called_before_come_from_the_call_in_the_model():
    inputs, learner = keras.Input((4, 6, 8)), TokenLearner(3, name="learner")
    learner(keras.layers.Rescaling(-2.0)(inputs))
    model = keras.Model(inputs, learner(inputs))
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 8)).astype("float32")
    _, expected = learner(x, return_maps=True)
    found = token_maps(model, x)
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(expected), atol=1e-5)
    similarity = token_similarity(model, x)
    tokens = model.predict(x, verbose=0)
    tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    np.testing.assert_allclose(similarity, tokens @ tokens.transpose(0, 2, 1), atol=1e-5)


def test_token_maps_of_a_call_for_4_of_8_tokens_are_the_maps_of_the_4_tokens():
    inputs = keras.Input((4, 6, 8))
    learner = TokenLearner(8, attention="mlp", position_bias=True, name="learner")
    model = keras.Model(inputs, learner(inputs, num_tokens=4))
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 8)).astype("float32")
    _, expected = learner(x, return_maps=True, num_tokens=4)
    for maps in (token_maps(model, x), with_token_maps(model).predict(x, verbose=0)["token_maps"]):
        assert maps.shape == (2, 4, 6, 4)
        np.testing.assert_allclose(maps, keras.ops.convert_to_numpy(expected), atol=1e-5)
