"""Rules of `load` for all sources: the report, heads, grids, frames, pixels and errors."""

import re

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, from_preset
from keras_tokenlearner.models import VisionTransformer
from keras_tokenlearner.weights import load, plan_of
from keras_tokenlearner.weights.positions import resize_table
from tests.weights.foreign import augreg_entries, build, close, outputs, pixels, refused

pytestmark = pytest.mark.once("torch")

ENTRIES = augreg_entries()


def test_load_report_lists_loaded_resized_left_and_unused_variables():
    changes = {"reducer": "token_learner", "at": 1}
    model = build("augreg", ENTRIES, image=(48, 32), class_token=False, **changes)
    text = str(load(model, "augreg", ENTRIES | {}, head="drop"))
    assert text.splitlines()[0].endswith("37 of 45 variables loaded")
    assert "resized  positions/table: 4x4 to 6x4, bilinear" in text
    assert "left     8: token_learner/norm/gamma" in text
    assert "unused   3: head/kernel, head/bias, cls" in text
    assert "token_learner: these layers are untrained" in text


def test_checkpoint_head_of_other_classes_raises_unless_dropped_or_reset():
    entries = augreg_entries(classes=7)
    model = build("augreg", entries)
    message = r"head/kernel.*\(32, 5\).*\(32, 7\)"
    refused(message, model, "augreg", entries)
    before = model.get_layer("head").get_weights()
    report = load(model, "augreg", entries, head="drop")
    np.testing.assert_array_equal(model.get_layer("head").get_weights()[0], before[0])
    assert report.left == ("head/kernel", "head/bias") and report.unused == report.left
    report = load(model, "augreg", entries, head="reset")
    assert report.reset == ("head/kernel", "head/bias") and not report.left
    assert not np.any(model.get_layer("head").get_weights()[0])
    half = {name: array for name, array in ENTRIES.items() if name != "head/bias"}
    refused("head/bias", model, "augreg", half)
    features = build("augreg", entries, include_top=False)
    assert load(features, "augreg", entries).unused == ("head/kernel", "head/bias")


def test_checkpoint_of_an_unknown_grid_raises_unless_the_grid_is_passed():
    entries = augreg_entries(grid=(2, 6))
    model = build("augreg", entries)
    refused("pos_embedding.* 13 .*grid=None", model, "augreg", entries)
    report = load(model, "augreg", entries, grid=(2, 6))
    assert report.resized == {"positions/table": "2x6 to 4x4, bilinear"}
    rectangle = build("augreg", entries, image=(16, 48))
    assert not load(rectangle, "augreg", entries).resized


@pytest.mark.parametrize("method", ["central_frame", "inflate"])
def test_image_weights_in_a_video_model_give_the_image_tokens(method):
    """A video of equal frames gives the image's tokens. `central_frame` ignores other frames."""
    changes = {"reducer": "token_learner", "num_tokens": 4, "at": 1, "class_token": False}
    flat = build("augreg", ENTRIES, **changes)
    video = build("augreg", ENTRIES, image=(4, 32, 32), **changes, patch_size=(2, 8, 8))
    load(flat, "augreg", ENTRIES)
    report = load(video, "augreg", ENTRIES, embedding=method)
    assert report.resized["positions/table"] == "4x4 to 2x4x4, bilinear"
    assert report.resized["embedding/projection/kernel"] == f"from an image to 2 frames, {method}"
    image = pixels()
    stack = np.repeat(image[:, None], 4, 1)
    if method == "central_frame":
        stack[:, ::2] = 0  # of two frames, the second is the central frame
    parts = [
        keras.Model(model.inputs[0], model.get_layer("tokens").output) for model in (flat, video)
    ]
    tokens, of_video = outputs(parts[0], image), outputs(parts[1], stack)
    close(of_video, np.concatenate([tokens, tokens], 1))


