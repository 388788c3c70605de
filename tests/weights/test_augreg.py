"""Checkpoints of the JAX ViT, in every naming scheme of its releases."""

import contextlib
import re
import warnings

import numpy as np
import pytest

from keras_tokenlearner import applications, create_model, from_preset
from keras_tokenlearner.weights import load
from tests.weights.foreign import (
    SIZES,
    augreg_entries,
    build,
    close,
    outputs,
    pixels,
    refused,
)
from tests.weights.numpy_vit import forward

pytestmark = pytest.mark.once("torch")


def newer(entries):
    numbers = {"Attention_1": "Attention_0", "LayerNorm_2": "LayerNorm_1", "Block_3": "Block_0"}
    return {
        re.sub("|".join(numbers), lambda found: numbers[found[0]], name): array
        for name, array in entries.items()
    }


def prefixed(prefix):
    return lambda entries: {f"{prefix}{name}": array for name, array in entries.items()}


def nested(entries):
    tree = {}
    for name, array in entries.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return {"params": tree, "step": 7}


def big_vision(entries):
    """Return entries as in big_vision: stacked blocks, positions of patches only, a text model."""
    entries, blocks = newer(entries), {}
    positions = entries.pop("Transformer/posembed_input/pos_embedding")
    entries["cls"] = entries["cls"] + positions[:, :1]
    entries["pos_embedding"] = positions[:, 1:]
    for name in sorted(name for name in entries if "encoderblock_" in name):
        blocks.setdefault(re.sub(r"_\d", "", name, count=1), []).append(entries.pop(name))
    entries |= {name: np.stack(arrays) for name, arrays in blocks.items()}
    text = {"txt/Encoder_0/kernel": np.zeros(3), "t": np.zeros(1)}
    return prefixed("params/")(prefixed("img/")(entries) | text)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(dict, marks=pytest.mark.every_backend),
        newer,
        prefixed("opt/target/"),
        prefixed("params/"),
        prefixed("params/img/"),
        nested,
        big_vision,
    ],
    ids=["plain", "newer", "opt", "params", "img", "nested", "big_vision"],
)
def test_augreg_naming_variants_give_the_reference_logits(form):
    entries, images = augreg_entries(), pixels()
    model = build("augreg", form(entries))
    report = load(model, "augreg", form(entries))
    close(outputs(model, images), forward(entries, images / 127.5 - 1))
    assert len(report.loaded) == len(model.weights) and not report.left
    assert set(report.unused) <= {"step", "params/txt/Encoder_0/kernel", "params/t"}


def test_augreg_npz_by_source_name_loads_with_and_without_its_head(tmp_path):
    np.savez(tmp_path / "vit.npz", **augreg_entries(class_token=False))
    model = create_model(
        "vit_pico8", weights=f"augreg:{tmp_path}/vit.npz", mlp_dim=48, classifier_activation=None
    )
    images = pixels()
    expected = forward(augreg_entries(class_token=False), images / 127.5 - 1, class_token=False)
    close(outputs(model, images), expected)
    sizes = {**SIZES, "input_shape": (32, 32, 3), "classifier_activation": None}
    by_function = applications.ViTB16(weights=f"augreg:{tmp_path}/vit.npz", classes=5, **sizes)
    close(outputs(by_function, images), expected)
    with pytest.warns(UserWarning, match="reset .*: head/kernel, head/bias"):
        other = create_model("vit_pico8", weights=tmp_path / "vit.npz", mlp_dim=48, classes=3)
    assert other.output_shape == (None, 3)


def test_load_of_augreg_into_a_model_without_class_token_drops_the_class_token():
    entries, images = augreg_entries(), pixels()
    model = build("augreg", entries, class_token=False)
    report = load(model, "augreg", entries)
    bare = entries | {
        "Transformer/posembed_input/pos_embedding": entries[
            "Transformer/posembed_input/pos_embedding"
        ][:, 1:]
    }
    close(outputs(model, images), forward(bare, images / 127.5 - 1, class_token=False))
    assert report.unused == ("cls",)


@pytest.mark.parametrize("dtype", ["V2", pytest.param("bfloat16", marks=pytest.mark.every_backend)])
def test_bfloat16_checkpoints_of_numpy_and_jax_load_exactly(dtype):
    if dtype == "bfloat16":
        types = pytest.importorskip("ml_dtypes", reason="the type of JAX: pip install ml_dtypes")
        dtype = types.bfloat16
    entries = augreg_entries()
    halves = {name: (a.view(np.uint32) >> 16).astype(np.uint16) for name, a in entries.items()}
    stored = {name: array.view(dtype) for name, array in halves.items()}
    model = build("augreg", entries)
    load(model, "augreg", stored)
    kernel = np.asarray(model.get_layer("head").get_weights()[0])
    assert np.abs(kernel - entries["head/kernel"]).max() < 0.01
    np.testing.assert_array_equal(
        kernel.view(np.uint32) >> 16, halves["head/kernel"].astype(np.uint32)
    )


@pytest.mark.parametrize("missing", sorted(augreg_entries()))
def test_augreg_file_with_one_missing_entry_raises_no_error_but_value_error(missing, tmp_path):
    entries = augreg_entries()
    model = build("augreg", entries)
    del entries[missing]
    refused(r"^load\('augreg'\): [\w`]", model, "augreg", entries)
    np.savez(tmp_path / "vit.npz", **entries)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning lists the variables without values
        with contextlib.suppress(ValueError):
            create_model("vit_pico8", weights=f"augreg:{tmp_path}/vit.npz", mlp_dim=48)


def test_augreg_file_without_the_sizes_of_its_model_raises_and_lists_them(tmp_path):
    """big_vision's NaFlex models embed flattened patches by a kernel of two axes."""
    entries = augreg_entries()
    flat = entries | {"embedding/kernel": np.zeros((192, 32), "float32")}
    shallow = {name: array for name, array in entries.items() if "encoderblock" not in name}
    for wrong, absent in ((flat, "hidden_dim, patch_size"), (shallow, "num_layers")):
        np.savez(tmp_path / "vit.npz", **wrong)
        with pytest.raises(ValueError, match=f"from_preset.*augreg.*{absent}"):
            from_preset(f"augreg:{tmp_path}/vit.npz")
