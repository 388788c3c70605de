"""Folders that `save_to_preset` writes and `from_preset` opens, and configs that are refused."""

import dataclasses
import importlib
import inspect
import json
import os
import re

import keras
import numpy as np
import pytest

import keras_tokenlearner as kt
from keras_tokenlearner import create_model
from keras_tokenlearner.applications.load import load_model
from keras_tokenlearner.data.preprocessing import preprocessing_of
from keras_tokenlearner.models import Preprocessing, VisionTransformer, X2Plus1D
from keras_tokenlearner.presets import hub
from keras_tokenlearner.presets.addresses import parse_address
from keras_tokenlearner.presets.from_preset import _OF_RETROFIT
from keras_tokenlearner.weights import load, load_weights, plan_of, save_weights, to_timm
from keras_tokenlearner.weights.positions import resize_table

pytestmark = pytest.mark.once("torch")


def saved(tmp_path, name="tokenlearner_pico8_4at1", **changes):
    model = create_model(name, classes=3, **changes)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.2, array.shape) for array in model.get_weights()])
    return model, model.save_to_preset(tmp_path / "mine")


def same(one, other):
    assert [w.path for w in one.weights] == [w.path for w in other.weights]
    for ours, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.every_backend
def test_model_from_saved_preset_equals_the_model(tmp_path):
    pixels = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3), crop_fraction=0.9)
    names = ["a", "b", "c"]
    model, folder = saved(tmp_path, preprocessing=pixels, class_names=names, activation="gelu")
    again = kt.from_preset(folder)
    same(model, again)
    assert again.config == model.config and again.class_names == ("a", "b", "c")
    assert again.preprocessing == pixels
    assert json.loads((folder / "class_names.json").read_text()) == names
    same(model, load_model(folder, owner="test"))
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n") and "library_name: keras_tokenlearner" in card


def test_model_with_another_resizing_keeps_it_in_its_preset(tmp_path):
    model = create_model("vit_pico8", classes=3)
    rule = dataclasses.replace(model.preprocessing, crop_fraction=0.875)
    model.preprocessing = rule
    assert preprocessing_of(model) == rule
    assert kt.from_preset(model.save_to_preset(tmp_path / "mine")).preprocessing == rule


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_saved_preset_of_any_number_of_channels_loads_unchanged(tmp_path, channels):
    mean = tuple(np.linspace(0.3, 0.6, channels))
    for number, std in enumerate((tuple(np.linspace(0.1, 0.3, channels)), (0.2,))):
        model = create_model(
            "vit_pico8",
            classes=3,
            input_shape=(32, 32, channels),
            preprocessing=Preprocessing(mean=mean, std=std),
        )
        same(model, kt.from_preset(model.save_to_preset(tmp_path / f"{number}")))


@pytest.mark.parametrize(
    ("place", "name"),
    [("runs@v2/my_preset", "my_preset"), ("my@v2", "my_v2"), ("a.b", "a_b"), ("@v2", "v2")],
)
def test_from_preset_of_a_folder_names_the_model_after_the_folder(tmp_path, place, name):
    """Only addresses of Hugging Face have a revision behind an @."""
    folder = create_model("vit_pico8", classes=3).save_to_preset(tmp_path / place)
    assert kt.from_preset(folder).name == name


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("hf://org/vit.a@refs/pr/1", "vit_a"),
        ("https://host/@me/vit.npz?download=1@2", "vit_npz"),
        ("augreg:https://host/b@c/vit.npz", "vit_npz"),
        ("kaggle://me/vit/keras/base/2", "base"),
        ("vit_tiny_patch16_224.augreg_in21k", "vit_tiny_patch16_224_augreg_in21k"),
    ],
)
def test_from_preset_of_an_address_names_the_model_after_its_last_part(
    monkeypatch, tmp_path, address, name
):
    folder = create_model("vit_pico8", classes=3).save_to_preset(tmp_path / "mine")
    local = hub.fetch_files("test", parse_address("test", folder))
    module = importlib.import_module("keras_tokenlearner.presets.from_preset")
    monkeypatch.setattr(module, "fetch_files", lambda *_: local)  # no network
    assert kt.from_preset(address).name == name


