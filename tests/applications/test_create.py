"""Arguments of `create_model` and of the family functions, and errors for wrong arguments."""

import dataclasses
import importlib
import inspect
import json
import typing

import keras
import numpy as np
import pytest

import keras_tokenlearner
from keras_tokenlearner import applications, create_model, list_models
from keras_tokenlearner.applications import create
from keras_tokenlearner.applications.arguments import ModelArguments
from keras_tokenlearner.applications.create import OF_THE_NAME
from keras_tokenlearner.data.preprocessing import preprocessing_of
from keras_tokenlearner.models import Preprocessing, VisionTransformerConfig, X2Plus1DConfig
from keras_tokenlearner.models.config_fields import VisionTransformerFields, X2Plus1DFields
from keras_tokenlearner.weights import save_weights, to_timm

pytestmark = pytest.mark.once("torch")

IMAGE = [
    "ViTS32",
    "ViTB32",
    "ViTB16",
    "ViTL16",
    "TokenLearnerS32",
    "TokenLearnerB32",
    "TokenLearnerB16",
    "TokenLearnerL16",
    "TokenLearnerL14",
    "TokenLearnerL10",
    "TokenLearnerL8",
]
VIDEO = [
    "ViViTL16",
    "TokenLearnerViViTL16",
    "TokenLearnerViViTL14",
    "TokenLearnerViViTL10",
    "X2Plus1DM",
    "TokenLearnerX2Plus1DM",
]
FROM_PRESET = importlib.import_module("keras_tokenlearner.presets.from_preset")
SMALL = {"num_layers": 2, "hidden_dim": 64, "num_heads": 2}
SMALL_X2PLUS1D = {"stage_channels": (4, 8), "inner_channels": (8, 16), "stage_units": (1, 3)}
PICO = "tokenlearner_pico8_4at1"
NANO = "tokenlearner_nano4_8at2"
PICO_VIDEO = "tokenlearner_x2plus1d_pico"


@pytest.mark.parametrize("family", IMAGE + VIDEO)
def test_family_function_adds_a_token_learner_only_if_its_name_starts_with_token_learner(family):
    function = getattr(applications, family)
    learns = family.startswith("Token")
    small = SMALL | ({"at": 1} if learns else {})
    small = SMALL_X2PLUS1D if "X2" in family else small
    model = function(input_shape=(*(4,) * (family in VIDEO), 64, 96, 3), classes=7, **small)
    assert model.output_shape == (None, 7)
    assert (
        any(isinstance(x, keras_tokenlearner.layers.TokenLearner) for x in model.layers) is learns
    )
    assert function.__name__ == family and "Args:" in function.__doc__


@pytest.mark.parametrize(
    ("fields", "config"),
    [(VisionTransformerFields, VisionTransformerConfig), (X2Plus1DFields, X2Plus1DConfig)],
)
def test_typed_dict_of_config_fields_lists_every_field_of_the_config(fields, config):
    found = typing.get_type_hints(fields)
    wanted = {field.name for field in dataclasses.fields(config)}
    assert found.keys() == wanted


def test_typed_dict_of_model_arguments_lists_every_keyword_of_create_model():
    parameters = inspect.signature(create_model).parameters.values()
    wanted = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert typing.get_type_hints(ModelArguments).keys() == wanted


def test_list_models_pattern_returns_matching_names():
    assert list_models("vit_b*") == ["vit_b32", "vit_b16", "vit_b14", "vit_b8"]
    assert len(list_models()) == len(applications.CATALOG)
    assert list_models("nothing*") == []


@pytest.mark.every_backend
def test_preprocessing_inside_or_outside_the_model_gives_equal_outputs():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    inside = create_model(PICO, include_top=False, pooling="avg")
    outside = create_model(PICO, include_top=False, pooling="avg", include_preprocessing=False)
    outside.set_weights(inside.get_weights())
    np.testing.assert_allclose(
        inside.predict(pixels, verbose=0),
        outside.predict(pixels / 127.5 - 1, verbose=0),
        atol=1e-5,
    )


