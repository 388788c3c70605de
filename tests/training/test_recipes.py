"""Every recipe trains a tiny model; the paper's recipes configure Keras as documented."""

import dataclasses
import inspect
import re

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.applications import CATALOG
from keras_tokenlearner.data import ArrayImages, named
from keras_tokenlearner.models import Preprocessing
from keras_tokenlearner.training import RECIPES, describe, train
from keras_tokenlearner.training.distribution import scope
from keras_tokenlearner.training.optimizers import adamw_linear, sgd
from keras_tokenlearner.weights import save_weights

BACKEND = keras.backend.backend()
JIT = BACKEND == "jax"  # on other backends, eager is faster for two steps
# The other image recipes of the paper share code with these five.
PAPER = ("pretraining", "imagenet_384", "place", "pooling", "fuser_alternatives")


def tiny(name, **changes):
    """Return a recipe of the paper for a model that trains in a second."""
    recipe = RECIPES[name]()
    at = {"at": 1} if hasattr(recipe, "at") else {}
    model = "vit_pico8" if hasattr(recipe, "reducer") else "tokenlearner_pico8_4at1"
    small = {"model": model, "size": 32, "batch_size": 8, "epochs": 2, "threads": 1}
    return dataclasses.replace(recipe, **{**small, "warmup_steps": 1, **at, **changes})


@pytest.fixture
def images(monkeypatch):
    random = np.random.default_rng(0)
    labels = np.arange(16) % 2
    pixels = random.integers(0, 100, (16, 40, 48, 3)) + 100 * labels[:, None, None, None]
    found = ArrayImages(pixels.astype("uint8"), labels, ("dark", "light"))
    monkeypatch.setitem(named.OPENERS, "tfds", lambda origin: (found, found))
    return found


@pytest.mark.once("torch")
@pytest.mark.parametrize("name", RECIPES)
def test_recipe_docstrings_state_command_and_fields(name):
    text = inspect.getdoc(RECIPES[name])
    assert f"keras-tokenlearner train {name}" in text
    assert RECIPES[name]().model in CATALOG
    fields = {field.name for field in dataclasses.fields(RECIPES[name])}
    assert set(describe(RECIPES[name])) == fields
    assert all(model in CATALOG for model in re.findall(r"\b(?:vit|tokenlearner)_[bsl]\d\w*", text))


@pytest.mark.parametrize("name", PAPER)
def test_recipes_of_the_paper_change_weights_in_two_steps(name, images):
    recipe = tiny(name)
    model = recipe.build(classes=2)
    batches = recipe.batches(images, model.input_shape[1:], training=True)
    model.compile(recipe.optimizer(len(batches)), "categorical_crossentropy", run_eagerly=not JIT)
    before = model.get_weights()
    assert np.isfinite(model.train_on_batch(*batches[0]))
    assert np.isfinite(model.train_on_batch(*batches[1]))
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    reducers = [layer.name for layer in model.layers if layer.name.startswith("spatial_pooling")]
    assert bool(reducers) is (name == "pooling")


@pytest.mark.once("torch")
def test_distillation_recipe_trains_the_student_of_a_teacher(images, tmp_path, capsys):
    teacher = create_model("vit_pico8", classes=2, input_shape=(32, 32, 3))
    save_weights(teacher, tmp_path / "teacher.weights.h5")
    recipe = dataclasses.replace(
        RECIPES["distill"](),
        model="vit_pico8",
        weights=str(tmp_path / "teacher.weights.h5"),
        at=1,
        num_tokens=8,
        budgets="4+8",
        size=32,
        batch_size=8,
        epochs=3,
        threads=1,
        precision="float32",
    )
    score = train(recipe, tmp_path / "out")
    assert 0 <= score <= 1
    printed = capsys.readouterr().out
    assert "v5e-8" in printed and "computed, not measured" in printed
    assert recipe.output_name == "vit_pico8_8at1"
    rows = (tmp_path / "out" / "vit_pico8_8at1.csv").read_text().splitlines()
    assert len(rows) == 4 and "distillation_loss" in rows[0]
    student = recipe.build(classes=2)
    before = student.get_weights()
    assert student.name == recipe.output_name
    student.load_weights(tmp_path / "out" / "vit_pico8_8at1.weights.h5")
    assert any((a != b).any() for a, b in zip(before, student.get_weights(), strict=True))
    unused = {"gradient_accumulation_steps": 2}, {"ema_momentum": 0.9}, {"label_smoothing": 0.1}
    for changes in unused:
        with pytest.raises(ValueError, match=f"{next(iter(changes))}"):
            dataclasses.replace(recipe, **changes)


