"""Presets of the Hugging Face hub: `huggingface_hub` downloads them from a loopback server."""

import json
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_tokenlearner as kt
from keras_tokenlearner import create_model
from keras_tokenlearner.data import ArrayImages, ImageBatches
from keras_tokenlearner.weights import to_timm
from tests.presets.hub_server import Hub

pytest.importorskip("huggingface_hub", reason="the library of the hub: pip install huggingface_hub")
pytest.importorskip("safetensors", reason="writes safetensors: pip install safetensors")

pytestmark = pytest.mark.once("torch")
NAME = "hf://timm/vit_base_patch16_224.augreg2_in21k_ft_in1k"
TOKEN = "hf_secret_that_nobody_may_see"


def files(num_heads=2, num_layers=2):
    """Return the files of a repository of timm, and their model."""
    from safetensors.numpy import save

    model = create_model(
        "vit_pico8",
        classes=5,
        class_token=True,
        activation="gelu",
        num_heads=num_heads,
        hidden_dim=24,
        num_layers=num_layers,
    )
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.2, array.shape) for array in model.get_weights()])
    pixels = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 32, 32]}
    config = {
        "architecture": "vit_base_patch16_224",
        "num_classes": 5,
        "num_features": 24,
        "global_pool": "token",
        "pretrained_cfg": pixels | {"interpolation": "bicubic", "crop_pct": 0.9},
    }
    contents = {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": save(to_timm(model)),
    }
    return contents, model


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server. `huggingface_hub` reads addresses on import, so its constants are replaced."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="the library of the hub")
    with Hub() as server:
        server.repos[NAME.removeprefix("hf://")] = files()[0]
        template = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        server.constants = constants
        yield server


def open_it(name=NAME, **arguments):
    # The small model in the repository has fewer heads than the architecture in its config.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # warnings about untrained learned tokens
        return kt.from_preset(name, num_heads=2, **arguments)


def image():
    return np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("float32")


def unplug(hub, monkeypatch):
    gone = "http://127.0.0.1:9"  # nothing listens on the discard port
    template = hub.constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(hub.address, gone)
    monkeypatch.setattr(hub.constants, "ENDPOINT", gone)
    monkeypatch.setattr(hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # before the library tries again


def weight_requests(hub):
    return [path for path, _ in hub.log if path.endswith("model.safetensors")]


def test_hub_preset_gives_the_saved_probabilities_and_downloads_once(hub, monkeypatch):
    expected = files()[1].predict(image(), verbose=0)
    model = open_it()
    np.testing.assert_allclose(model.predict(image(), verbose=0), expected, atol=1e-5)
    assert model.preprocessing.crop_fraction == 0.9
    assert model.preprocessing.interpolation == "bicubic"
    assert any(headers.get("authorization", "").endswith(TOKEN) for _, headers in hub.log) or any(
        headers.get("Authorization", "").endswith(TOKEN) for _, headers in hub.log
    )
    before = weight_requests(hub)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    again = open_it()
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])
    assert weight_requests(hub) == before


def test_hub_preset_in_the_cache_loads_without_a_network(hub, tmp_path, monkeypatch):
    model = open_it()
    names = [path.rpartition("/")[2] for path, _ in hub.log]
    assert "preprocessor_config.json" in names  # the repository lacks this file
    # Caches of earlier versions have no mark for this file.
    (mark,) = tmp_path.glob("cache/*/.no_exist/*/processor_config.json")
    mark.unlink()
    unplug(hub, monkeypatch)
    again = open_it()
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize(
    ("architecture", "labels", "arguments", "activation"),
    [
        ("vit_base_patch16_clip_224", None, {}, None),
        ("vit_base_patch16_clip_224", None, {"classifier_activation": "sigmoid"}, "sigmoid"),
        ("vit_base_patch16_clip_224", [f"{i}" for i in range(512)], {}, "softmax"),
        ("vit_base_patch16_224", None, {}, "softmax"),
        ("vit_large_patch14_clip_224", None, {}, "softmax"),  # its embeddings have 768 channels
    ],
)
def test_timm_preset_of_a_clip_tower_gives_embeddings_without_softmax(
    tmp_path, architecture, labels, arguments, activation
):
    from safetensors.numpy import save_file

    entries = to_timm(create_model("vit_pico8", classes=512, class_token=True, activation="gelu"))
    save_file(entries, tmp_path / "model.safetensors")
    pixels = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 32, 32]}
    said = {"architecture": architecture, "pretrained_cfg": pixels, "label_names": labels}
    (tmp_path / "config.json").write_text(json.dumps(said))
    model = kt.from_preset(tmp_path, num_heads=2, **arguments)
    assert model.classes == 512 and model.classifier_activation == activation
    if activation is None:
        with pytest.warns(UserWarning, match="reset"):
            other = kt.from_preset(tmp_path, num_heads=2, classes=3)
        assert other.classifier_activation == "softmax"