@pytest.mark.parametrize("open_preset", [kt.from_preset, load_model])
@pytest.mark.parametrize(
    "changes",
    [
        {"include_preprocessing": False, "classifier_activation": None},
        {"classifier_activation": "sigmoid", "dtype": "bfloat16"},
        {"include_top": False, "pooling": None},
        {"include_top": False, "pooling": "max", "include_preprocessing": False},
    ],
    ids=str,
)
def test_saved_preset_keeps_the_input_and_output_of_the_model(tmp_path, changes, open_preset):
    model, folder = saved(tmp_path, **changes)
    again = open_preset(folder)
    assert again.get_config() == model.get_config() | {"name": again.name}
    image = np.random.default_rng(1).uniform(-1, 1, (1, 32, 32, 3)).astype("float32")
    found, wanted = (keras.ops.convert_to_numpy(m(image)) for m in (again, model))
    np.testing.assert_array_equal(found, wanted)


def test_from_preset_arguments_override_the_config_of_a_saved_preset(tmp_path):
    _, folder = saved(tmp_path, include_preprocessing=False, classifier_activation=None)
    changes = {"include_preprocessing": True, "classifier_activation": "softmax"}
    model = kt.from_preset(folder, dtype="mixed_bfloat16", **changes)
    assert changes.items() <= model.get_config().items()
    assert model.dtype_policy.name == "mixed_bfloat16"
    assert kt.from_preset(folder, include_top=False).output_shape == (None, 32)


def test_saved_preset_of_a_timm_checkpoint_resizes_its_positions_as_timm_does(tmp_path):
    entries = to_timm(saved(tmp_path, "vit_pico8")[0])
    np.savez(tmp_path / "timm.npz", **entries)
    address, size = f"timm:{tmp_path}/timm.npz", {"input_shape": (48, 64, 3)}
    given = {"normalization": "half", "activation": "gelu", "layer_norm_epsilon": 1e-6}
    given |= {"num_heads": 2}
    model, larger = kt.from_preset(address, **given), kt.from_preset(address, **given, **size)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    for again in (model, restored, kt.retrofit(model, at=1, num_tokens=4)):
        again = kt.from_preset(again.save_to_preset(tmp_path / "again"), **size)
        assert again.position_resize == "bicubic_antialias"
        same(again.get_layer("positions"), larger.get_layer("positions"))
    ours = kt.from_preset(tmp_path / "mine", **size).get_layer("positions")
    wanted = resize_table(entries["pos_embed"].reshape(4, 4, -1), (6, 8), "bilinear")
    np.testing.assert_array_equal(ours.get_weights()[0], wanted)


@pytest.mark.parametrize(
    ("include_top", "name", "value"),
    [
        (None, "pooling", "avg"),
        (True, "pooling", "none"),
        (False, "classes", 3),
        (False, "classifier_activation", None),
    ],
)
def test_from_preset_with_an_argument_without_effect_raises(tmp_path, include_top, name, value):
    _, folder = saved(tmp_path, "vit_pico8")
    for function in (kt.from_preset, load_model):
        with pytest.raises(ValueError, match=f"`{name}`") as caught:
            function(folder, include_top=include_top, **{name: value})
        assert f"{name}={value!r}" in str(caught.value)


@pytest.mark.parametrize("whole", [True, False])
def test_saved_preset_keeps_frozen_layers_but_trains_a_new_head(tmp_path, whole):
    model, folder = saved(tmp_path, "vit_pico8")
    (model if whole else model.get_layer("head")).trainable = False
    model.save_to_preset(folder)
    again = kt.from_preset(folder)
    paths = [weight.path for weight in model.trainable_weights]
    assert [weight.path for weight in again.trainable_weights] == paths
    with pytest.warns(UserWarning, match="reset"):
        other = kt.from_preset(folder, classes=5)
    head = ["head/kernel", "head/bias"]
    assert [weight.path for weight in other.trainable_weights] == [*paths, *head]


