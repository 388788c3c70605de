"""Training by the recipes, on a few images."""

import concurrent.futures
import csv
import functools
import json
import os
import shutil
import sys
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import Optional

import h5py
import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_tokenlearner import create_model
from keras_tokenlearner.cli import app
from keras_tokenlearner.data import ArrayImages, Batches, FileImages, load_fashion_mnist, named
from keras_tokenlearner.data.video.lists import VideoList
from keras_tokenlearner.models import Preprocessing, VisionTransformer
from keras_tokenlearner.training import (
    RECIPES,
    FashionMnistRecipe,
    Resume,
    adamw,
    muon,
    train,
    with_settings,
)
from keras_tokenlearner.training.check_recipe import check_recipe, fields_of
from keras_tokenlearner.training.distribution import Devices
from keras_tokenlearner.training.identity import identity_of
from keras_tokenlearner.weights import load_weights, save_weights


def few_images(monkeypatch):
    """Let `fashion_mnist` open a few images for training and testing, and return them."""
    (x, y), (test_x, test_y) = load_fashion_mnist()
    data = ArrayImages(x[:320].copy(), y[:320]), ArrayImages(test_x[:100].copy(), test_y[:100])
    monkeypatch.setitem(named.OPENERS, "fashion_mnist", lambda origin: data)
    return data