def test_timm_preset_of_a_clip_tower_with_as_many_classes_gets_a_new_head(tmp_path):
    from safetensors.numpy import save_file

    given = {"class_token": True, "activation": "gelu"}
    save_file(to_timm(create_model("vit_pico8", classes=512, **given)), tmp_path / "a.safetensors")
    pixels = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 32, 32]}
    said = {"architecture": "vit_base_patch16_clip_224", "pretrained_cfg": pixels}
    (tmp_path / "config.json").write_text(json.dumps(said))
    (tmp_path / "a.safetensors").rename(tmp_path / "model.safetensors")
    names = [f"class {i}" for i in range(512)]
    for call in (
        lambda **new: kt.from_preset(tmp_path, num_heads=2, **new),
        lambda **new: create_model("vit_pico8", weights=tmp_path, num_heads=2, **given, **new),
    ):
        for class_names in (None, names):
            with pytest.warns(UserWarning, match="(?s)reset .*: head/kernel.*embeddings"):
                model = call(classes=512, class_names=class_names)
            assert model.classifier_activation == "softmax"
            assert not np.any(model.head.get_weights()[0])
        with pytest.raises(ValueError, match="`class_names`.*`classes`.*classes=512"):
            call(class_names=names)


def test_readme_block_with_a_checkpoint_fine_tunes_and_saves_the_model(hub, tmp_path, monkeypatch):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (block,) = (x for x in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "hf://" in x)
    assert f'"{NAME}"' in block
    # The architecture of this name has 12 heads.
    hub.repos[NAME.removeprefix("hf://")], small = files(num_heads=12)
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40, 48, 3), dtype="uint8")
    images = ArrayImages(pixels, np.arange(32) % 2, ("cat", "dog"))
    names = {"kt": kt, "keras": keras, "train": images, "ImageBatches": ImageBatches}
    with pytest.warns(UserWarning, match="head"):
        exec(block, names)  # noqa: S102
    again = keras.saving.load_model("vit.keras")
    assert again.class_names == ("cat", "dog") and again.preprocessing.interpolation == "bicubic"
    for ours, trained in ((small, again), (again, names["vit"])):
        kernels = [model.get_layer("embedding").get_weights()[0] for model in (ours, trained)]
        np.testing.assert_allclose(*kernels, atol=1e-3)
    kernels = [model.get_layer("embedding").get_weights()[0] for model in (small, again)]
    assert np.any(kernels[0] != kernels[1])


def test_hub_preset_with_learned_tokens_loads_the_same_weights_as_create_model(hub):
    model = open_it(at=1, num_tokens=4)
    assert len(model.token_learners) == 1 and model.config.num_tokens == 4
    assert model.output_shape == (None, 5)
    with pytest.warns(UserWarning, match="token_learner: "):
        named = create_model(
            "tokenlearner_pico8_4at1", weights=NAME, hidden_dim=24, mlp_dim=96, num_heads=2
        )
    path = "block_1/mlp/hidden/kernel"
    kernels = [next(w for w in m.weights if w.path == path) for m in (model, named)]
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, kernels))


@pytest.mark.parametrize(
    ("how", "name", "error", "message"),
    [
        ("gated", NAME, PermissionError, f"{NAME}.*HF_TOKEN"),
        ("right", "hf://timm/none", ValueError, "preset='hf://timm/none'"),
        ("right", f"{NAME}@v9", ValueError, "revision='v9'"),
        ("offline", NAME, ConnectionError, f"{NAME}.*HF_HUB_OFFLINE"),
        ("unreachable", NAME, ConnectionError, f"{NAME}.*LocalEntryNotFoundError"),
        ("right", "hf://timm", ValueError, "address='hf://timm'"),
    ],
)
def test_from_preset_hub_errors_name_the_cause_and_never_the_access_token(
    hub, monkeypatch, capfd, how, name, error, message
):
    hub.how = how
    if how == "offline":
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    if how == "unreachable":
        unplug(hub, monkeypatch)
    with pytest.raises(error, match=message) as found:
        kt.from_preset(name)
    assert TOKEN not in str(found.value) + "".join(capfd.readouterr())