def test_weight_and_preset_functions_with_a_tilde_path_use_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("USERPROFILE" if os.name == "nt" else "HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    model, _ = saved(tmp_path, "vit_pico8")
    assert model.save_to_preset("~/home") == tmp_path / "home"
    save_weights(model, "~/a.weights.h5")
    np.savez(tmp_path / "timm.npz", **to_timm(model))
    given = {"normalization": "half", "activation": "gelu_tanh", "layer_norm_epsilon": 1e-6}
    given |= {"num_heads": model.config.num_heads}
    loaded = create_model("vit_pico8", classes=3)
    load_weights(loaded, "~/a.weights.h5")
    for again in (
        loaded,
        load_model("~/home"),
        kt.from_preset("~/home"),
        create_model("vit_pico8", weights="~/home"),
        create_model("vit_pico8", weights="~/a.weights.h5"),
        create_model("vit_pico8", weights="~/timm.npz", **given),
    ):
        same(model, again)
    assert plan_of("~/timm.npz").classes == 3
    with pytest.raises(ValueError, match="`uri`"):  # the folder is found
        kt.upload_preset("~/other", "~/home")
    assert not (tmp_path / "~").exists()


def in_parts(model, folder):
    """Replace the weights of a preset by sharded weights of Keras."""
    for file in folder.glob("model.weights.h5*"):
        file.unlink()
    model.save_weights(folder / "model.weights.json", max_shard_size=3e-5)
    assert len(list(folder.glob("model_*.weights.h5"))) > 3


def test_saved_preset_with_sharded_weights_equals_the_model(tmp_path):
    model, folder = saved(tmp_path, class_names=["a", "b", "c"], activation="gelu")
    in_parts(model, folder)
    for again in (
        kt.from_preset(folder),
        kt.from_preset(folder / "model.weights.json"),
        load_model(folder, owner="test"),
        create_model("tokenlearner_pico8_4at1", weights=folder),
    ):
        same(model, again)
        assert again.class_names == ("a", "b", "c")
    (folder / "model_00001.weights.h5").unlink()
    with pytest.raises(ValueError, match=r"from_preset.*model_00001\.weights\.h5"):
        kt.from_preset(folder)


@pytest.mark.parametrize("name", ["model.weights.json", "model.safetensors.index.json?x=1"])
def test_from_preset_of_a_shard_index_at_an_https_address_raises(name):
    with pytest.raises(ValueError, match=rf"from_preset.*Received: https://host/{re.escape(name)}"):
        kt.from_preset(f"https://host/{name}")


def test_second_save_of_a_preset_without_class_names_removes_the_old_names(tmp_path):
    _, folder = saved(tmp_path, class_names=["a", "b", "c"])
    model, _ = saved(tmp_path, "vit_pico8")
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.weights.h5",
        "model.weights.h5.sha256",
    ]
    again = kt.from_preset(folder)
    same(model, again)
    assert again.class_names is None


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_save_to_preset_in_a_folder_with_other_weights_raises(tmp_path, name):
    model, other = create_model("vit_pico8", classes=3), tmp_path / name
    other.write_bytes(b"weights")
    with pytest.raises(ValueError, match=rf"save_to_preset: `folder`.*{name}"):
        model.save_to_preset(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_from_preset_with_other_class_names_of_the_same_number_resets_the_head(tmp_path):
    names = ["sad", "angry", "fear"]
    model, folder = saved(tmp_path, class_names=names)
    model.head.trainable = False
    model.save_to_preset(folder)
    with pytest.warns(UserWarning, match="(?s)reset .*: head/kernel.*`class_names`"):
        other = kt.from_preset(folder, classes=3, class_names=sorted(names))
    assert other.class_names == ("angry", "fear", "sad") and other.head.trainable
    assert not np.array_equal(other.head.get_weights()[0], model.head.get_weights()[0])
    for given in ({}, {"classes": 3, "class_names": names}, {"class_names": ["bad", "angry", "x"]}):
        same(model, kt.from_preset(folder, **given))
    with pytest.raises(ValueError, match="from_preset.*'angry' as class 0 .* class 1 of"):
        kt.from_preset(folder, class_names=sorted(names))


def test_from_preset_with_other_classes_keeps_the_body_and_warns_of_a_reset_head(tmp_path):
    model, folder = saved(tmp_path, class_names=["a", "b", "c"])
    with pytest.warns(UserWarning, match="reset .*: head/kernel, head/bias"):
        other = kt.from_preset(folder, classes=5)
    assert other.output_shape == (None, 5) and other.class_names is None
    for ours, theirs in zip(model.get_weights()[:-2], other.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    features = kt.from_preset(folder, include_top=False, input_shape=(64, 32, 3))
    assert features.output_shape == (None, 32)


@pytest.mark.parametrize("wrong", [224, (32, 32), (32, 0, 3), "abc"], ids=str)
def test_from_preset_with_a_wrong_input_shape_raises(tmp_path, wrong):
    _, folder = saved(tmp_path)
    with pytest.raises(ValueError, match="from_preset.*`input_shape`") as caught:
        kt.from_preset(folder, input_shape=wrong)
    assert f"input_shape={wrong!r}" in str(caught.value)


@pytest.mark.parametrize("pooling", ["none", "avg", "head"])
@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_model_without_top_loads_a_preset_with_its_final_norm_after_the_pooling(
    tmp_path, pooling, norm
):
    model, folder = saved(tmp_path, "vit_pico8", final_norm="pooled", norm=norm)
    body = kt.from_preset(folder, include_top=False, pooling=pooling)
    named = create_model(
        "vit_pico8", weights=f"{folder}", include_top=False, pooling=None, norm=norm
    )
    expected = {weight.path: weight for weight in model.weights}
    for weight in (*body.weights, *named.weights):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(weight), keras.ops.convert_to_numpy(expected[weight.path])
        )
    assert ("norm" in {layer.name for layer in body.layers}) is (pooling != "none")


@pytest.mark.parametrize("form", ["preset", "timm"])
def test_checkpoint_with_a_head_without_bias_gives_a_classifier_without_bias(tmp_path, form):
    model, address = saved(tmp_path, "vit_pico8", head_bias=False, classifier_activation=None)
    given = {"classifier_activation": None}
    if form != "preset":
        biased, _ = saved(tmp_path, "vit_pico8")
        entries = {name: x for name, x in to_timm(biased).items() if name != "head.bias"}
        np.savez(tmp_path / "timm.npz", **entries)
        address = f"timm:{tmp_path}/timm.npz"
        given |= {"normalization": "half", "activation": "gelu_tanh", "layer_norm_epsilon": 1e-6}
        given["num_heads"] = model.config.num_heads
    again = kt.from_preset(address, **given)
    named = create_model("vit_pico8", weights=address, **given)
    for found in (again, named):
        assert found.classes == 3 and not found.config.head_bias
        np.testing.assert_array_equal(found.head.kernel, model.head.kernel)


def test_from_preset_lists_every_argument_of_retrofit():
    found = {*inspect.signature(kt.retrofit).parameters} - {"model", "at", "num_tokens", "name"}
    assert found == {*_OF_RETROFIT}


def test_from_preset_with_a_fuser_equals_the_retrofitted_model(tmp_path):
    model, folder = saved(tmp_path, "vit_pico8")
    given = {"at": 1, "num_tokens": 4, "fuser": "token_fuser", "token_attention": "conv"}
    found, wanted = kt.from_preset(folder, **given), kt.retrofit(model, **given)
    assert found.config == wanted.config and found.config.fuser == "token_fuser"
    for name in ("block_1", "head"):
        same(found.get_layer(name), wanted.get_layer(name))
    with pytest.raises(ValueError, match=r"from_preset.*`fuser_beta`.*`at`.*fuser_beta='mlp'"):
        kt.from_preset(folder, **given, fuser_beta="mlp")


def test_x2plus1d_preset_with_arguments_of_vision_transformers_raises(tmp_path):
    model, folder = saved(tmp_path, "x2plus1d_pico")
    assert isinstance(model, X2Plus1D)
    same(model, X2Plus1D.from_preset(folder))
    with pytest.raises(ValueError, match=r"X2Plus1D\.from_preset.*preset="):
        VisionTransformer.from_preset(folder)
    given = {"at": 1, "include_top": False, "pooling": "avg", "classes": 3, "num_heads": 2}
    given |= {"classifier_activation": None, "include_preprocessing": False, "name": "mine"}
    for name, value in given.items():
        with pytest.raises(ValueError, match=f"`{name}`.*X2Plus1D"):
            kt.from_preset(folder, **{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre_logits": None}, "pre_logits/kernel.*include_top=False"),
        ({"num_layers": 3}, "block_2/"),
        ({"mlp_dim": 5}, r"block_0/mlp/hidden/kernel.*\(32, 5\)"),
        ({"final_norm": "pooled"}, "final_norm"),
    ],
    ids=str,
)
def test_preset_with_contradictory_arguments_raises_and_states_no_argument_of_load(
    tmp_path, changes, message
):
    """`from_preset` and `create_model` have no `head`, `partial` and `check_settings`."""
    _, folder = saved(tmp_path, "vit_pico8", pre_logits=7)
    for call in (kt.from_preset, lambda path, **x: create_model("vit_pico8", weights=path, **x)):
        with pytest.raises(ValueError, match=message) as caught:
            call(folder, **changes)
        assert not re.search("head=|partial=|check_settings=|plan_of", str(caught.value))


def test_save_to_preset_of_an_unsuitable_object_raises(tmp_path):
    with pytest.raises(ValueError, match="save_to_preset: `model`.*str"):
        kt.presets.save_to_preset("vit_b16", tmp_path)


def test_from_preset_of_a_weights_name_or_keras_file_raises_and_states_the_correct_call(tmp_path):
    name = "tokenlearner_nano4_8at2/fashion_mnist"
    with pytest.raises(ValueError, match=r"create_model\('tokenlearner_nano4_8at2', weights="):
        kt.from_preset(name)
    model = kt.create_model("vit_pico8", classes=10)
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"model\.keras .*keras\.saving\.load_model"):
        kt.from_preset(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"model\.keras .*keras\.saving\.load_model"):
        kt.create_model("vit_pico8", classes=10, weights=tmp_path / "model.keras")