@pytest.fixture
def few(monkeypatch):
    return few_images(monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A recipe, the folder of its run, and the accuracy that the run returned."""
    pico = "tokenlearner_pico8_4at1"
    recipe = FashionMnistRecipe(model=pico, epochs=6, batch_size=32, learning_rate=2e-3)
    folder = tmp_path_factory.mktemp("trained")
    keras.utils.set_random_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        few_images(patch)
        return recipe, folder, train(recipe, folder)


def test_train_saves_a_model_with_the_reported_accuracy(trained, few):
    recipe, folder, accuracy = trained
    result = json.loads((folder / f"{recipe.model}.json").read_text())
    assert accuracy == result["test_accuracy"] > 0.25
    assert result["recipe"]["learning_rate"] == 2e-3
    model = create_model(recipe.model, classes=10)
    load_weights(model, folder / f"{recipe.model}.weights.h5", result["sha256"])
    with h5py.File(folder / f"{recipe.model}.weights.h5") as file:
        assert "layers" in file and "optimizer" not in file
    batches = recipe.batches(few[1], model.input_shape[1:], training=False)
    found = model.predict(batches, verbose=0)
    assert np.mean(found.argmax(1) == few[1].labels) == pytest.approx(accuracy, abs=0.011)
    loaded = keras.saving.load_model(folder / f"{recipe.model}.keras")
    assert isinstance(loaded, VisionTransformer) and not loaded.compiled
    np.testing.assert_allclose(loaded.predict(batches, verbose=0), found, atol=1e-5)


def interrupt(recipe, folder, monkeypatch):
    """Start a run, and interrupt it after its first epoch."""

    class Breaks(Resume):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[train.__module__], "Resume", Breaks)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, folder)


@pytest.mark.once("torch")
def test_train_interrupted_continues_to_the_results_of_an_uninterrupted_run(
    few, tmp_path, monkeypatch
):
    recipe = FashionMnistRecipe(model="vit_pico8", epochs=2, batch_size=160)
    interrupt(recipe, tmp_path, monkeypatch)
    keras.utils.clear_session()
    train(recipe, tmp_path)
    keras.utils.clear_session()
    train(recipe, tmp_path / "unbroken")
    files = sorted(file.name for file in tmp_path.iterdir() if file.is_file())
    assert files == [
        f"vit_pico8.{end}" for end in ("csv", "json", "keras", "weights.h5", "weights.h5.sha256")
    ]
    for name in ("vit_pico8.csv", "vit_pico8.json"):
        assert (tmp_path / name).read_text() == (tmp_path / "unbroken" / name).read_text()


@pytest.mark.once("torch")
def test_train_during_another_run_or_with_other_settings_raises(few, tmp_path, monkeypatch):
    """Two runs must not share a backup, and no run may continue with other settings."""
    recipe = FashionMnistRecipe(model="vit_pico8", epochs=2, warmup_epochs=0, batch_size=160)
    seconds = []

    class Breaks(Resume):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            with concurrent.futures.ThreadPoolExecutor(1) as thread:
                seconds.append(thread.submit(train, recipe, tmp_path).exception())
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[train.__module__], "Resume", Breaks)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path)
    assert isinstance(seconds[0], ValueError) and f"output={str(tmp_path)!r}" in str(seconds[0])
    backup = (tmp_path / "vit_pico8.backup.npz").read_bytes()
    for name, value in {"learning_rate": 0.1, "seed": 1}.items():
        changed = f"Received: recipe.{name}: {getattr(recipe, name)}, now {value}$"
        with pytest.raises(ValueError, match=changed):
            train(replace(recipe, **{name: value}), tmp_path)
    assert (tmp_path / "vit_pico8.backup.npz").read_bytes() == backup
    train(replace(recipe, seed=1, epochs=1), tmp_path, restart=True)
    assert json.loads((tmp_path / "vit_pico8.json").read_text())["recipe"]["seed"] == 1


@pytest.mark.once("torch")
def test_train_in_a_folder_with_results_of_another_recipe_raises_before_data_are_opened(tmp_path):
    recipe = FashionMnistRecipe(model="vit_pico8", data="nothing")
    result = {"recipe": fields_of("train", recipe), "recipe_class": "FashionMnistRecipe"}
    stated = tmp_path / "vit_pico8.json"
    for found, changed in (
        ({**result, "recipe": {**result["recipe"], "seed": 1}}, "recipe.seed: 1, now 0"),
        ({**result, "recipe_class": "Other"}, "recipe: 'Other', now 'FashionMnistRecipe'"),
        ([], "no readable vit_pico8.json"),
    ):
        stated.write_text(json.dumps(found))
        with pytest.raises(ValueError, match=f"train: `output`.*--restart.* with {changed}$"):
            train(recipe, tmp_path)
        with pytest.raises(ValueError, match="data='nothing'"):
            train(recipe, tmp_path, restart=True)
    stated.write_text(json.dumps(result))
    with pytest.raises(ValueError, match="data='nothing'"):
        train(recipe, tmp_path)
    stated.unlink()
    (tmp_path / "vit_pico8.weights.h5").touch()
    with pytest.raises(ValueError, match="no readable vit_pico8.json"):
        train(recipe, tmp_path)


@pytest.mark.once("torch")
@pytest.mark.parametrize("source", ["", "keras_tokenlearner:"])
@pytest.mark.parametrize("end", ["weights.h5", "keras"])
def test_train_that_would_replace_the_weights_of_its_recipe_raises(source, end, tmp_path):
    weights = f"{source}{tmp_path}/../{tmp_path.name}/vit_pico8.{end}"
    recipe = RECIPES["imagenet_384"](model="vit_pico8", weights=weights, data="nothing")
    with pytest.raises(ValueError, match="train: `output`.* of `weights`.*weights='"):
        train(recipe, tmp_path, restart=True)
    with pytest.raises(ValueError, match="data='nothing'"):
        train(recipe, tmp_path / "other")


@dataclass(frozen=True)
class CroppedRecipe(FashionMnistRecipe):
    """A recipe of a model whose checkpoint states another resizing."""

    def build(self, classes):
        rule = Preprocessing(crop_fraction=0.5)
        return create_model(self.model, classes=classes, preprocessing=rule)


@dataclass(frozen=True)
class WiderRecipe(FashionMnistRecipe):
    """A recipe of a model with more outputs than the data has classes."""

    def build(self, classes):
        return create_model(self.model, classes=classes + 2)

    def batches(self, images, input_shape, training):
        names = [*images.class_names, "more", "most"]
        wider = ArrayImages(images.images, images.labels, names)
        return super().batches(wider, input_shape, training)


@pytest.mark.once("torch")
def test_train_with_more_outputs_than_classes_saves_a_model_without_class_names(few, tmp_path):
    train(WiderRecipe(model="vit_pico8", epochs=1, warmup_epochs=0, batch_size=160), tmp_path)
    assert keras.saving.load_model(tmp_path / "vit_pico8.keras").class_names is None
    result = json.loads((tmp_path / "vit_pico8.json").read_text())
    assert len(result["class_names"]) == 10


@pytest.mark.once("torch")
def test_train_resizes_test_images_by_the_preprocessing_of_the_model(few, tmp_path):
    rules = []

    class Seen(Devices):
        def fit(self, model, batches, validation_data=None, **arguments):
            rules.extend(data.preprocessing for data in (batches, validation_data))
            return super().fit(model, batches, validation_data, **arguments)

    for kind in (CroppedRecipe, FashionMnistRecipe):
        recipe = kind(model="vit_pico8", epochs=1, warmup_epochs=0, batch_size=160)
        train(recipe, tmp_path / kind.__name__, Seen())
    assert rules == [None, Preprocessing(crop_fraction=0.5), None, None]


@pytest.fixture(scope="module")
def interrupted_run(tmp_path_factory):
    """A recipe, and the folder of its run, which was interrupted after the first epoch."""
    recipe = FashionMnistRecipe(model="vit_pico8", epochs=2, warmup_epochs=0, batch_size=160)
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch:
        few_images(patch)
        interrupt(recipe, folder, patch)
    return recipe, folder


@pytest.fixture
def interrupted(few, interrupted_run, tmp_path):
    """A recipe, and a copy of its interrupted run in the folder `run`."""
    recipe, folder = interrupted_run
    shutil.copytree(folder, tmp_path / "run")
    return recipe


@pytest.mark.once("torch")
@pytest.mark.parametrize("changed", ["training data", "test data", "backend"])
def test_train_from_a_backup_of_other_data_or_another_backend_raises(
    interrupted, few, tmp_path, changed
):
    """Both data sets have the same name. An earlier version continued with the other data."""
    backup = tmp_path / "run" / "vit_pico8.backup.npz"
    if changed == "backend":
        with np.load(backup) as file:
            arrays = dict(file)
        run = json.loads(str(arrays["run"])) | {"backend": "other"}
        np.savez(backup, **arrays | {"run": json.dumps(run)})
        message = f"backend: 'other', now {keras.backend.backend()!r}"
    else:
        few[changed == "test data"].images[7, 0, 0] += 1
        message = rf"{changed}: '\w{{24}}', now '\w{{24}}'"
    before = backup.read_bytes()
    with pytest.raises(ValueError, match=f"Received: {message}$"):
        train(interrupted, tmp_path / "run")
    assert backup.read_bytes() == before
    train(replace(interrupted, epochs=1), tmp_path / "other")
    assert backup.read_bytes() == before
    assert (tmp_path / "other" / "vit_pico8.json").is_file()


@pytest.mark.once("torch")
def test_train_command_with_restart_deletes_a_backup_with_other_settings(interrupted, tmp_path):
    settings = {"model": "vit_pico8", "epochs": 1, "warmup_epochs": 0, "batch_size": 160, "seed": 9}
    arguments = ["train", "fashion_mnist", "--output", str(tmp_path / "run")]
    arguments += [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    logs = tmp_path / "run" / "vit_pico8.tensorboard" / "old"
    logs.mkdir(parents=True)
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, ValueError)
    assert "recipe.seed: 0, now 9" in str(done.exception) and "--restart" in str(done.exception)
    assert logs.exists()
    done = CliRunner().invoke(app, [*arguments, "--restart"])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "run" / "vit_pico8.json").read_text())["recipe"]["seed"] == 9
    assert not (tmp_path / "run" / "vit_pico8.backup.npz").exists() and not logs.exists()


@pytest.mark.once("torch")
def test_train_with_restart_and_a_wrong_recipe_keeps_the_backup(interrupted, tmp_path):
    backup = tmp_path / "run" / "vit_pico8.backup.npz"
    before = backup.read_bytes()
    for wrong in ({"data": "nothing"}, {"warmup_epochs": 2}):
        with pytest.raises(ValueError, match="nothing|warmup"):
            train(replace(interrupted, **wrong), tmp_path / "run", restart=True)
    assert backup.read_bytes() == before


@pytest.mark.once("torch")
def test_identity_of_data_changes_with_files_labels_and_selection(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        path.write_bytes(b"1")
    files = FileImages(paths, [0, 1, 1], ["a", "b"])
    arrays = ArrayImages(np.zeros((3, 2, 2, 1), "uint8"), [0, 1, 1], ["a", "b"])
    videos = VideoList(tuple(map(str, paths)), np.array([0, 1, 1]), ("a", "b"))
    changed = np.zeros((3, 2, 2, 1), "uint8")
    changed[2, 1, 1] = 1
    found = [
        *(identity_of(data) for data in (files, arrays, videos)),
        identity_of(FileImages(paths, [0, 1, 0], ["a", "b"])),
        identity_of(FileImages(paths[::-1], [0, 1, 1], ["a", "b"])),
        identity_of(FileImages(paths, [0, 1, 1], ["a", "c"])),
        identity_of(ArrayImages(changed, [0, 1, 1], ["a", "b"])),
        identity_of(files.take([0, 1])),
        identity_of(files.take([0, 2])),
    ]
    assert identity_of(FileImages(paths, [0, 1, 1], ["a", "b"])) == found[0]
    paths[1].write_bytes(b"12")
    assert len({*found, identity_of(files), identity_of(videos)}) == len(found) + 2


@pytest.mark.once("torch")
def test_train_with_a_full_disk_at_the_end_can_be_continued(few, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource", reason="only on Linux and macOS: `resource`")
    recipe = FashionMnistRecipe(model="vit_nano4", epochs=1, warmup_epochs=0, batch_size=160)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    module = sys.modules[train.__module__]

    def full(*arguments):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            return save_weights(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_weights", full)
        with pytest.raises(OSError):
            train(recipe, tmp_path)
    assert (tmp_path / "vit_nano4.backup.npz").is_file()
    assert not (tmp_path / "vit_nano4.json").exists()
    keras.utils.clear_session()
    accuracy = train(recipe, tmp_path)
    result = json.loads((tmp_path / "vit_nano4.json").read_text())
    assert accuracy == result["test_accuracy"]
    load_weights(create_model("vit_nano4", classes=10), tmp_path / "vit_nano4.weights.h5")
    assert not (tmp_path / "vit_nano4.backup.npz").exists()


@pytest.mark.once("torch")
def test_train_interrupted_in_any_of_its_last_five_steps_can_be_continued(
    few, tmp_path, monkeypatch
):
    """Until the last step, the weights load and the backup exists: no epoch is lost."""
    recipe = FashionMnistRecipe(model="vit_pico8", epochs=1, warmup_epochs=0, batch_size=160)
    train(recipe, tmp_path)  # the interrupted runs replace its files
    recipe, steps, left = replace(recipe, seed=1), [], []
    ends = [f"vit_pico8.{end}" for end in ("weights.h5.sha256", "weights.h5", "json")]
    backup = "vit_pico8.backup.npz"
    os_replace, os_unlink = os.replace, os.unlink

    def step(path):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        steps.append(Path(path).name)

    def replaced(written, to):
        if Path(to).name in ends:
            step(to)
        return os_replace(written, to)

    def unlinked(path, **options):
        if Path(path).name == backup:
            step(path)
        return os_unlink(path, **options)

    for count in range(5):
        steps.clear()
        left.extend(range(count))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, "replace", replaced)
            patch.setattr(os, "unlink", unlinked)
            train(recipe, tmp_path, restart=not count)
        load_weights(create_model("vit_pico8", classes=10), tmp_path / ends[1])
        assert Resume(tmp_path / backup, Batches((few[0].images,), 160)).initial_epoch == 1
    assert steps == [ends[0], ends[1], ends[0], ends[2]]
    train(recipe, tmp_path)
    result = json.loads((tmp_path / ends[2]).read_text())
    assert result["recipe"]["seed"] == 1 and not (tmp_path / backup).exists()
    load_weights(create_model("vit_pico8", classes=10), tmp_path / ends[1], result["sha256"])


def test_train_tensorboard_losses_equal_the_losses_in_the_csv_file(trained):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tensor_util = pytest.importorskip("tensorboard.util.tensor_util")
    # Keras writes TensorBoard files with TensorFlow on every backend.
    pytest.importorskip("tensorflow")
    recipe, folder, _ = trained
    with open(folder / f"{recipe.model}.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == recipe.epochs
    for part, column in (("train", "loss"), ("validation", "val_loss")):
        found = events.EventAccumulator(str(folder / f"{recipe.model}.tensorboard" / part))
        shown = found.Reload().Tensors("epoch_loss")
        values = [tensor_util.make_ndarray(event.tensor_proto) for event in shown]
        np.testing.assert_allclose(values, [float(row[column]) for row in rows], rtol=1e-5)


@pytest.mark.once("torch")
def test_weight_decay_spares_biases_norms_and_positions():
    optimizer = FashionMnistRecipe().optimizer(10)
    model = create_model("tokenlearner_nano4_8at2", classes=10)
    before = [w.copy() for w in model.get_weights()]
    optimizer.build(model.trainable_weights)
    optimizer.iterations.assign(10)  # the end of the warm-up
    gradients = [keras.ops.zeros(weight.shape) for weight in model.trainable_weights]
    optimizer.apply(gradients, model.trainable_weights)
    for weight, old in zip(model.weights, before, strict=True):
        decayed = not np.array_equal(keras.ops.convert_to_numpy(weight), old)
        spared = weight.path.split("/")[-1] in ("bias", "gamma", "beta", "table")
        assert decayed is not (spared or not old.any()), weight.path


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=3", "'epochs'"),
        ("epochs=three", "epochs=28. Received: 'epochs=three'"),
    ],
)
def test_recipe_settings_of_a_wrong_name_or_type_raise(setting, message):
    with pytest.raises(ValueError) as caught:
        with_settings(FashionMnistRecipe(), [setting])
    assert message in str(caught.value)


@pytest.mark.once("torch")
@pytest.mark.parametrize("value", [0, -0.5, 1.5, float("nan"), "0.5"])
def test_layer_decay_out_of_range_raises_in_recipes_and_optimizers(value):
    for check in (
        lambda: check_recipe("train", RECIPES["imagenet_384"](layer_decay=value)),
        lambda: adamw(1e-3, 10, layer_decay=value),
    ):
        with pytest.raises(ValueError, match=r"`layer_decay`.*\(0, 1\]") as caught:
            check()
        assert f"layer_decay={value!r}" in str(caught.value)


@pytest.mark.once("torch")
@pytest.mark.parametrize("value", [1, 1.0, 0.5, 1e-5, np.float32(0.5)])
def test_layer_decay_in_its_interval_is_valid_in_recipes_and_optimizers(value):
    check_recipe("train", RECIPES["imagenet_384"](layer_decay=value))
    for make in (adamw, muon):
        optimizer = make(1e-3, 10, layer_decay=value)
        assert getattr(optimizer, "layer_decay", 1.0) == value
        json.dumps(optimizer.get_config()["layer_decay"] if value != 1 else value)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("label_smoothing", 2.0),
        ("weight_decay", -1.0),
        ("learning_rate", float("inf")),
        ("epochs", 10**18),
        ("batch_size", True),
        ("warmup_epochs", -1),
        ("seed", -1),
    ],
)
def test_train_with_a_field_out_of_range_raises_before_data_are_opened(field, value, tmp_path):
    recipe = replace(
        FashionMnistRecipe(data=f"fashion_mnist:{tmp_path / 'missing'}"), **{field: value}
    )
    with pytest.raises(ValueError) as caught:
        train(recipe, tmp_path / "output")
    assert f"Received: {field}={value!r}" in str(caught.value)
    assert not (tmp_path / "output").exists()


@pytest.mark.once("torch")
def test_recipe_settings_are_converted_to_the_types_of_fields():
    recipe = with_settings(
        FashionMnistRecipe(), ["epochs=3", "learning_rate=0.5", "model=vit_nano4"]
    )
    assert (recipe.epochs, recipe.learning_rate, recipe.model) == (3, 0.5, "vit_nano4")


@dataclass(frozen=True)
class OwnRecipe(FashionMnistRecipe):
    """A recipe with fields of further types."""

    mirrored: bool = True
    limit: int | None = 5
    note: Optional[str] = None  # noqa: UP045, as in older code
    sizes: tuple[int, ...] = (1, 2)
    rate: int | float = 0.5


@pytest.mark.once("torch")
def test_recipe_fields_for_a_json_file_are_plain_values():
    recipe = OwnRecipe(data=Path("folder"), learning_rate=np.float32(0.5), note="text")
    found = fields_of("train", recipe)
    assert (found["data"], found["learning_rate"], found["note"]) == ("folder", 0.5, "text")
    assert found["sizes"] == [1, 2] and json.loads(json.dumps(found)) == found


@pytest.mark.once("torch")
@pytest.mark.parametrize("value", [print, b"text", {(1, 2): 3}, {1, 2}], ids=str)
def test_train_with_a_field_that_is_no_json_value_raises_before_data_are_opened(value, tmp_path):
    with pytest.raises(ValueError, match="train: `note`.*Received: note="):
        train(OwnRecipe(data="nothing", note=value), tmp_path)


# Types of fields are strings here, as in modules with `from __future__ import annotations`.
Deferred = make_dataclass(
    "Deferred",
    [("mirrored", "bool", True), ("limit", "int | None", 5)],
    bases=(FashionMnistRecipe,),
    frozen=True,
)
Unknown = make_dataclass(
    "Unknown", [("sizes", "Missing", (1, 2))], bases=(FashionMnistRecipe,), frozen=True
)


@pytest.mark.once("torch")
@pytest.mark.parametrize("recipe", [OwnRecipe(), Deferred()], ids=["types", "strings"])
@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("mirrored=False", False),
        ("mirrored=true", True),
        ("limit=7", 7),
        ("limit=None", None),
        ("epochs=3", 3),
    ],
)
def test_recipe_settings_of_booleans_and_optional_fields_are_converted(recipe, setting, expected):
    name = setting.partition("=")[0]
    found = getattr(with_settings(recipe, [setting]), name)
    assert found == expected and type(found) is type(expected)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("recipe", "setting", "message"),
    [
        (OwnRecipe(), "mirrored=0", "the type bool, as in mirrored=True"),
        (OwnRecipe(), "limit=many", "the type int | None, as in limit=5"),
        (OwnRecipe(), "sizes=1", "`sizes`"),
        (OwnRecipe(), "sizes=1", "tuple[int, ...]"),
        (OwnRecipe(), "rate=1", "int | float"),
        (Unknown(), "sizes=1", "`sizes`"),
        (Unknown(), "sizes=1", "Missing"),
    ],
)
def test_recipe_settings_that_cannot_be_converted_raise(recipe, setting, message):
    with pytest.raises(ValueError) as caught:
        with_settings(recipe, [setting])
    assert str(caught.value).startswith("with_settings: ")
    assert message in str(caught.value) and repr(setting) in str(caught.value)


ENDINGS = {
    "softmax": lambda x: keras.layers.Activation("softmax")(x),
    "softmax layer": lambda x: keras.layers.Softmax()(x),
    "softmax function": lambda x: keras.ops.softmax(x),
    "dropout": lambda x: keras.layers.Dropout(0.0)(keras.ops.softmax(x)),
    "logits": lambda x: x,
    "sigmoid": lambda x: keras.layers.Activation("sigmoid")(x),
    "sigmoid function": lambda x: keras.ops.sigmoid(x),
}


@dataclass(frozen=True)
class EndingRecipe(FashionMnistRecipe):
    """A recipe of a linear model with one of the `ENDINGS`."""

    ending: str = "softmax"

    def build(self, classes):
        inputs = keras.Input((28, 28, 1))
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
        logits = keras.layers.Dense(classes, kernel_initializer="zeros")(x)
        return keras.Model(inputs, ENDINGS[self.ending](logits))


@pytest.fixture(scope="module")
def trained_ending(tmp_path_factory):
    """Return a function from an ending to the losses and the results of its run."""
    folder = tmp_path_factory.mktemp("endings")

    @functools.cache
    def run(ending):
        recipe = EndingRecipe(
            model=ending, ending=ending, epochs=1, warmup_epochs=0, batch_size=160
        )
        train(recipe, folder)
        with open(folder / f"{ending}.csv") as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
        return losses, json.loads((folder / f"{ending}.json").read_text())

    return run


@pytest.mark.parametrize("ending", ENDINGS)
def test_train_chooses_the_loss_and_metrics_by_the_last_activation_of_the_model(
    ending, few, trained_ending
):
    kind = "sigmoid" if "sigmoid" in ending else "softmax"
    losses, result = trained_ending(ending)
    np.testing.assert_allclose(losses, trained_ending(kind)[0], rtol=1e-3)
    if ending == kind:  # an untrained model has the loss of equal probabilities
        untrained = np.log(10) if kind == "softmax" else np.log(2)
        assert 0.5 * untrained < losses[0] < untrained
    assert ("test_auc_pr" in result) is (kind == "sigmoid")
