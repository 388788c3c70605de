"""`load_model`, which the commands use: from a file, or from a name with trained weights."""

import json
import os
import re
import zipfile
import zlib

import h5py
import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.applications import keras_file, load, load_model
from keras_tokenlearner.data.fashion_mnist import CLASS_NAMES
from keras_tokenlearner.presets import list_checkpoints
from tests.bounds import attack

UNTRAINED = "vit_pico8"


def test_load_model_of_a_name_loads_its_first_included_weights():
    model = load_model("tokenlearner_nano4_8at2")
    right = create_model("tokenlearner_nano4_8at2", weights="fashion_mnist")
    images = np.random.default_rng(0).uniform(0, 255, (2, 28, 28, 1)).astype("float32")
    np.testing.assert_array_equal(
        model.predict(images, verbose=0), right.predict(images, verbose=0)
    )
    assert tuple(model.class_names) == CLASS_NAMES


@pytest.mark.once("torch")
@pytest.mark.parametrize("folder", ["tokenlearner_nano4_8at2", "fashion_mnist"])
def test_load_model_of_a_name_ignores_a_folder_of_the_same_name(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    create_model(UNTRAINED, classes=3).save_to_preset(folder)
    for weights in (None, "fashion_mnist"):
        model = load_model("tokenlearner_nano4_8at2", weights=weights)
        assert tuple(model.class_names) == CLASS_NAMES
    assert load_model(f"./{folder}").classes == 3


def test_load_model_of_a_keras_file_gives_the_outputs_of_the_saved_model(tmp_path):
    saved = create_model(UNTRAINED, classes=3)
    saved.get_layer("head").kernel.assign(np.random.default_rng(0).normal(size=(32, 3)))
    saved.save(tmp_path / "mine.keras")
    images = np.random.default_rng(1).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    found = load_model(tmp_path / "mine.keras").predict(images, verbose=0)
    np.testing.assert_allclose(found, saved.predict(images, verbose=0), atol=1e-6)


@pytest.mark.once("torch")
def test_load_model_of_a_keras_file_in_the_home_folder_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("USERPROFILE" if os.name == "nt" else "HOME", str(tmp_path))
    create_model(UNTRAINED, classes=3).save(tmp_path / "mine.keras")
    assert load_model("~/mine.keras").classes == 3


@pytest.mark.once("torch")
def test_load_model_of_a_published_checkpoint_calls_from_preset(monkeypatch):
    monkeypatch.setattr(load, "from_preset", lambda preset, **arguments: (preset, arguments))
    for row in list_checkpoints():
        assert load_model(row.name, classes=2) == (row.name, {"classes": 2})


@pytest.mark.once("torch")
def test_load_model_of_a_name_without_weights_raises_and_lists_the_options():
    with pytest.raises(ValueError) as caught:
        load_model(UNTRAINED, owner="evaluate")
    text = str(caught.value)
    assert text.startswith("evaluate: ") and UNTRAINED in text and "weights=None" in text
    for option in (".keras", ".weights.h5", "timm:", "'random'"):
        assert option in text


def test_load_model_with_weights_random_returns_an_untrained_model():
    assert load_model(UNTRAINED, weights="random", classes=2).output_shape == (None, 2)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        ("gone.keras", {}, ["model='gone.keras'"]),
        (".", {}, ["model='.'"]),
        ("folder/vit_b16", {}, ["folder/vit_b16"]),
        ("vit_b61", {}, ["'vit_b16'", "model='vit_b61'"]),
        (UNTRAINED, {"weights": "gone"}, ["weights='gone'"]),
        (UNTRAINED, {"weights": "random", "clases": 2}, ["argument='clases'"]),
    ],
    ids=str,
)
def test_load_model_with_wrong_arguments_raises_and_names_the_command(model, arguments, words):
    with pytest.raises(ValueError) as caught:
        load_model(model, owner="predict", **arguments)
    assert str(caught.value).startswith("predict: ")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.once("torch")
def test_load_model_of_a_damaged_file_raises_value_error(tmp_path):
    (tmp_path / "bad.keras").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ValueError, match=r"bad\.keras"):
        load_model(tmp_path / "bad.keras")