@pytest.mark.every_backend
def test_create_model_without_top_returns_tokens_or_pooled_features():
    tokens = create_model(PICO, include_top=False)
    assert tokens.output_shape == (None, 4, 32)
    average = create_model(PICO, include_top=False, pooling="avg")
    largest = create_model(PICO, include_top=False, pooling="max")
    for model in (average, largest):
        model.set_weights(tokens.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    found = tokens.predict(pixels, verbose=0)
    np.testing.assert_allclose(average.predict(pixels, verbose=0), found.mean(1), atol=1e-5)
    np.testing.assert_allclose(largest.predict(pixels, verbose=0), found.max(1), atol=1e-5)
    with_class_token = create_model(PICO, include_top=False, pooling="token", class_token=True)
    assert with_class_token.output_shape == (None, 32)


@pytest.mark.every_backend
def test_create_model_on_a_computed_tensor_calls_the_model_on_this_tensor():
    inputs = keras.Input((40, 56, 3))
    model = create_model(PICO, input_tensor=keras.layers.Rescaling(2.0)(inputs), classes=3)
    assert model.inputs[0] is inputs
    assert (model.name, model.output_shape) == (PICO, (None, 3))
    alone = create_model(PICO, input_shape=(40, 56, 3), classes=3)
    assert len(model.weights) == len(alone.weights)


def test_create_model_on_a_computed_tensor_keeps_preprocessing_and_class_names():
    rule, inputs = Preprocessing(interpolation="bicubic"), keras.Input((32, 32, 3))
    tensor, names = keras.layers.Rescaling(2.0)(inputs), ("a", "b")
    model = create_model(
        PICO, input_tensor=tensor, classes=2, preprocessing=rule, class_names=names
    )
    assert preprocessing_of(model) == rule and model.class_names == names


def test_create_model_on_a_computed_float16_tensor_scales_its_losses():
    inputs = keras.Input((32, 32, 3))
    computed = keras.layers.Rescaling(2.0)(inputs)
    model = create_model(PICO, input_tensor=computed, classes=3, dtype="mixed_float16")
    model.compile("sgd", "mse")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dropout_rate": 2}, "`dropout_rate`"),
        ({"num_heads": 5}, "`num_heads`"),
        ({"pooling": "mean", "include_top": False}, "pooling='mean'"),
        ({"classifier_activation": "no_activation"}, "'no_activation'"),
        ({"dtype": "float1"}, "dtype='float1'"),
        ({"class_names": "abc"}, "class_names=abc"),
        ({"class_names": ["cat"], "classes": 2}, "`class_names`"),
        ({"class_names": ["cat"], "include_top": False}, "`class_names`"),
        ({"preprocessing": "half"}, "preprocessing='half'"),
        ({"preprocessing": Preprocessing(mean=(0.1, 0.2))}, "`mean`"),
        ({"input_shape": (4, 32, 32, 3)}, "(4, 32, 32, 3)"),
        ({"at": 1}, "at=1"),
        ({"reducer": "token_learner", "at": 3}, "at=3"),
        ({"num_tokens": 4}, "num_tokens=4"),
        ({"token_start": "grid"}, "token_start='grid'"),
        ({"reducer": "fixed_grid", "fuser": "unpool"}, "fuser='unpool'"),
        ({"stem": ((8, 2), (8, 2))}, "stem=((8, 2), (8, 2))"),
        ({"dtype": "int8_from_float32"}, "dtype='int8_from_float32'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("weights", ["hf://org/name", "https://example.com/a.weights.h5"])
def test_create_model_with_wrong_arguments_raises_before_a_download(
    arguments, message, weights, monkeypatch
):
    for module in (create, FROM_PRESET):
        monkeypatch.setattr(module, "fetch_files", lambda *given: pytest.fail("downloads"))
    with pytest.raises(ValueError) as caught:
        create_model("vit_pico8", weights=weights, **arguments)
    assert message in str(caught.value)
    assert str(caught.value).startswith("create_model('vit_pico8'): ")


@pytest.mark.parametrize(
    "arguments",
    [{"pooling": "mean"}, {"classifier_activation": "no_activation"}, {"dtype": "float1"}],
    ids=str,
)
def test_from_preset_with_wrong_arguments_raises_before_a_download(arguments, monkeypatch):
    monkeypatch.setattr(FROM_PRESET, "fetch_files", lambda *given: pytest.fail("downloads"))
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"`{name}`.*{name}='{value}'"):
        FROM_PRESET.from_preset("hf://org/name", **arguments)


def test_create_model_fields_that_depend_on_the_checkpoint_are_checked_after_the_download(
    monkeypatch,
):
    def fetch(*given):
        raise ConnectionError("no network")

    monkeypatch.setattr(FROM_PRESET, "fetch_files", fetch)
    with pytest.raises(ConnectionError):  # the checkpoint may have rotary positions
        create_model("vit_pico8", weights="hf://org/name", rotary_theta=100.0)


def test_create_model_positional_arguments_after_the_name_raise():
    with pytest.raises(TypeError):
        create_model(PICO, "fashion_mnist")


@pytest.mark.every_backend
def test_classifier_activation_none_returns_logits():
    model = create_model(PICO, classes=3, classifier_activation=None)
    probabilities = create_model(PICO, classes=3)
    weights = [np.random.default_rng(0).normal(size=w.shape) for w in model.get_weights()]
    model.set_weights(weights)
    probabilities.set_weights(weights)
    pixels = np.full((1, 32, 32, 3), 100.0)
    logits = model.predict(pixels, verbose=0)
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(probabilities.predict(pixels, verbose=0), expected, atol=1e-5)


def test_weights_of_a_vit_load_at_another_resolution_and_without_top(tmp_path):
    path = tmp_path / "pico.weights.h5"
    model = create_model(PICO, classes=10)
    save_weights(model, path)
    wide = create_model(PICO, weights=path, input_shape=(32, 64, 3))
    assert wide.output_shape == (None, 10)
    with pytest.warns(UserWarning, match=r"pico\.weights\.h5.* 10 .* 7 "):
        other = create_model(PICO, weights=path, classes=7)
    assert other.output_shape == (None, 7)
    np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])
    assert wide.get_layer("positions").table.shape == (4, 8, 32)
    corners = np.ix_([0, 3], [0, 7])
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(wide.get_layer("positions").table)[corners],
        keras.ops.convert_to_numpy(model.get_layer("positions").table)[np.ix_([0, 3], [0, 3])],
        atol=1e-6,
    )
    headless = create_model(PICO, weights=str(path), include_top=False)
    for ours, theirs in zip(headless.get_weights(), model.get_weights(), strict=False):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", [PICO, PICO_VIDEO])