def test_from_preset_never_uses_an_interrupted_download(hub):
    hub.how, hub.breaks = "broken", 1
    try:
        model = open_it()
    except ConnectionError:  # the library stopped trying; the next call continues
        model = open_it()
    expected = files()[1].predict(image(), verbose=0)
    np.testing.assert_allclose(model.predict(image(), verbose=0), expected, atol=1e-5)
    assert len(weight_requests(hub)) > 1


def test_preset_uploaded_to_the_hub_loads_unchanged(hub, tmp_path):
    model = create_model("vit_pico8", classes=3, class_names=["a", "b", "c"])
    model.head.bias.assign([1.0, 2.0, 3.0])
    kt.upload_preset("hf://me/mine", model.save_to_preset(tmp_path / "mine"))
    again = kt.from_preset("hf://me/mine")
    assert again.class_names == ("a", "b", "c")
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    card = hub.repos["me/mine"]["README.md"].decode()
    assert card.startswith("---\n") and "pipeline_tag: image-classification" in card
    hub.how = "read_only"
    with pytest.raises(PermissionError, match="upload_preset: .*hf://me/other"):
        kt.upload_preset("hf://me/other", tmp_path / "mine")
    with pytest.raises(ValueError, match=r"upload_preset: .*'config\.json'.*folder="):
        kt.upload_preset("hf://me/other", tmp_path)


def test_upload_preset_next_to_weights_of_another_format_raises_and_uploads_nothing(hub, tmp_path):
    """from_preset would read the other weights."""
    folder = create_model("vit_pico8", classes=3).save_to_preset(tmp_path / "mine")
    before = dict(hub.repos[NAME.removeprefix("hf://")])
    with pytest.raises(ValueError, match=rf"upload_preset: .*model\.safetensors.*uri='{NAME}'"):
        kt.upload_preset(NAME, folder)
    assert hub.repos[NAME.removeprefix("hf://")] == before
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match=r"upload_preset: `folder`.*pytorch_model\.bin"):
        kt.upload_preset("hf://me/mine", folder)
    assert "me/mine" not in hub.repos


def test_upload_preset_to_an_unreachable_hub_raises_connection_error(hub, monkeypatch, tmp_path):
    model = create_model("vit_pico8", classes=3)
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port
    with pytest.raises(ConnectionError, match=r"upload_preset: .*hf://me/mine .*ConnectError"):
        kt.upload_preset("hf://me/mine", model.save_to_preset(tmp_path / "mine"))


def test_hub_preset_with_sharded_keras_weights_loads_all_shards(hub, tmp_path):
    model = create_model("vit_pico8", classes=3)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=array.shape) for array in model.get_weights()])
    folder = model.save_to_preset(tmp_path / "mine")
    for file in folder.glob("model.weights.h5*"):
        file.unlink()
    model.save_weights(folder / "model.weights.json", max_shard_size=3e-5)
    contents = {file.name: file.read_bytes() for file in folder.iterdir()}
    hub.repos["me/parts"] = contents
    again = kt.from_preset("hf://me/parts")
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    *_, last = sorted(name for name in contents if name.startswith("model_"))
    hub.repos["me/less"] = {name: x for name, x in contents.items() if name != last}
    with pytest.raises(ValueError, match=rf"from_preset.*Missing: {last}"):
        kt.from_preset("hf://me/less")
    index = json.loads(contents["model.weights.json"])
    index["weight_map"]["/layers/dense/vars"] = ["../config.json"]
    hub.repos["me/outside"] = contents | {"model.weights.json": json.dumps(index).encode()}
    with pytest.raises(ValueError, match=r"from_preset.*'\.\./config\.json'"):
        kt.from_preset("hf://me/outside")


def test_second_upload_of_a_preset_without_class_names_deletes_the_old_names(hub, tmp_path):
    for names in (["a", "b", "c"], None):
        model = create_model("vit_pico8", classes=3, class_names=names)
        kt.upload_preset("hf://me/mine", model.save_to_preset(tmp_path / "mine"))
        assert ("class_names.json" in hub.repos["me/mine"]) == (names is not None)
    assert kt.from_preset("hf://me/mine").class_names is None


def test_from_preset_obeys_the_environment_variables_of_the_hub(hub, tmp_path):
    """A new process reads HF_ENDPOINT, HF_HOME and the token, and never prints the token."""
    code = (
        f"import keras_tokenlearner as kt; m = kt.from_preset({NAME!r}, num_heads=2); print(m.name)"
    )
    environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "HF_TOKEN": TOKEN}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment | {"HF_HUB_DISABLE_XET": "1"},
    )
    assert re.search("vit_base_patch16_224", done.stdout), done.stderr
    assert TOKEN not in done.stdout + done.stderr