def test_load_with_normalization_unlike_the_preprocessing_raises():
    """Pixels are normalised by the model's preprocessing, which must equal the file's."""
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    plan = plan_of(ENTRIES, "augreg", normalization=(mean, std))
    assert plan.preprocessing.mean == mean and plan.preprocessing.std == std
    model, other = build("augreg", ENTRIES), build("augreg", ENTRIES)
    refused(
        r"preprocessing.*\(0\.4, 0\.5, 0\.6\)", model, "augreg", ENTRIES, normalization=(mean, std)
    )
    right = VisionTransformer(
        model.config,
        input_shape=(32, 32, 3),
        classes=5,
        classifier_activation=None,
        preprocessing=plan.preprocessing,
    )
    plan.load(right)
    load(other, "augreg", ENTRIES)
    images = pixels()
    shifted = ((images / 255 - mean) / std + 1) * 127.5
    close(outputs(right, images), outputs(other, shifted.astype("float32")))
    for value, message in (
        (((0.5, np.nan), (1, 1)), r"\(\(0\.5, nan\), \(1, 1\)\)"),
        ((np.nan, 0.5), r"\(nan, 0\.5\)"),
        ((0.5, 0.0), r"\(0\.5, 0\.0\)"),
        (((0.5, 0.5), (1, 1, 1)), r"\(\(0\.5, 0\.5\), \(1, 1, 1\)\)"),
        ((0.5, 0.5, 0.5), r"\(0\.5, 0\.5, 0\.5\)"),
        ("imagenets", "'imagenets'.*'imagenet'"),
        (0.5, r"0\.5$"),
        (True, "True"),
        ((0.5, "0.5"), r"\(0\.5, '0\.5'\)"),
        ((0.5, None), r"\(0\.5, None\)"),
        (((0.5, (0.5, 0.5)), 1), r"\(\(0\.5, \(0\.5, 0\.5\)\), 1\)"),
        ({0.5: 1, 0.2: 3}, r"\{0\.5: 1, 0\.2: 3\}"),
    ):
        refused(f"normalization={message}", model, "augreg", ENTRIES, normalization=value)


@pytest.mark.parametrize("mean", [(0.4, 0.5, 0.6), (0.5,)], ids=str)
def test_load_compares_the_preprocessing_of_a_model_with_a_custom_head(mean):
    pair = (mean, (0.2,) * len(mean))
    plan = plan_of(ENTRIES, "augreg", normalization=pair)
    for include in (True, False):
        body = VisionTransformer(
            plan.config,
            input_shape=(32, 32, 3),
            include_top=False,
            include_preprocessing=include,
            pooling="token",
            preprocessing=plan.preprocessing,
        )
        model = keras.Model(body.input, keras.layers.Dense(2, name="mine")(body.output))
        assert load(model, "augreg", ENTRIES, head="drop", normalization=pair).left
        if include:
            refused("preprocessing has mean", model, "augreg", ENTRIES, head="drop")
        else:  # the caller normalises the pixels
            assert load(model, "augreg", ENTRIES, head="drop").left


@pytest.mark.parametrize("route", ["plan_of", "load", "from_preset", "create_model"])
@pytest.mark.parametrize(("name", "value"), [("normalization", 0.5), ("grid", 4), ("grid", (4,))])
def test_normalization_or_grid_that_is_no_pair_raises_in_every_loading_function(
    tmp_path, route, name, value
):
    model = create_model("vit_pico8", classes=3)
    folder, given = model.save_to_preset(tmp_path / "preset"), {name: value}
    routes = {
        "plan_of": lambda: plan_of(model, **given),
        "load": lambda: load(model, None, model, **given),
        "from_preset": lambda: from_preset(folder, **given),
        "create_model": lambda: create_model("vit_pico8", weights=folder, **given),
    }
    with pytest.raises(ValueError, match=rf"^{route}.*`{name}`.*{re.escape(repr(value))}"):
        routes[route]()


def test_grid_unlike_the_grid_of_the_positions_in_the_file_raises():
    model = create_model("vit_pico8", classes=3)
    load(model, None, model, grid=(4, 4))
    refused(r"`grid`.*\(4, 4\).*grid=\(2, 8\)", model, None, model, grid=(2, 8))


def test_checkpoint_of_another_architecture_raises_unless_partial():
    for changes, message in (
        ({"num_layers": 3}, "block_2/attention_norm/gamma"),
        ({"num_layers": 1}, "Transformer/encoderblock_1"),
        ({"hidden_dim": 64}, r"\(8, 8, 3, 64\), embedding/kernel .*\(8, 8, 3, 32\)"),
        ({"patch_size": (16, 16)}, r"\(16, 16, 3, 32\), embedding/kernel"),
        ({"register_tokens": 2}, "register_tokens/tokens"),
        ({"layer_scale": 0.1}, "block_0/self_attention_scale/gamma"),
        ({"pre_norm": True}, "pre_norm/gamma"),
        ({"block_attention": "vector"}, "block_0/self_attention/query/kernel"),
    ):
        refused(message, build("augreg", ENTRIES, **changes), "augreg", ENTRIES)
    refused("'augreg'.*source='timm'", build("timm"), "timm", ENTRIES)
    deeper = build("augreg", ENTRIES, num_layers=3)
    report = load(deeper, "augreg", ENTRIES, partial=True)
    assert len(report.left) == 16 and report.left[0] == "block_2/attention_norm/gamma"