def test_create_model_with_the_index_of_sharded_keras_weights_loads_all_shards(tmp_path, name):
    model, index = create_model(name, classes=10), tmp_path / "pico.weights.json"
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=array.shape) for array in model.get_weights()])
    model.save_weights(index, max_shard_size=4e-5)
    assert len(list(tmp_path.iterdir())) > 2
    again = create_model(name, weights=str(index))
    headless = create_model(name, weights=index, include_top=False)
    with pytest.warns(UserWarning, match=r"pico\.weights\.json.* 10 .* 7 "):
        other = create_model(name, weights=index, classes=7)
    assert again.output_shape == (None, 10) and other.output_shape == (None, 7)
    for loaded in (again, headless, other):
        wanted = {weight.path: weight for weight in model.weights}
        for weight in loaded.weights:
            if not weight.path.startswith("head/") or loaded is again:
                np.testing.assert_array_equal(
                    *map(keras.ops.convert_to_numpy, (weight, wanted[weight.path]))
                )


def test_x2plus1d_weights_load_at_other_resolutions_but_not_other_frame_counts(tmp_path):
    """The weights also load into a model without top."""
    path = tmp_path / "pico.weights.h5"
    model = create_model(PICO_VIDEO, classes=10)
    save_weights(model, path)
    wide = create_model(PICO_VIDEO, weights=path, input_shape=(8, 32, 64, 3))
    headless = create_model(PICO_VIDEO, weights=path, include_top=False)
    for other, count in ((wide, 0), (headless, 3)):
        assert len(other.weights) == len(model.weights) - count
        for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=False):
            np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match=rf"pico\.weights\.h5.*'{PICO_VIDEO}'"):
        create_model(PICO_VIDEO, weights=path, classes=10, input_shape=(4, 32, 32, 3))