def test_from_preset_of_a_damaged_preset_raises(tmp_path):
    _, folder = saved(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    for said, message in (
        ("[" * 100_000, r"config\.json.*recursion"),
        ("[]", r"config\.json.*object"),
        ("{}", r"config\.json.*timm, transformers or Keras"),
        (
            json.dumps(config | {"registered_name": "keras_tokenlearner>Other"}),
            "registered_name=.*Other",
        ),
        (
            json.dumps(config | {"config": {"config": {"hidden_dim": "x"}}}),
            r"config\.json.*'num_layers'",
        ),
        (json.dumps({"model_type": "llama"}), "model_type='llama'"),
        (
            json.dumps({"model_type": "videomae", "tubelet_size": 2, "patch_size": 0}),
            "patch_size=0",
        ),
        (json.dumps({"architecture": "resnet50", "num_features": 3}), "architecture='resnet50'"),
        (
            json.dumps(
                {
                    "architecture": "vit_base_patch16_224",
                    "num_features": 768,
                    "model_args": {"qk_norm": True},
                }
            ),
            "qk_norm",
        ),
    ):
        (folder / "config.json").write_text(said)
        with pytest.raises(ValueError, match=message):
            kt.from_preset(folder)
    (folder / "model.weights.h5").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors.*path="):
        kt.from_preset(folder)
    with pytest.raises(ValueError, match="Received: .*mine/none"):
        kt.from_preset(folder / "none")
    with pytest.raises(ValueError, match="`num_tokens` .*`at`.*num_tokens=8"):
        kt.from_preset(folder, num_tokens=8)


@pytest.mark.parametrize("is_described", [True, False])
def test_dinov3_checkpoint_without_its_activation_raises_and_names_the_argument(
    tmp_path, is_described
):
    save = pytest.importorskip(
        "safetensors.numpy", reason="writes safetensors: pip install safetensors"
    ).save_file
    entries = {
        "embeddings.patch_embeddings.weight": np.zeros((32, 3, 8, 8), np.float32),
        "layer.0.layer_scale1.lambda1": np.ones(32, np.float32),
    }
    save(entries, tmp_path / "model.safetensors")
    if is_described:
        said = {"model_type": "dinov3_vit", "num_attention_heads": 2, "image_size": 32}
        (tmp_path / "config.json").write_text(json.dumps(said))
    for call in (kt.from_preset, lambda folder: create_model("vit_pico8", weights=folder)):
        with pytest.raises(ValueError, match=r"`activation`.*'gelu', 'silu'") as caught:
            call(tmp_path)
        assert ("without a config.json" in str(caught.value)) != is_described


def test_from_preset_with_spatial_pooling_and_num_tokens_raises(tmp_path):
    _, folder = saved(tmp_path, "vit_pico8")
    pooled = kt.from_preset(folder, at=1, reducer="spatial_pooling")
    assert pooled.name.endswith("_4at1")
    with pytest.raises(ValueError, match=r"from_preset.*`num_tokens`.*num_tokens=4"):
        kt.from_preset(folder, at=1, num_tokens=4, reducer="spatial_pooling")


def test_token_learner_model_with_weights_of_a_plain_vit_keeps_its_token_learner(tmp_path):
    model, folder = saved(tmp_path, "vit_pico8", activation="gelu")
    with pytest.warns(UserWarning, match="token_learner: "):
        named = create_model("tokenlearner_pico8_4at1", weights=folder)
    assert len(named.token_learners) == 1 and named.config.activation == "gelu"
    np.testing.assert_array_equal(*(m.head.get_weights()[0] for m in (named, model)))


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": None},
        {"positions": None, "rotary": "index"},
        {"positions": None, "block_attention": "vector"},
        {"positions": "sequence", "patch_size": (2, 8, 8), "input_shape": (4, 32, 32, 3)},
    ],
    ids=str,
)
def test_model_without_a_position_table_loads_by_every_loading_function(tmp_path, changes):
    model, folder = saved(tmp_path, "vit_pico8", **changes)
    loaded = create_model("vit_pico8", classes=3, **changes)
    assert not load(loaded, None, model).left
    for again in (
        loaded,
        kt.from_preset(folder),
        load_model(folder, owner="test"),
        create_model("vit_pico8", weights=folder, **changes),
    ):
        same(model, again)
        assert again.config == model.config


