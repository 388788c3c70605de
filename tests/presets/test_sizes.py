"""The sizes of a model are compared with its weights before memory is allocated."""

import json
import random
import shutil

import keras
import numpy as np
import pytest

import keras_tokenlearner as kt
from keras_tokenlearner import create_model
from keras_tokenlearner.analysis import catalog_costs
from keras_tokenlearner.presets.sizes import build_without_weights
from tests.bounds import attack
from tests.weights.foreign import augreg_entries

IMAGES = {  # config field: its value, and a pattern of the error
    "hidden_dim": (10**4, r"model\.weights\.h5.*model: .*10000.*weights: "),
    "num_layers": (10**6, "`num_layers`.* 512 .*1000000"),
    "mlp_dim": (10**8, r"model\.weights\.h5.*model: .*100000000.*weights: "),
    "num_tokens": (10**7, r"model\.weights\.h5|must have at most \d+ numbers"),
    "patch_size": ([30_000, 30_000], "config.json"),
    "register_tokens": (10**8, r"at most \d+ numbers"),
    "stem": ([[8, 1]] * 10**4, "config.json"),
}
MODEL = {
    "classes": (10**8, r"model\.weights\.h5.*\(32, 100000000\)"),
    "input_shape": ([10**6, 10**6, 3], r"at most \d+ numbers.*1000000"),
}
VIDEOS = {
    "stage_units": ([1, 10**9], "`stage_units`.* 512 "),
    "head_channels": (10**8, r"model\.weights\.h5.*model: .*100000000.*weights: "),
    "unit": ("+".join(["conv2d"] * 10**4), "`unit`.* 512 "),
}


def edited(folder, to, values, inner):
    """Copy a preset with other values in its config.json."""
    shutil.copytree(folder, to)
    said = json.loads((folder / "config.json").read_text())
    said["config"].update(values if not inner else {})
    said["config"]["config"].update(values if inner else {})
    (to / "config.json").write_text(json.dumps(said))
    return to


@pytest.mark.once("torch")
def test_from_preset_of_huge_sizes_in_config_json_raises_and_takes_little_memory(tmp_path):
    """Each model would take gigabytes, or minutes to build."""
    images = create_model("tokenlearner_pico8_4at1", classes=3).save_to_preset(tmp_path / "images")
    videos = create_model("x2plus1d_pico", classes=3).save_to_preset(tmp_path / "videos")
    folders, reasons = [], []
    for folder, cases, inner in (
        (images, IMAGES, True),
        (images, MODEL, False),
        (videos, VIDEOS, True),
    ):
        for name, (value, reason) in cases.items():
            folders.append(edited(folder, tmp_path / name, {name: value}, inner))
            reasons.append(reason)
    outcomes = attack("keras_tokenlearner:from_preset", *folders)
    for outcome, reason in zip(outcomes, reasons, strict=True):
        outcome.is_refused(reason)


@pytest.mark.once("torch")
def test_from_preset_of_a_folder_with_weights_of_another_model_raises(tmp_path, monkeypatch):
    one = create_model("vit_pico8", classes=3).save_to_preset(tmp_path / "one")
    other = create_model("vit_pico8", classes=4).save_to_preset(tmp_path / "other")
    shutil.copy(one / "model.weights.h5", other)
    with pytest.raises(ValueError, match=r"config\.json.*\(32, 4\).*\(32, 3\)"):
        kt.from_preset(other)


@pytest.mark.once("torch")
def test_from_preset_of_a_checkpoint_with_a_huge_input_shape_raises_and_takes_little_memory(
    tmp_path,
):
    """The tables of positions grow with the image size of a config.json or an argument."""
    np.savez(tmp_path / "a.npz", **augreg_entries())
    address = f"augreg:{tmp_path / 'a.npz'}"
    assert kt.from_preset(address, input_shape=(16, 16, 3), num_heads=2).output_shape == (None, 5)
    (outcome,) = attack("tests.presets.test_sizes:open_large", address)
    outcome.is_refused(r"at most \d+ numbers.*80000")