def test_create_model_config_fields_decide_the_units_of_an_x2plus1d():
    model = create_model("x2plus1d_pico", unit="joint", replaced=(2,), input_shape=(4, 16, 24, 3))
    assert model.get_layer("stage_1_unit_2_0_joint").over == "joint"
    assert model.output_shape == (None, 1000)


PLAIN_VITS = (
    {},
    {"class_token": True, "rotary": "index", "head_reads": "attention"},
    {"patch_size": (2, 8, 8)},
)
# A value of each field besides its default.
VALUES = {
    "mlp_dim": 64,
    "gated_mlp": True,
    "reducer": "token_learner",
    "num_tokens": 4,
    "pool_size": (1, 2),
    "at": 1,
    "token_attention": "mlp",
    "token_pooling": "sum",
    "token_start": "grid",
    "proportional_attention": True,
    "over": "space_time",
    "fuser": "token_fuser",
    "fuser_beta": "mlp",
    "fuser_norm": "none",
    "stem": ((8, 2), (8, 4)),
    "embedding_norm": True,
    "positions": "sincos",
    "rotary": "index",
    "rotary_theta": 100.0,
    "rotary_layout": "half",
    "rotary_order": "width_first",
    "rotary_offset": 1.0,
    "rotary_grid": (2, 2),
    "rotary_tokens": "none",
    "class_token": True,
    "register_tokens": 1,
    "head_reads": "average",
    "pool_prefix": True,
    "pooling_num_heads": 1,
    "pooling_mlp_dim": 8,
    "final_norm": "pooled",
    "final_norm_epsilon": 1e-5,
    "pre_logits": 8,
    "head_bias": False,
    "pre_norm": True,
    "block_attention": "vector",
    "dropout_rate": 0.1,
    "attention_dropout_rate": 0.1,
    "drop_path_rate": 0.1,
    "layer_scale": 0.1,
    "activation": "silu",
    "layer_norm_epsilon": 1e-5,
    "norm": "rms_norm",
    "qk_norm": True,
    "qkv_bias": "none",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_inner_norm": True,
    "mlp_inner_norm": True,
}


def is_valid(**fields):
    sizes = {"hidden_dim": 32, "num_layers": 2, "num_heads": 2, "patch_size": (8, 8)}
    try:
        return bool(VisionTransformerConfig(**sizes | fields))
    except ValueError:
        return False


def test_config_fields_kept_from_the_catalogue_include_every_field_invalid_for_a_plain_vit():
    """Weights of another model must not set a field of the learned tokens."""
    fields = {field.name: field.default for field in dataclasses.fields(VisionTransformerConfig)}
    assert {name for name, value in fields.items() if value is not dataclasses.MISSING} == {*VALUES}
    refused = {
        name
        for name, value in VALUES.items()
        if not any(is_valid(**plain, **{name: value}) for plain in PLAIN_VITS)
    }
    assert {"token_start", "proportional_attention", "at", "fuser"} <= refused
    assert refused | {"reducer"} <= {*OF_THE_NAME}


S14_LEARNER = "tokenlearner_s14_16at5"
S14 = {"hidden_dim": 32, "num_heads": 2, "num_layers": 6, "input_shape": (56, 56, 3)}


