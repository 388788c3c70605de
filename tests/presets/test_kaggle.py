"""Presets of Kaggle: `kagglehub` downloads them from a loopback server."""

import numpy as np
import pytest

import keras_tokenlearner as kt
from keras_tokenlearner import create_model
from tests.presets.kaggle_server import Kaggle
from tests.presets.test_hub import files, image
from tests.skips import peer

pytestmark = [pytest.mark.once("torch"), pytest.mark.peers]
NAME = "kaggle://timm/vit/pyTorch/base"
TOKEN = "kaggle_secret_that_nobody_may_see"


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    peer("kagglehub")
    environment = peer("kagglesdk.kaggle_env")
    endpoints = environment._env_to_endpoint  # the library has no variable for another server
    with Kaggle() as server:
        server.models["timm/vit/base"] = files(num_heads=12)[0]
        monkeypatch.setitem(endpoints, environment.KaggleEnv.PROD, server.address)
        monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
        yield server


def downloads(server):
    return [path for path, _ in server.log if path.endswith("/DownloadModelInstanceVersion")]


def test_kaggle_preset_gives_the_saved_probabilities_and_downloads_once(kaggle):
    expected = files(num_heads=12)[1].predict(image(), verbose=0)
    found = kt.from_preset(NAME).predict(image(), verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(downloads(kaggle)) == 2  # config.json and the weights
    assert any(TOKEN in headers.get("Authorization", "") for _, headers in kaggle.log)
    weights = create_model("vit_pico8", weights=f"{NAME}/1", hidden_dim=24, num_heads=12, classes=5)
    np.testing.assert_allclose(weights.predict(image(), verbose=0), expected, atol=1e-5)
    assert len(downloads(kaggle)) == 2


def test_from_preset_never_uses_an_interrupted_kaggle_download(kaggle):
    expected = files(num_heads=12)[1].predict(image(), verbose=0)
    kaggle.breaks = 1
    with pytest.raises(ConnectionError, match=NAME):
        kt.from_preset(NAME)
    found = kt.from_preset(NAME).predict(image(), verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("status", "name", "error", "message"),
    [
        (200, "kaggle://timm/vit/pyTorch/none", ValueError, "preset='kaggle://timm/vit/pyTorch/n"),
        (403, NAME, PermissionError, f"{NAME}.*KAGGLE_API_TOKEN"),
        (401, NAME, PermissionError, f"{NAME}.*KAGGLE_API_TOKEN"),
        (500, NAME, ConnectionError, NAME),
    ],
)
def test_from_preset_kaggle_errors_name_the_cause_and_never_the_access_token(
    kaggle, capfd, status, name, error, message
):
    kaggle.status = status
    with pytest.raises(error, match=message) as found:
        kt.from_preset(name)
    assert TOKEN not in str(found.value) + "".join(capfd.readouterr())


def test_preset_uploaded_to_kaggle_loads_unchanged(kaggle, tmp_path):
    model = create_model("vit_pico8", classes=3, class_names=["a", "b", "c"])
    model.head.bias.assign([1.0, 2.0, 3.0])
    kt.upload_preset("kaggle://me/mine/keras/small", model.save_to_preset(tmp_path / "mine"))
    assert "config.json" in kaggle.models["me/mine/small"]
    again = kt.from_preset("kaggle://me/mine/keras/small")
    assert again.class_names == ("a", "b", "c")
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    kaggle.status = 403
    with pytest.raises(PermissionError, match="upload_preset: .*kaggle://me/other/keras/small"):
        kt.upload_preset("kaggle://me/other/keras/small", tmp_path / "mine")
