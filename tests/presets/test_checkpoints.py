"""The table of published checkpoints, and their addresses."""

import dataclasses
import json
import re

import numpy as np
import pytest

from keras_tokenlearner.presets import list_checkpoints
from keras_tokenlearner.presets.addresses import parse_address
from keras_tokenlearner.presets.config_json import read_statement
from keras_tokenlearner.presets.timm_json import of_timm, timm_architectures
from keras_tokenlearner.weights.transformers_json import of_transformers
from tests.skips import peer

pytestmark = pytest.mark.once("torch")

ROWS = list_checkpoints()


def test_checkpoint_table_rows_have_addresses_and_licences():
    assert len(ROWS) >= 40 and len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        address = parse_address("test", row.address)
        assert address.kind in ("hf", "kaggle", "https") and row.licence
        assert not row.sha256 or re.fullmatch("[0-9a-f]{8,64}", row.sha256)
        assert bool(row.top1) == bool(row.top1_source), row.name
        assert row.hidden_dim % row.num_heads == 0 and len(row.input_size) == len(row.patch_size)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if "timm/" in row.address], ids=lambda row: row.name
)
def test_timm_checkpoint_rows_have_the_settings_of_the_architecture_table(row):
    architecture = timm_architectures()[row.name.partition(".")[0]]
    assert int(architecture["num_heads"]) == row.num_heads
    assert float(architecture["layer_norm_epsilon"]) == row.layer_norm_epsilon
    assert architecture["activation"] == row.activation


def same_pixels(ours, mean, std):
    """Return whether the mean and std of a `Preprocessing` are the values of three channels."""
    both = [tuple(np.broadcast_to(values, 3)) for values in (ours.mean, ours.std)]
    return both == [tuple(mean), tuple(std)]


@pytest.mark.peers
def test_timm_checkpoint_rows_have_the_settings_of_timm():
    timm = peer("timm.models")
    modes = {"center": "shortest", "squash": "squash", "border": "longest"}
    rows = [row for row in ROWS if "timm/" in row.address]
    assert rows
    for row in rows:
        said, ours = timm.get_pretrained_cfg(row.name), row.preprocessing
        assert row.input_size == ours.size == said.input_size[1:]
        assert row.classes == said.num_classes
        assert (ours.interpolation, ours.crop_fraction) == (said.interpolation, said.crop_pct)
        assert ours.resize_mode == modes[said.crop_mode], row.name
        assert same_pixels(ours, said.mean, said.std), row.name


@pytest.mark.peers
def test_vivit_checkpoint_row_has_the_settings_of_transformers():
    """The JSON file of this checkpoint has the defaults of `VivitImageProcessor`."""
    transformers = peer("transformers")
    (row,) = list_checkpoints("google/vivit*")
    said = transformers.VivitImageProcessor().to_dict()
    found = of_transformers("test", {"model_type": "vivit"}, said).preprocessing
    assert same_pixels(row.preprocessing, found.mean, found.std)
    same = dataclasses.replace(found, mean=row.preprocessing.mean, std=row.preprocessing.std)
    assert same == row.preprocessing


@pytest.mark.parametrize(
    ("text", "kind", "place", "revision", "source"),
    [
        ("hf://org/name@v1", "hf", "org/name", "v1", None),
        ("kaggle://o/m/keras/v/2", "kaggle", "o/m/keras/v/2", None, None),
        ("timm:file.npz", "path", "file.npz", None, "timm"),
        ("torchvision:https://x/y.pth", "https", "https://x/y.pth", None, "torchvision"),
        ("folder", "path", "folder", None, None),
    ],
)
def test_parse_address_of_each_form_returns_its_parts(text, kind, place, revision, source):
    found = parse_address("test", text)
    assert (found.kind, found.place, found.revision, found.source) == (
        kind,
        place,
        revision,
        source,
    )


@pytest.mark.parametrize("text", ["hf://name", "kaggle://a/b", "ftp://x/y", "", 3])
def test_parse_address_of_a_wrong_form_raises(text):
    with pytest.raises(ValueError, match=f"test: .*address={text!r}"):
        parse_address("test", text)


@pytest.mark.parametrize(
    ("architecture", "method"),
    [
        ("vit_base_patch16_224", None),
        ("flexivit_small", "bilinear_half_pixel"),
        ("vit_large_patch16_radio_v3", "bilinear_half_pixel"),
        ("vit_base_patch16_radio_v3", "bilinear"),
        ("vit_huge_patch16_radio_v3", "bilinear"),
        ("vit_huge_patch16_radio_v4", "bilinear_half_pixel"),
    ],
)
def test_timm_config_states_the_resizing_of_positions_of_its_architecture(architecture, method):
    assert of_timm("test", {"architecture": architecture}).resize == method


def test_timm_config_of_an_old_release_gives_the_settings_of_a_new_config(tmp_path):
    """Old releases of timm wrote one dictionary, without `pretrained_cfg`."""
    pixels = {"mean": [0.1] * 3, "std": [0.2] * 3, "input_size": [3, 160, 192]}
    pixels |= {"interpolation": "bilinear", "crop_pct": 0.8}
    old = {"architecture": "vit_tiny_patch16_224", **pixels, "labels": ["a", "b"]}
    new = {"architecture": old["architecture"], "pretrained_cfg": pixels, "label_names": ["a", "b"]}
    found = []
    for said in (old, new):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(said))
        found.append(read_statement("test", {path.name: path}))
    assert found[0] == found[1]
    assert found[0].preprocessing.crop_fraction == 0.8 and found[0].class_names == ("a", "b")