@pytest.mark.parametrize("prefix", [{}, {"class_token": True, "register_tokens": 4}], ids=str)
def test_create_model_with_weights_of_a_plain_vit_preset_keeps_its_learned_tokens(tmp_path, prefix):
    plain = create_model("vit_s14", classes=3, activation="silu", **prefix, **S14)
    plain.save_to_preset(tmp_path / "plain")
    with pytest.warns(UserWarning, match="token_learner: "):
        named = create_model(S14_LEARNER, weights=tmp_path / "plain", **S14)
    wanted = applications.CATALOG[S14_LEARNER].config
    for name in OF_THE_NAME:
        assert getattr(named.config, name) == getattr(wanted, name), name
    assert named.config.activation == "silu"
    assert named.config.class_token == plain.config.class_token


def test_create_model_with_timm_weights_of_12_heads_raises_unless_num_heads_is_passed(tmp_path):
    """The kernels of timm fit any number of heads. Only config.json states the number."""
    save = pytest.importorskip(
        "safetensors.numpy", reason="writes safetensors: pip install safetensors"
    ).save_file
    given = {"hidden_dim": 24, "num_heads": 12, "class_token": True, "activation": "gelu"}
    model = create_model("vit_pico8", classes=3, **given)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.2, array.shape) for array in model.get_weights()])
    save(to_timm(model), tmp_path / "model.safetensors")
    said = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 32, 32]}
    said = {"architecture": "vit_base_patch16_224", "num_features": 24, "pretrained_cfg": said}
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"create_model\('vit_pico8'\): `num_heads`") as caught:
        create_model("vit_pico8", weights=tmp_path, hidden_dim=24)
    assert "num_heads=12. Received: num_heads=2" in str(caught.value)
    named = create_model("vit_pico8", weights=tmp_path, hidden_dim=24, num_heads=12)
    pixels = rng.uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    expected = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(named.predict(pixels, verbose=0), expected, atol=1e-5)


def test_create_model_of_a_plain_vit_with_token_learner_weights_raises_and_names_the_weights(
    tmp_path,
):
    create_model(S14_LEARNER, classes=3, **S14).save_to_preset(tmp_path / "learner")
    with pytest.raises(ValueError, match=r"create_model\('vit_s14'\): .*token_learner/") as caught:
        create_model("vit_s14", weights=tmp_path / "learner", **S14)
    assert "token_start" not in str(caught.value)