@pytest.mark.every_backend
@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_save_to_preset_and_from_preset_of_a_quantized_model_raise(tmp_path):
    model, folder = saved(tmp_path, "vit_pico8")
    model.quantize("int8")
    with pytest.raises(ValueError, match="save_to_preset: `model`.*int8"):
        model.save_to_preset(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    model.save_weights(folder / "model.weights.h5")  # as earlier releases did
    with pytest.raises(ValueError, match=r"from_preset.*model\.weights\.h5.*block") as caught:
        kt.from_preset(folder)
    assert "config.json" not in str(caught.value)


def test_from_preset_of_a_folder_with_only_a_flax_file_raises_and_lists_readable_names(tmp_path):
    (tmp_path / "flax_model.msgpack").write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"from_preset.*model\.safetensors.*path=") as caught:
        kt.from_preset(tmp_path)
    assert "flax_model" not in str(caught.value)


@pytest.mark.parametrize("wrong", [None, 3, {"head/bias": np.zeros(3)}], ids=str)
def test_from_preset_of_an_object_that_is_no_path_raises_and_states_the_object(wrong):
    with pytest.raises(ValueError, match="from_preset: `preset`") as caught:
        kt.from_preset(wrong)
    assert f"preset={wrong!r}" in str(caught.value)


@pytest.mark.parametrize("raw", [True, False])
def test_from_preset_with_changed_include_preprocessing_has_a_float32_input(tmp_path, raw):
    """Only raw pixels may be integers."""
    inputs = keras.Input((32, 32, 3), name="image", dtype="uint8" if raw else "float16")
    _, folder = saved(tmp_path, "vit_pico8", input_tensor=inputs, include_preprocessing=raw)
    same_input = kt.from_preset(folder, include_preprocessing=raw).inputs[0]
    assert (same_input.name, same_input.dtype) == ("image", inputs.dtype)
    other = kt.from_preset(folder, include_preprocessing=not raw).inputs[0]
    assert (other.name, other.dtype) == ("image", "float32")