def open_large(address):
    """Open a checkpoint for images whose positions take 12 GB."""
    kt.from_preset(address, input_shape=(80_000, 80_000, 3), num_heads=2)


WIDE = {  # config field: arrays that state a huge size, and a pattern of the error
    "mlp_dim": (
        {"Transformer/encoderblock_0/MlpBlock_3/Dense_1/kernel": (2**22, 1)},
        r"\(32, 4194304\)",
    ),
    "hidden_dim": ({"embedding/kernel": (8, 8, 3, 2**14)}, r"\(16384,\)"),
    "classes": (
        {"head/kernel": (1, 2**22), "head/bias": (2**22,)},
        r"\(32, 4194304\).*\(1, 4194304\)",
    ),
}


@pytest.mark.once("torch")
def test_from_preset_of_contradictory_huge_arrays_raises_and_takes_little_memory(tmp_path):
    """Each file has some kilobytes, and states a model of up to gigabytes."""
    addresses = []
    for name, (shapes, _) in WIDE.items():
        arrays = {entry: np.zeros(shape, "float32") for entry, shape in shapes.items()}
        np.savez_compressed(tmp_path / f"{name}.npz", **augreg_entries() | arrays)
        addresses.append(f"augreg:{tmp_path / name}.npz")
    outcomes = attack("tests.presets.test_sizes:open_checkpoint", *addresses)
    for outcome, (_, reason) in zip(outcomes, WIDE.values(), strict=True):
        outcome.is_refused(reason)


def open_checkpoint(address):
    kt.from_preset(address, num_heads=2)


@pytest.mark.once("torch")
def test_create_model_with_weights_of_a_one_row_head_raises_and_takes_little_memory(tmp_path):
    """The kernel of the head has one row. With all rows, it would take 4 GB."""
    import h5py

    path = tmp_path / "wide.weights.h5"
    create_model("vit_pico8", classes=10, **WIDER).save_weights(path)
    with h5py.File(path, "a") as file:
        for name, shape in (("0", (1, 2**22)), ("1", (2**22,))):
            del file[f"layers/dense/vars/{name}"]
            file.create_dataset(f"layers/dense/vars/{name}", data=np.zeros(shape), **GZIP)
    (outcome,) = attack("tests.presets.test_sizes:open_weights", path)
    outcome.is_refused(r"\(256, 4194304\).*\(1, 4194304\)")


WIDER = {"hidden_dim": 256, "num_heads": 2, "mlp_dim": 8}
GZIP = {"dtype": "f4", "compression": "gzip"}


def open_weights(path):
    create_model("vit_pico8", weights=path, **WIDER)


def test_build_without_weights_draws_no_seed():
    """A model that is built afterwards has the initial values of a run without this model."""
    config, state = create_model("tokenlearner_pico8_4at1").config, random.getstate()
    arguments = {"input_tensor": keras.Input((32, 32, 3)), "dtype": "bfloat16"}
    model = build_without_weights(kt.models.VisionTransformer, config, 3, arguments)
    assert random.getstate() == state
    assert model.output_shape == (None, 3) and model.head.compute_dtype == "bfloat16"
    assert model.input is not arguments["input_tensor"]


def test_catalog_costs_leave_no_uninitialized_weights_for_a_later_stateless_scope():
    """When a scope ends, Keras initialises weights that earlier scopes of the same thread left."""
    made = []
    initialize = keras.initializers.GlorotUniform.__call__

    def seen(self, shape, dtype=None, **options):
        made.append(tuple(shape))
        return initialize(self, shape, dtype, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.initializers.GlorotUniform, "__call__", seen)
        catalog_costs("vit_pico8", classes=3)
        made.clear()  # shapes are computed with placeholders
        with keras.StatelessScope():
            pass
    assert made == []