@pytest.mark.parametrize("name", [PICO, PICO_VIDEO])
def test_create_model_with_classes_as_a_numpy_scalar_has_that_many_outputs(name, tmp_path):
    labels = np.array([0, 2, 9])
    for classes in (np.int64(10), np.uint8(10), np.array(10), labels.max() + 1):
        assert create_model(name, classes=classes).output_shape == (None, 10)
    model = create_model(name, classes=labels.max() + 1)
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").output_shape == (None, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "tokenlearner_b16_8at7"}, "'tokenlearner_b16_8at6'"),
        ({"model": PICO, "num_token": 4}, "'num_tokens'"),
        ({"model": PICO, "num_tokens": 0}, "Received: num_tokens=0"),
        ({"model": PICO, "num_tokens": 2.5}, "Received: num_tokens=2.5"),
        ({"model": PICO, "at": 3}, "num_layers=2. Received: at=3"),
        ({"model": PICO, "at": -1}, "Received: at=-1"),
        ({"model": "vit_pico8", "at": 1}, "reducer='token_learner'"),
        ({"model": "x2plus1d_m", "num_tokens": 3}, "Received: num_tokens=3"),
        ({"model": PICO, "fuser": "fuser"}, "fuser='fuser'"),
        ({"model": PICO, "input_shape": (4, 32, 3)}, "input_shape=(4, 32, 3)"),
        ({"model": PICO, "input_shape": (32, 32)}, "input_shape=(32, 32)"),
        ({"model": PICO, "input_shape": (None, 32, 3)}, "input_shape=(None, 32, 3)"),
        ({"model": PICO, "classes": 0}, "Received: classes=0"),
        ({"model": PICO, "classes": 10**18}, "Received: classes=1000000000000000000"),
        ({"model": PICO, "classes": 10.0}, "Received: classes=10.0"),
        ({"model": PICO, "include_top": "False"}, "Received: include_top='False'"),
        ({"model": PICO, "include_top": 0}, "Received: include_top=0"),
        ({"model": PICO, "include_preprocessing": "no"}, "Received: include_preprocessing='no'"),
        ({"model": PICO, "class_token": 10**18}, "Received: class_token=1000000000000000000"),
        ({"model": PICO, "pooling": "mean", "include_top": False}, "pooling='mean'"),
        ({"model": PICO, "pooling": "token", "include_top": False}, "class_token=True"),
        ({"model": PICO, "weights": "imagenet"}, "weights='timm:FILE'"),
        ({"model": PICO, "weights": "fashion"}, "Received: weights='fashion'"),
        ({"model": NANO, "weights": True}, "weights='fashion_mnist'"),
        ({"model": PICO, "weights": {"norm/gamma": 3}}, "Received: weights={'norm/gamma': 3}"),
        ({"model": NANO, "pretrained": True}, "weights='fashion_mnist'"),
        ({"model": PICO, "pretrained": True}, "weights='timm:FILE'"),
        ({"model": PICO, "num_classes": 7}, "classes=7. Received: num_classes=7"),
        ({"model": PICO, "input_shape": 224}, "input_shape=(224, 224, 3)"),
        ({"model": PICO_VIDEO, "input_shape": 224}, "Received: input_shape=224"),
        ({"model": PICO, "input_shape": (32, 32.0, 3)}, "input_shape=(32, 32.0, 3)"),
        ({"model": PICO, "input_tensor": [1]}, "`input_tensor`"),
        ({"model": PICO_VIDEO, "input_tensor": [1]}, "Received: input_tensor=[1]"),
        ({"model": PICO, "img_size": 64}, "input_shape=("),
        ({"model": PICO, "depth": 3}, "num_layers=3. Received: depth=3"),
        ({"model": PICO, "weights": "gone.weights.h5"}, "path='gone.weights.h5'"),
        ({"model": PICO, "weights": "gone.weights.json"}, "path='gone.weights.json'"),
        ({"model": PICO, "num_heads": 3}, "num_heads=3"),
        ({"model": "vit_pico8", "at": 1}, "create_model('vit_pico8'): `at` "),
        ({"model": PICO_VIDEO, "at": 1}, "argument='at'"),
        ({"model": PICO_VIDEO, "unit": "conv2d+tokenlearn"}, "'tokenlearner'"),
        ({"model": PICO_VIDEO, "input_shape": (32, 32, 3)}, "(frames, height, width, channels)"),
        (
            {"model": PICO_VIDEO, "weights": "augreg:B_16.npz"},
            "Received: weights='augreg:B_16.npz'",
        ),
    ],
)
def test_create_model_with_wrong_arguments_raises(arguments, message):
    with pytest.raises(ValueError) as caught:
        create_model(**arguments)
    assert message in str(caught.value)


def test_create_model_with_an_unknown_name_suggests_at_most_three_names():
    with pytest.raises(ValueError) as caught:
        create_model("vit_b61")
    text = str(caught.value)
    assert "'vit_b16'" in text and "model='vit_b61'" in text
    assert "list_models()" in text and len(text) < 250 and "\n" not in text
    named = [name for name in list_models() if repr(name) in text]
    assert len(named) <= 3


def test_family_function_with_num_classes_raises_and_suggests_classes():
    with pytest.raises(ValueError, match=r"classes=3\. Received: num_classes=3"):
        applications.TokenLearnerB16(num_classes=3)


def test_create_model_with_channels_first_raises():
    keras.config.set_image_data_format("channels_first")
    with pytest.raises(ValueError, match="image_data_format='channels_first'"):
        create_model(PICO)
