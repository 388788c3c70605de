"""`predict` gives the same answers for a .keras file, a named model and an exported model."""

import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_tokenlearner import cli, create_model, export
from keras_tokenlearner.data import load_fashion_mnist
from keras_tokenlearner.data.decoding import MAX_PIXELS
from keras_tokenlearner.data.fashion_mnist import CLASS_NAMES
from keras_tokenlearner.serving import predict
from keras_tokenlearner.weights import save_weights

pillow = pytest.importorskip("PIL.Image", reason="writes the image files")
NAME = "tokenlearner_pico8_4at1"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a model as `.keras` and as weights, and two images of different sizes."""
    folder = tmp_path_factory.mktemp("predict")
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    model = create_model(NAME, classes=4)
    model.set_weights([random.normal(0, 0.2, w.shape) for w in model.get_weights()])
    model.save(folder / "model.keras")
    save_weights(model, folder / "model.weights.h5")
    for name, size in (("a.png", (32, 32, 3)), ("b.png", (50, 70, 3))):
        pillow.fromarray(random.integers(0, 256, size).astype("uint8")).save(folder / name)
    return folder, model


def test_predict_of_a_keras_file_lists_the_top_classes(saved):
    folder, model = saved
    found = predict(folder / "model.keras", [folder / "a.png", folder / "b.png"], top_k=2)
    pixels = np.asarray(pillow.open(folder / "a.png"), "float32")[None]
    expected = model.predict(pixels, verbose=0)[0]
    assert [row["file"] for row in found] == [str(folder / "a.png"), str(folder / "b.png")]
    assert [row["class"] for row in found[0]["classes"]] == np.argsort(-expected)[:2].tolist()
    assert found[0]["classes"][0]["probability"] == pytest.approx(expected.max(), abs=1e-5)
    (alone,) = predict(folder / "model.keras", folder / "a.png")
    assert alone["file"] == found[0]["file"]


def test_predict_of_more_files_than_a_batch_equals_single_predictions(saved, exported, monkeypatch):
    folder, _ = saved
    monkeypatch.setattr(sys.modules[predict.__module__], "BATCH_SIZE", 2)
    one, other = folder / "a.png", folder / "b.png"
    files = [one, other, other, one, one]
    for path in (folder / "model.keras", exported):
        single = {file: predict(path, file)[0]["classes"] for file in (one, other)}
        for file, found in zip(files, predict(path, files), strict=True):
            assert [x["class"] for x in found["classes"]] == [x["class"] for x in single[file]]
            for row, right in zip(found["classes"], single[file], strict=True):
                assert row["probability"] == pytest.approx(right["probability"], abs=1e-5)


@pytest.mark.once("torch")
def test_predict_of_an_exported_model_with_the_argument_weights_raises(saved, tmp_path):
    folder, _ = saved
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    with pytest.raises(ValueError, match="predict: .*`weights`.*'random'"):
        predict(tmp_path, folder / "a.png", weights="random")


def test_predict_in_eight_threads_equals_predict_in_one_thread(saved):
    folder, _ = saved
    files = [folder / "a.png", folder / "b.png"]
    small = [keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
    path = folder / "small.keras"
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1e-3), *small]).save(path)
    right = predict(path, files)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda i: predict(path, files[i % 2])[0], range(8)))
    for place, one in enumerate(found):
        wanted = right[place % 2]["classes"]
        assert [row["class"] for row in one["classes"]] == [row["class"] for row in wanted]
        for row, other in zip(one["classes"], wanted, strict=True):
            assert row["probability"] == pytest.approx(other["probability"], abs=1e-5)


@pytest.fixture(scope="module")
def exported(saved):
    """The model, exported with its maps."""
    pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
    folder, model = saved
    export(model, folder / "served", class_names=list("wxyz"), return_maps=True, check=False)
    return folder / "served"


def test_predict_of_an_exported_model_equals_predict_of_the_keras_file(saved, exported):
    folder, _ = saved
    files = [folder / "a.png", folder / "b.png"]
    ours, served = predict(folder / "model.keras", files), predict(exported, files)
    for one, other in zip(ours, served, strict=True):
        for row, answer in zip(one["classes"], other["classes"], strict=True):
            assert row["class"] == answer["class"]
            assert answer["class_name"] == "wxyz"[row["class"]]
            # Antialiased resizing differs a little between backends.
            assert row["probability"] == pytest.approx(answer["probability"], abs=1e-3)


def test_predict_of_an_exported_model_and_an_image_bomb_raises(exported, tmp_path):
    from tests.serving.answers import BOMB

    (tmp_path / "bomb.png").write_bytes(BOMB)
    with pytest.raises(ValueError, match=rf"predict: .*bomb\.png.* {MAX_PIXELS} .* 100000000"):
        predict(exported, [tmp_path / "bomb.png"])


def run(*arguments):
    done = CliRunner().invoke(cli.app, ["predict", *map(str, arguments)])
    assert done.exit_code == 0, done.exception
    return done.stdout


def test_predict_command_prints_a_line_per_file(saved):
    folder, model = saved
    printed = run(folder / "model.keras", folder / "a.png", folder / "b.png", "--top-k", 1)
    images = [np.asarray(pillow.open(folder / "a.png"), "float32")]
    best = model.predict(np.stack(images), verbose=0)[0]
    assert f"a.png   {best.argmax()} {best.max():.1%}\n" in re.sub(" +", "   ", printed, count=1)
    assert printed.splitlines()[1].startswith(str(folder / "b.png"))


def test_predict_command_gives_equal_json_and_maps_for_a_keras_file_a_name_and_an_export(
    saved, exported, tmp_path
):
    folder, _ = saved
    models = {
        "file": [folder / "model.keras"],
        "name": [NAME, "--weights", folder / "model.weights.h5"],
        "exported": [exported],
    }
    answers, pictures = {}, {}
    for kind, model in models.items():
        picture = tmp_path / f"{kind}.png"
        (answer,) = json.loads(run(*model, folder / "a.png", "--json", "--maps-path", picture))
        answers[kind] = [(row["class"], row["probability"]) for row in answer["classes"]]
        pictures[kind] = np.asarray(pillow.open(picture).convert("RGB"), "float32")
    for kind in ("name", "exported"):
        np.testing.assert_allclose(answers[kind], answers["file"], atol=1e-5)
        np.testing.assert_allclose(pictures[kind], pictures["file"], atol=8)
    assert pictures["file"].std() > 20


@pytest.mark.slow
def test_predict_command_with_the_option_served_gives_the_prediction_of_the_model(tmp_path):
    """The command exports the model, starts a server and sends a request over HTTP."""
    pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
    pytest.importorskip("kserve", reason="the server is KServe")
    _, (images, labels) = load_fashion_mnist()
    pillow.fromarray(images[0, ..., 0]).save(tmp_path / "clothes.jpg", quality=95)
    command = ["keras_tokenlearner.cli", "predict", "tokenlearner_nano4_8at2"]
    arguments = [str(tmp_path / "clothes.jpg"), "--served", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", *command, *arguments], stdout=subprocess.PIPE, check=True
    )
    best = json.loads(done.stdout)[0]["classes"][0]
    pixels = np.asarray(pillow.open(tmp_path / "clothes.jpg"), "float32")[None, ..., None]
    model = create_model("tokenlearner_nano4_8at2", weights="fashion_mnist")
    right = model.predict(pixels, verbose=0)[0]
    assert best["class"] == right.argmax() == labels[0]
    assert best["class_name"] == CLASS_NAMES[labels[0]]
    assert best["probability"] == pytest.approx(right.max(), abs=1e-5)


@pytest.mark.once("tensorflow")
@pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="only on tensorflow and jax: torch exports in another process",
)
def test_predict_of_exported_models_without_maps_or_top_raises(saved, tmp_path):
    pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
    folder, _ = saved
    export(create_model(NAME, classes=4), tmp_path / "plain", check=False)
    with pytest.raises(ValueError, match="`--return-maps`.*model=.*plain"):
        predict(tmp_path / "plain", [folder / "a.png"], maps_path=tmp_path / "maps.png")
    assert not (tmp_path / "maps.png").exists()
    export(create_model(NAME, include_top=False), tmp_path / "features", check=False)
    with pytest.raises(ValueError, match="predict: .*model=.*features"):
        predict(tmp_path / "features", [folder / "a.png"])


@pytest.mark.once("torch")
def test_predict_with_maps_of_a_model_without_maps_raises_before_it_reads_the_files(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    create_model("vit_pico8", classes=2).save(tmp_path / "plain.keras")
    with pytest.raises(ValueError, match="TokenLearner"):
        predict(tmp_path / "plain.keras", tmp_path / "text.png", maps_path=tmp_path / "maps.png")


@pytest.mark.once("torch")
def test_predict_of_a_model_whose_output_is_in_a_dictionary_equals_the_plain_model(saved, tmp_path):
    folder, model = saved
    packed = keras.Model(model.inputs, {"scores": model.output})
    packed.save(tmp_path / "packed.keras")
    found = predict(tmp_path / "packed.keras", folder / "a.png", maps_path=tmp_path / "maps.png")
    assert found == predict(folder / "model.keras", folder / "a.png")


@pytest.mark.once("torch")
def test_predict_of_a_nested_model_has_the_class_names_of_the_inner_model(saved, tmp_path):
    images = keras.layers.RandomFlip()(keras.Input((32, 32, 3)))
    named = create_model("vit_pico8", classes=2, class_names=["cat", "dog"], input_tensor=images)
    named.save(tmp_path / "named.keras")
    (found,) = predict(tmp_path / "named.keras", saved[0] / "a.png")
    assert {row["class_name"] for row in found["classes"]} == {"cat", "dog"}


@pytest.mark.once("torch")
def test_predict_reads_and_writes_files_of_the_home_folder(saved, tmp_path, monkeypatch):
    folder, _ = saved
    monkeypatch.setenv("USERPROFILE" if os.name == "nt" else "HOME", str(tmp_path))
    for name in ("model.keras", "a.png"):
        shutil.copy(folder / name, tmp_path)
    (found,) = predict("~/model.keras", "~/a.png", maps_path="~/maps.png")
    assert found["file"] == "~/a.png" and (tmp_path / "maps.png").is_file()


@pytest.mark.once("torch")
@pytest.mark.parametrize("name", ["no_folder/maps.png", "maps.no_format", "."])
def test_predict_with_a_wrong_path_for_the_maps_raises_before_it_loads_the_model(
    saved, tmp_path, name
):
    path = tmp_path / name
    with pytest.raises(ValueError, match=f"maps_path='{re.escape(str(path))}'"):
        predict("no_such_model", saved[0] / "a.png", maps_path=path)


@pytest.mark.once("torch")
def test_predict_of_wrong_files_or_models_raises(saved, tmp_path):
    folder, _ = saved
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match="file='gone.png'"):
        predict(folder / "model.keras", ["gone.png"])
    with pytest.raises(ValueError, match="file='gone.png'"):
        predict(folder / "model.keras", "gone.png")
    with pytest.raises(ValueError, match=r"text\.png"):
        predict(folder / "model.keras", [tmp_path / "text.png"])
    png = (folder / "a.png").read_bytes()
    avif = b"\x00\x00\x00\x20ftypavif" + b"\x00" * 200
    for name, content in (("cut.png", png[: len(png) // 2]), ("head.png", png[:20]), ("a", avif)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            predict(folder / "model.keras", [tmp_path / name])
    with pytest.raises(ValueError, match="model='no_such_model'"):
        predict("no_such_model", [folder / "a.png"])
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"predict: .*model=.*other\.keras"):
        predict(tmp_path / "other.keras", [folder / "a.png"])
