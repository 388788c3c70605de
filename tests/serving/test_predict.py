"""The same answers from a .keras file, a name with weights, and an exported model."""

import json

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_tokenlearner import cli, create_model, export
from keras_tokenlearner.serving import predict
from keras_tokenlearner.weights import save_weights

pillow = pytest.importorskip("PIL.Image", reason="writes the image files")
NAME = "tokenlearner_pico8_4at1"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a model as `.keras` and weights, and two images of other sizes than its own."""
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


def test_keras_file(saved):
    folder, model = saved
    found = predict(folder / "model.keras", [folder / "a.png", folder / "b.png"], top_k=2)
    pixels = np.asarray(pillow.open(folder / "a.png"), "float32")[None]
    expected = model.predict(pixels, verbose=0)[0]
    assert [row["file"] for row in found] == [str(folder / "a.png"), str(folder / "b.png")]
    assert [row["class"] for row in found[0]["classes"]] == np.argsort(-expected)[:2].tolist()
    assert found[0]["classes"][0]["probability"] == pytest.approx(expected.max(), abs=1e-5)


def test_exported_model_answers_the_same(saved):
    pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
    folder, model = saved
    files = [folder / "a.png", folder / "b.png"]
    export(model, folder / "served", labels=list("wxyz"))
    ours, served = predict(folder / "model.keras", files), predict(folder / "served", files)
    for one, other in zip(ours, served, strict=True):
        for row, answer in zip(one["classes"], other["classes"], strict=True):
            assert row["class"] == answer["class"]
            assert answer["label"] == "wxyz"[row["class"]]
            # Antialiased resizing differs a little between backends.
            assert row["probability"] == pytest.approx(answer["probability"], abs=1e-3)


def test_command_line(saved, tmp_path):
    folder, _ = saved
    arguments = ["predict", str(folder / "model.keras"), str(folder / "a.png")]
    done = CliRunner().invoke(cli.app, [*arguments, "--json", "--maps", str(tmp_path / "maps.png")])
    assert json.loads(done.stdout)[0]["classes"][0]["probability"] > 0.25
    assert (tmp_path / "maps.png").stat().st_size > 5_000
    assert "a.png" in CliRunner().invoke(cli.app, arguments).stdout


def test_bad_input(saved, tmp_path):
    folder, _ = saved
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match="there is no such file"):
        predict(folder / "model.keras", ["gone.png"])
    with pytest.raises(ValueError, match="no image that can be read"):
        predict(folder / "model.keras", [tmp_path / "text.png"])
    with pytest.raises(ValueError, match="must be one of"):
        predict("no_such_model", [folder / "a.png"])
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="must be a classifier of images"):
        predict(tmp_path / "other.keras", [folder / "a.png"])