@pytest.mark.once("torch")
def test_distillation_recipe_without_the_weights_of_a_teacher_raises_before_opening_data(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(named.OPENERS, "tfds", None)
    with pytest.raises(ValueError, match="train: `weights`.*Received: weights=''"):
        train(RECIPES["distill"](), tmp_path)
    with pytest.raises(ValueError, match="DistillationRecipe: `weights`.*Received: weights=''"):
        RECIPES["distill"]().build(classes=2)


def accuracy_of(path, images, recipe):
    """Return the accuracy of a saved model on test images."""
    model = keras.saving.load_model(path)
    batches = recipe.batches(images, model.input_shape[1:], training=False)
    return np.mean(model.predict(batches, verbose=0).argmax(1) == images.labels)


@pytest.mark.once("torch")
def test_recipes_of_a_teacher_with_custom_normalization_save_models_of_the_reported_accuracy(
    images, tmp_path
):
    """The weights of the teacher, loaded into the catalogue's model, would have other scores."""
    rule = Preprocessing(mean=(0.9, 0.9, 0.9), std=(0.01, 0.01, 0.01))
    shape = {"input_shape": (32, 32, 3), "preprocessing": rule, "class_token": True}
    body = create_model("vit_pico8", classes=5, **shape)
    folder = str(body.save_to_preset(tmp_path / "body"))
    recipe = tiny("imagenet_384", model="vit_pico8", weights=folder, learning_rate=0.3)
    score = train(recipe, tmp_path)
    path = tmp_path / "vit_pico8.keras"
    assert accuracy_of(path, images, recipe) == score
    scale, same = (
        model.get_layer("preprocessing").get_config()
        for model in (body, keras.saving.load_model(path))
    )
    assert same == scale
    small = {"model": "vit_pico8", "weights": str(path), "at": 1, "size": 32, "batch_size": 8}
    recipe = RECIPES["distill"](**small, precision="float32", epochs=1, threads=1)
    score = train(recipe, tmp_path)
    student = tmp_path / "vit_pico8_16at1.keras"
    assert accuracy_of(student, images, recipe) == score
    assert keras.saving.load_model(student).get_layer("preprocessing").get_config() == scale
    for changes in ({"size": 64}, {"precision": "mixed_bfloat16"}):
        ((name, value),) = changes.items()
        with pytest.raises(ValueError, match=f"`size` and `precision`.*{name}={value!r}"):
            dataclasses.replace(recipe, **changes).build(classes=2)


@pytest.mark.once("torch")
def test_distillation_recipe_with_a_teacher_of_other_classes_raises(images, tmp_path):
    path = tmp_path / "teacher.weights.h5"
    save_weights(create_model("vit_pico8", classes=3, input_shape=(32, 32, 3)), path)
    small = {"model": "vit_pico8", "at": 1, "size": 32, "batch_size": 8, "threads": 1}
    recipe = RECIPES["distill"](**small, weights=str(path))
    with pytest.raises(ValueError, match=f"train: `weights`.* 2 classes.*{path}' with 3 classes"):
        train(recipe, tmp_path / "out")


@pytest.mark.once("torch")
def test_distillation_recipe_with_the_classes_of_the_teacher_in_another_order_raises(
    images, tmp_path
):
    path = tmp_path / "teacher.keras"
    small = {"model": "vit_pico8", "at": 1, "size": 32, "batch_size": 8, "threads": 1}
    recipe = RECIPES["distill"](**small, weights=str(path), precision="float32", epochs=1)
    teacher = create_model("vit_pico8", classes=2, input_shape=(32, 32, 3))
    teacher.class_names = ("light", "dark")
    teacher.save(path)
    with pytest.raises(
        ValueError, match="train: .*`recipe.build`.*'light' as class 0 .*as class 1 "
    ):
        train(recipe, tmp_path / "out")
    teacher.class_names = ("dark", "light, bright")  # other words for the second class
    teacher.save(path)
    train(recipe, tmp_path / "out")


@pytest.mark.once("tensorflow")
def test_recipe_with_gradient_accumulation_on_devices_of_tensorflow_raises_before_opening_data(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(named.OPENERS, "tfds", None)
    with scope("data_parallel") as devices, pytest.raises(ValueError, match="^train: ") as caught:
        train(tiny("imagenet_384", gradient_accumulation_steps=2), tmp_path, devices)
    assert "gradient_accumulation_steps=2" in str(caught.value)


def test_fine_tuning_recipe_with_every_memory_option_trains(images, tmp_path):
    body = create_model("tokenlearner_pico8_4at1", classes=7, input_shape=(64, 64, 3))
    save_weights(body, tmp_path / "before.weights.h5")
    recipe = tiny(
        "imagenet_512",
        weights=str(tmp_path / "before.weights.h5"),
        learning_rate=0.3,
        epochs=8,
        gradient_accumulation_steps=2,
        precision="mixed_bfloat16",
        ema_momentum=0.5,
        remat="none" if BACKEND == "tensorflow" else "activations",
    )
    built = recipe.build(classes=2)
    assert built.get_layer("block_1").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    kernels = [model.get_layer("block_0").get_weights()[0] for model in (built, body)]
    np.testing.assert_array_equal(*kernels)  # pre-trained weights, for other classes and size
    assert len(recipe.batches(images, (32, 32, 3), training=True)) == 4
    optimizer = recipe.optimizer(4)
    assert optimizer.gradient_accumulation_steps == 2 and optimizer.use_ema
    assert train(recipe, tmp_path) == 1.0


@pytest.mark.once("torch")
def test_train_in_float16_reports_the_accuracy_of_the_averaged_weights(images, tmp_path):
    """The average changes so slowly that only the last weights classify the images."""
    recipe = tiny(
        "imagenet_512",
        learning_rate=0.3,
        epochs=8,
        precision="mixed_float16",
        ema_momentum=0.999,
    )
    accuracy = train(recipe, tmp_path)
    model = recipe.build(classes=2)
    model.load_weights(tmp_path / f"{recipe.model}.weights.h5")
    batches = recipe.batches(images, model.input_shape[1:], training=False)
    right = model.predict(batches, verbose=0).argmax(1) == images.labels
    assert accuracy == pytest.approx(np.mean(right))


def test_gradient_accumulation_gives_the_weights_of_whole_batches(images):
    def trained(gradient_accumulation_steps):
        keras.utils.set_random_seed(0)
        recipe = tiny(
            "imagenet_384",
            gradient_accumulation_steps=gradient_accumulation_steps,
            learning_rate=0.3,
            layer_decay=0.7,
        )
        model = recipe.build(classes=2)
        batches = recipe.batches(images, model.input_shape[1:], training=True)
        batches.augment = None  # augmentation changes a batch as a whole
        config = keras.optimizers.serialize(recipe.optimizer(len(batches)))
        optimizer = keras.optimizers.deserialize(config)
        model.compile(optimizer, "categorical_crossentropy", run_eagerly=not JIT)
        model.fit(batches, epochs=recipe.epochs, shuffle=False, verbose=0)
        return model.get_weights()

    for parts, whole in zip(trained(4), trained(1), strict=True):
        np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_sgd_with_a_warm_up_as_long_as_the_run_raises():
    with pytest.raises(ValueError, match="`warmup_steps`.* 10 steps, 10 "):
        sgd(0.03, steps=10, warmup_steps=10)


def test_sgd_and_adamw_linear_have_the_settings_of_the_vit_paper():
    slow = sgd(0.03, steps=100, warmup_steps=10)
    assert isinstance(slow, keras.optimizers.SGD)
    assert (slow.momentum, slow.global_clipnorm, slow.weight_decay) == (0.9, 1.0, None)
    schedule = slow.get_config()["learning_rate"]["config"]
    assert (schedule["warmup_target"], schedule["warmup_steps"]) == (0.03, 10)
    linear = adamw_linear(8e-4, steps=110, warmup_steps=10)
    assert (linear.weight_decay, linear.global_clipnorm) == (0.1, 1.0)
    rates = []
    linear.build([keras.Variable(np.zeros(3))])
    for step in (5, 10, 60, 110, 200):
        linear.iterations.assign(step)
        rates.append(float(linear.learning_rate))
    np.testing.assert_allclose(rates, [4e-4, 8e-4, 4e-4, 0, 0], atol=1e-9)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(linear))
    again.build([keras.Variable(np.zeros(3))])
    again.iterations.assign(60)
    assert float(again.learning_rate) == pytest.approx(4e-4)


def test_recipe_fields_out_of_range_raise():
    with pytest.raises(ValueError, match="Received: batch_size=8, gradient_accumulation_steps=3"):
        tiny("imagenet_384", gradient_accumulation_steps=3)
    for mode in ("everything", "full"):
        with pytest.raises(ValueError, match=f"`remat`.*'none'.*{BACKEND}.*remat='{mode}'"):
            tiny("imagenet_384", remat=mode).build(2)
    for wrong in ("4+²", "4+", "4,8"):
        with pytest.raises(ValueError, match="DistillationRecipe: `budgets`") as caught:
            RECIPES["distill"](budgets=wrong)
        assert f"budgets={wrong!r}" in str(caught.value)
    for name in ("imagenet_384", "pretraining"):
        with pytest.raises(ValueError, match="`warmup_steps`.* 4 steps, 500 "):
            tiny(name, warmup_steps=500).optimizer(2)
