"""Learned tokens fitted into a ViT: the graph, copied weights, the start of the maps."""

import keras
import numpy as np
import pytest

from keras_tokenlearner import analysis, costs, create_model, retrofit
from keras_tokenlearner.layers import TokenLearner

NUMPY = keras.ops.convert_to_numpy


def teacher(seed=0, **changes):
    """Return a small ViT whose head, which starts at zero, tells classes apart."""
    keras.utils.set_random_seed(seed)
    model = create_model(changes.pop("name", "vit_pico8"), classes=10, **changes)
    for layer in model.layers:
        if layer.name == "head":
            kernel, bias = layer.get_weights()
            layer.set_weights([np.random.normal(size=kernel.shape), bias])
    return model


def pixels(*shape):
    return np.random.default_rng(1).uniform(0, 255, shape).astype("float32")


def names(model):
    return sorted(weight.path for weight in model.weights)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tokenlearner_pico8_4at1", {}),
        ("tokenlearner_pico8_4at1", {"class_token": True, "register_tokens": 2}),
        ("tokenlearner_pico8_4at1", {"at": 0}),
        ("tokenlearner_pico8_4at1", {"at": 2}),
        ("tokenlearner_pico8_4at1_fuser", {}),
    ],
)
def test_retrofitted_model_equals_the_catalogue_model(name, changes):
    plain = {key: value for key, value in changes.items() if key != "at"}
    fuser = name.endswith("fuser")
    student = retrofit(
        teacher(**plain), changes.get("at", 1), num_tokens=4, fuser=fuser, attention="conv"
    )
    model = create_model(name, classes=10, **changes)
    assert names(student) == names(model)
    assert costs(student).macs == costs(model).macs
    model.set_weights(student.get_weights())
    x = pixels(2, 32, 32, 3)
    np.testing.assert_allclose(NUMPY(student(x)), NUMPY(model(x)), atol=1e-6)


def test_tokens_go_through_the_blocks_of_the_teacher():
    model = teacher(class_token=True, register_tokens=1)
    before = model.get_weights()
    student = retrofit(model, at=1, num_tokens=4)
    x = pixels(2, 32, 32, 3)
    inner = keras.Model(student.input, student.get_layer("join").output)
    tokens = inner(x)
    assert tuple(tokens.shape) == (2, 6, 32)
    np.testing.assert_allclose(  # the class token and the register are as the teacher has them
        NUMPY(tokens)[:, :2],
        NUMPY(keras.Model(model.input, model.get_layer("block_0").output)(x))[:, :2],
        atol=1e-5,
    )
    tokens = model.get_layer("norm")(model.get_layer("block_1")(tokens))
    expected = keras.ops.softmax(model.get_layer("head")(tokens[:, 0]))
    np.testing.assert_allclose(NUMPY(student(x)), NUMPY(expected), atol=1e-5)
    for array, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("fuser", [False, True])
def test_images_start_the_maps(fuser):
    """Two kinds of ground, left and right: each token begins on one of them."""
    random = np.random.default_rng(0)
    images = random.uniform(0, 60, (12, 32, 64, 3))
    images[:6, :, :32] += 150
    images[6:, :, 32:] += 150
    model = teacher(input_shape=(32, 64, 3), include_top=False)
    model.get_layer("positions").table.assign(keras.ops.zeros((4, 8, 32)))
    student = retrofit(model, at=0, num_tokens=2, fuser=fuser, images=images)
    first = next(layer.name for layer in student.layers if isinstance(layer, TokenLearner))
    maps = analysis.token_maps(student, images, layer=first)
    np.testing.assert_allclose(maps.sum((1, 2)), 1, atol=1e-5)
    on_the_left = maps[:, :, :4].sum((1, 2))  # (12, 2)
    np.testing.assert_allclose(on_the_left.sum(1), 1, atol=0.1)
    bright = on_the_left[:6].mean(0).argmax()
    assert (on_the_left[:6, bright] > 0.9).all()
    assert (on_the_left[6:, bright] < 0.1).all()


def test_saved_model_loads_in_another_precision(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        teacher().save(tmp_path / "mine.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    student = retrofit(keras.saving.load_model(tmp_path / "mine.keras"), at=1, num_tokens=4)
    assert student.get_layer("token_learner").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    assert NUMPY(student(pixels(2, 32, 32, 3))).shape == (2, 10)


def test_video_model_is_retrofitted():
    model = teacher(patch_size=(2, 8, 8), input_shape=(4, 32, 32, 3), class_token=True)
    student = retrofit(model, at=1, num_tokens=3)
    inner = keras.Model(student.input, student.get_layer("join").output)
    assert tuple(inner(pixels(1, 4, 32, 32, 3)).shape) == (1, 1 + 2 * 3, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"at": 3}, "`at` must be a place in the depth, 0 to num_layers=2. Received: at=3"),
        ({"at": -1}, "`at` must be an integer of at least 0. Received: at=-1"),
        ({"at": 1, "num_tokens": 0}, "`num_tokens` must be"),
        ({"at": 1, "attention": "mpl"}, "Did you mean 'mlp'"),
        ({"at": 1, "attention": "conv", "images": pixels(2, 32, 32, 3)}, "need attention='mlp'"),
        (
            {"at": 1, "reducer": "fixed_grid", "images": pixels(2, 32, 32, 3)},
            "`images` are for a TokenLearner",
        ),
        ({"at": 1, "num_tokens": 33, "images": pixels(2, 32, 32, 3)}, "num_tokens=33"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as caught:
        retrofit(teacher(), **arguments)
    assert message in str(caught.value)


def test_models_that_do_not_fit():
    with pytest.raises(ValueError, match="must be a plain ViT. Received.*token_learner"):
        retrofit(create_model("tokenlearner_pico8_4at1"), at=1)
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="must be one that create_model"):
        retrofit(other, at=1)


def test_student_of_a_frozen_teacher_is_trainable():
    model = teacher()
    model.trainable = False
    student = retrofit(model, at=1, num_tokens=4)
    assert len(student.trainable_weights) == len(student.weights)
    assert not model.trainable_weights


def test_student_of_a_model_with_a_head_of_the_user():
    base = teacher(include_top=False, pooling="avg")
    outputs = keras.layers.Dense(3, activation="softmax", name="mine")(base.output)
    model = keras.Model(base.input, outputs, name="flowers")
    for layer in model.layers:
        layer.trainable = layer.name == "mine"
    student = retrofit(model, at=1, num_tokens=4)
    assert student.name == "flowers_4at1" and student.output_shape == (None, 3)
    assert len(student.trainable_weights) == len(student.weights)
    for found, expected in zip(
        student.get_layer("mine").get_weights(), model.get_layer("mine").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_student_of_weights_that_do_not_fit_is_refused():
    nested = keras.Sequential([teacher(include_top=False, pooling="avg"), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="pass its layer 'vit_pico8'"):
        retrofit(nested, at=1)
    model = teacher()
    model.blocks[0].mlp.hidden.enable_lora(2)
    with pytest.raises(ValueError, match="LoRA"):
        retrofit(model, at=1)