@pytest.mark.once("torch")
def test_load_model_of_a_zip_bomb_raises_before_unpacking(tmp_path, monkeypatch):
    create_model(UNTRAINED, classes=2).save(tmp_path / "bomb.keras")
    with zipfile.ZipFile(tmp_path / "bomb.keras", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/zeros", bytes(200 << 20))
    monkeypatch.setattr(keras.saving, "load_model", None)
    with pytest.raises(ValueError, match=r"bomb\.keras.* bomb: .* \d+ bytes"):
        load_model(tmp_path / "bomb.keras")


@pytest.mark.once("torch")
def test_load_model_of_a_file_with_a_compression_bomb_in_its_weights_raises(tmp_path):
    """The header states an array of 64 KB. Keras would unpack 400 MB."""
    create_model(UNTRAINED, classes=512).save(tmp_path / "small.keras")
    with (
        zipfile.ZipFile(tmp_path / "small.keras") as small,
        zipfile.ZipFile(tmp_path / "bomb.keras", "w") as edited,
    ):
        small.extract("model.weights.h5", tmp_path)
        with h5py.File(tmp_path / "model.weights.h5", "a") as file:
            del file["layers/dense/vars/0"]
            settings = {"shape": (32, 512), "chunks": (32, 512), "compression": "gzip"}
            kernel = file.create_dataset("layers/dense/vars/0", dtype="f4", **settings)
            kernel.id.write_direct_chunk((0, 0), zlib.compress(bytes(400 << 20)))
        for member in ("metadata.json", "config.json"):
            edited.writestr(member, small.read(member))
        edited.write(tmp_path / "model.weights.h5", "model.weights.h5")
    (outcome,) = attack("keras_tokenlearner.applications.load:load_model", tmp_path / "bomb.keras")
    outcome.is_refused(r"bomb\.keras.*layers/dense/vars/0")


@pytest.mark.once("torch")
@pytest.mark.parametrize("name", ["dense", "vision_transformer"])
def test_load_model_of_a_file_with_a_huge_layer_raises_and_takes_little_memory(tmp_path, name):
    """The config states 2 GB of weights; the file has some kilobytes."""
    if name == "dense":
        inputs = keras.Input((4,))
        model, field, huge = keras.Model(inputs, keras.layers.Dense(7)(inputs)), "units", 5 * 10**8
    else:
        model, field, huge = create_model(UNTRAINED, classes=2), "mlp_dim", 10**7
    model.save(tmp_path / "small.keras")
    with (
        zipfile.ZipFile(tmp_path / "small.keras") as small,
        zipfile.ZipFile(tmp_path / "huge.keras", "w") as edited,
    ):
        for member in small.namelist():
            content = small.read(member)
            if member == "config.json":
                content, count = re.subn(
                    rf'"{field}": (\d+|null)', f'"{field}": {huge}', content.decode()
                )
                assert count == 1
            edited.writestr(member, content)
    (outcome,) = attack("keras_tokenlearner.applications.load:load_model", tmp_path / "huge.keras")
    outcome.is_refused(r"huge\.keras.* \d{9,} parameters.* \d{2,5} values")


@pytest.mark.once("torch")
@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_size_check_of_a_quantized_file_counts_all_parameters():
    """A quantization needs the values of weights, which the check must not allocate."""
    for has_own_head in (False, True):
        model = create_model(UNTRAINED, include_top=False, pooling="avg")
        if has_own_head:
            model = keras.Model(model.input, keras.layers.Dense(3)(model.output))
        parameters = model.count_params()
        model.quantize("int8")
        said = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
        assert keras_file._numbers("load_model", said, parameters) >= parameters


def test_load_model_of_a_file_in_a_custom_object_scope_finds_the_class(tmp_path):
    class Twice(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    inputs = keras.Input((4,))
    keras.Model(inputs, Twice()(inputs)).save(tmp_path / "twice.keras")
    with pytest.raises(ValueError, match="Twice"):
        load_model(tmp_path / "twice.keras")
    with keras.saving.custom_object_scope({"Twice": Twice}):
        model = load_model(tmp_path / "twice.keras")
    assert keras.ops.convert_to_numpy(model(np.ones((1, 4)))).sum() == 8


def test_load_model_of_a_file_with_a_lambda_layer_raises_and_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((4,))
    outputs = keras.layers.Lambda(lambda x: (open("trap", "w").close(), x)[1])(inputs)
    keras.Model(inputs, outputs).save("code.keras")
    trap = tmp_path / "trap"
    trap.unlink()  # building the model ran the function
    with pytest.raises(ValueError, match=r"code\.keras"):
        load_model(tmp_path / "code.keras")
    assert not trap.exists()
    keras.saving.load_model("code.keras", safe_mode=False)
    assert trap.exists()  # the file does contain code


@pytest.mark.once("torch")
def test_load_model_given_a_file_and_arguments_for_named_models_raises(tmp_path):
    create_model(UNTRAINED, classes=2).save(tmp_path / "mine.keras")
    with pytest.raises(ValueError, match="'classes': 3"):
        load_model(tmp_path / "mine.keras", classes=3)
    with pytest.raises(ValueError, match="'weights': 'random'"):
        load_model(tmp_path / "mine.keras", weights="random")