def test_checkpoint_with_unknown_entries_raises_unless_partial():
    entries = ENTRIES | {"Transformer/encoderblock_0/gate/kernel": np.ones(3)}
    model = build("augreg", ENTRIES)
    refused("Transformer/encoderblock_0/gate", model, "augreg", entries)
    report = load(model, "augreg", entries, partial=True)
    assert report.unused == ("Transformer/encoderblock_0/gate/kernel",)


def test_checkpoint_of_other_settings_raises_unless_check_settings_is_false():
    model = build("augreg", ENTRIES, activation="gelu", layer_norm_epsilon=1e-3)
    message = "activation .*'gelu' .*'gelu_tanh'; layer_norm_epsilon .*0.001 .*1e-06"
    refused(message, model, "augreg", ENTRIES)
    report = load(model, "augreg", ENTRIES, check_settings=False)
    assert len(report.differences) == 2 and "layer_norm_epsilon" in str(report)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("head/bias", np.array([1.0, np.nan, 1, 1, 1]), "head/bias .*finite"),
        ("head/bias", np.array(["a", "b"]), "head/bias .*<U1"),
        ("head/bias", np.arange(5), "head/bias .*int64"),
        ("head/bias", None, "head/bias "),
        ("head/bias", np.array([{}, 1], dtype=object), "head/bias .* Python "),
        ("head/bias", np.float32(1), r"head/bias .*\(\)"),
        ("head/bias", np.zeros(0), r"head/bias .*\(0,\)"),
        ("cls", np.zeros((1, 1, 8)), "pos_embedding .*cls .* 32 and 8 "),
        ("copy/embedding/kernel", np.zeros(3), "'copy/'"),
    ],
)
def test_checkpoint_with_invalid_entries_raises(name, value, message):
    refused(message, build("augreg", ENTRIES), "augreg", ENTRIES | {name: value})


def test_load_with_a_wrong_model_source_or_head_raises():
    model = build("augreg", ENTRIES)
    refused("'augreg'.*source='augre'", model, "augre", ENTRIES)
    refused("head='keeps'", model, "augreg", ENTRIES, head="keeps")
    with pytest.raises(ValueError, match=r"load\('augreg'\): .*model=<Sequential"):
        load(keras.Sequential([keras.layers.Dense(3)]), "augreg", ENTRIES)


def test_plan_of_a_checkpoint_returns_the_config_of_its_model():
    plan = plan_of(ENTRIES)
    config = plan.config
    assert (plan.source, plan.classes, plan.grid) == ("augreg", 5, (4, 4))
    assert config.class_token and not config.pre_norm and config.activation == "gelu_tanh"
    assert (config.hidden_dim, config.num_layers, config.num_heads) == (32, 2, 2)
    assert (config.mlp_dim, config.patch_size) == (48, (8, 8))


def test_create_model_with_weights_of_a_plain_vit_warns_of_untrained_layers(tmp_path):
    np.savez(tmp_path / "vit.npz", **augreg_entries())
    weights = f"augreg:{tmp_path}/vit.npz"
    with pytest.warns(UserWarning, match="untrained"):
        model = create_model("tokenlearner_pico8_4at1", weights=weights, mlp_dim=48)
    assert model.output_shape == (None, 5)
    assert "class_token" in [layer.name for layer in model.layers]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("bilinear", {"mode": "bilinear", "align_corners": True}),
        ("bilinear_half_pixel", {"mode": "bilinear"}),
        ("bilinear_antialias", {"mode": "bilinear", "antialias": True}),
        ("bicubic", {"mode": "bicubic"}),
        ("bicubic_antialias", {"mode": "bicubic", "antialias": True}),
        ("bicubic_aligned", {"mode": "bicubic", "align_corners": True}),
    ],
)
@pytest.mark.parametrize("grid", [(3, 5), (16, 9), (7, 7), (1, 30)], ids=str)
def test_position_resizing_by_each_method_equals_pytorch(method, options, grid):
    torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")
    table = np.random.default_rng(0).normal(size=(7, 11, 4)).astype("float32")
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(table.transpose(2, 0, 1))[None],
        size=grid,
        **options,
    )[0].permute(1, 2, 0)
    np.testing.assert_allclose(resize_table(table, grid, method), expected, atol=1e-5)


def test_flax_file_of_transformers_is_never_taken_for_a_file_of_keras_hub():
    start = "vit/embeddings/patch_embeddings/projection"
    entries = {
        f"{start}/kernel": np.zeros((8, 8, 3, 32), "float32"),
        "vit/encoder/layer/0/output/dense/bias": np.zeros(32, "float32"),
    }
    with pytest.raises(ValueError, match=f"plan_of: .*{start}/kernel") as caught:
        plan_of(entries, "huggingface_vit")
    assert "keras_hub" not in str(caught.value)