def test_preset_without_preprocessing_on_scaled_pixels_equals_the_model_on_raw_pixels(tmp_path):
    inputs = keras.Input((32, 32, 3), dtype="uint8")
    model, folder = saved(tmp_path, "vit_pico8", input_tensor=inputs)
    bare = kt.from_preset(folder, include_preprocessing=False)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), dtype="uint8")
    found = keras.ops.convert_to_numpy(bare((pixels / 127.5 - 1).astype("float32")))
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(model(pixels)), atol=1e-5)


def test_from_preset_with_numpy_arrays_without_effect_raises_and_names_the_argument(tmp_path):
    _, folder = saved(tmp_path, "vit_pico8")
    with pytest.raises(ValueError, match="from_preset.*`class_names`"):
        kt.from_preset(folder, include_top=False, class_names=np.array(["a", "b", "c"]))
    found = kt.from_preset(folder, input_shape=np.array([64, 32, 3]))
    assert found.input_shape == (None, 64, 32, 3)


def test_from_preset_with_an_unknown_position_resize_in_config_json_raises(tmp_path):
    _, folder = saved(tmp_path, "vit_pico8")
    config = json.loads((folder / "config.json").read_text())
    config["config"]["position_resize"] = "bicubc"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="from_preset.*position_resize='bicubc'"):
        kt.from_preset(folder)
