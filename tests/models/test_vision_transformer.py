import keras
import numpy as np
import pytest
from keras import ops

from keras_tokenlearner.analysis import costs
from keras_tokenlearner.models import VisionTransformer, VisionTransformerConfig
from tests.conformance import array, assign_weights
from tests.layers import helpers
from tests.layers.helpers import close, refused, run
from tests.models.cases import transformer

IMAGE = {
    "input_shape": (16, 24, 3),
    "hidden_dim": 16,
    "num_layers": 4,
    "num_heads": 2,
    "patch_size": (4, 6),
}
VIDEO = {**IMAGE, "input_shape": (5, 16, 24, 3), "patch_size": (2, 4, 6)}
LEARNER = {"reducer": "token_learner", "num_tokens": 3}


def lengths(model):
    """Return the number of tokens after each block."""
    blocks = [layer for layer in model.layers if layer.name.startswith("block_")]
    return [block.output.shape[1] for block in blocks]


def test_plain_vit_equals_its_equations():
    model = transformer(**IMAGE)
    assign_weights(model)
    pixels = np.clip(128 + 64 * array((2, 16, 24, 3), 0), 0, 255)
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    kernel, bias = weights["embedding"]
    patches = (pixels / 127.5 - 1).reshape(2, 4, 4, 4, 6, 3).transpose(0, 1, 3, 2, 4, 5)
    x = patches.reshape(2, 4, 4, -1) @ kernel.reshape(-1, 16) + bias + weights["positions"][0]
    x = x.reshape(2, 16, 16)
    for index in range(4):
        x = helpers.transformer_block(x, weights[f"block_{index}"])
    x = helpers.layer_norm(x, *weights["norm"]).mean(1)
    kernel, bias = weights["head"]
    close(run(model, pixels), helpers.softmax(x @ kernel + bias, -1))


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, [16, 16, 16, 16]),
        ({**LEARNER, "at": 0}, [3, 3, 3, 3]),
        ({**LEARNER}, [16, 16, 3, 3]),
        ({**LEARNER, "at": 4}, [16, 16, 16, 16]),
        ({**LEARNER, "at": 1, "class_token": True, "register_tokens": 2}, [19, 6, 6, 6]),
        ({"reducer": "spatial_pooling", "pool_size": (2, 4)}, [16, 16, 2, 2]),
        ({"reducer": "fixed_grid", "num_tokens": 4}, [16, 16, 4, 4]),
        ({"reducer": "direct_tokens", "num_tokens": 4}, [16, 16, 4, 4]),
        ({"reducer": "pooled_tokens", "num_tokens": 4}, [16, 16, 4, 4]),
        ({**LEARNER, "fuser": "token_fuser"}, [16, 16, 3, 3]),
        ({**LEARNER, "fuser": "reproject", "class_token": True}, [17, 17, 4, 4]),
    ],
    ids=str,
)
def test_image_model_blocks_return_the_expected_number_of_tokens(changes, expected):
    assert lengths(transformer(**IMAGE, **changes)) == expected


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, [32, 32, 32, 32]),
        (LEARNER, [32, 32, 6, 6]),
        ({**LEARNER, "over": "space_time"}, [32, 32, 3, 3]),
        ({**LEARNER, "fuser": "token_fuser", "at": 1}, [32, 6, 6, 6]),
    ],
    ids=str,
)
def test_video_model_blocks_return_the_expected_number_of_tokens(changes, expected):
    assert lengths(transformer(**VIDEO, **changes)) == expected


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "changes, length",
    [
        ({}, 16),
        (LEARNER, 3),
        ({**LEARNER, "at": 4}, 3),
        ({**LEARNER, "fuser": "token_fuser"}, 16),
        ({**LEARNER, "fuser": "unpool", "class_token": True}, 17),
    ],
    ids=str,
)
def test_vision_transformer_without_top_returns_the_tokens(changes, length):
    model = transformer(**IMAGE, **changes, include_top=False)
    assert model.output_shape == (None, length, 16)


def test_untrained_vit_with_token_fusers_has_the_outputs_of_a_vit_of_its_first_block():
    """Untrained fusers are the identity, so the blocks before each fuser have no effect."""
    pixels = 255 * np.abs(array((2, 16, 24, 3), 0)) / 4
    fused = transformer(**IMAGE, **LEARNER, fuser="token_fuser", at=1, include_top=False)
    plain = transformer(**{**IMAGE, "num_layers": 1}, include_top=False)
    for layer in plain.layers:
        layer.set_weights(fused.get_layer(layer.name).get_weights())
    close(run(fused, pixels), run(plain, pixels))


@pytest.mark.once("torch")
def test_token_learners_and_fusers_of_different_blocks_are_separate_layers():
    model = transformer(**IMAGE, **LEARNER, fuser="token_fuser", at=1)
    names = {layer.name for layer in model.layers}
    for index in (1, 2, 3):
        assert {f"token_learner_{index}", f"block_{index}", f"token_fuser_{index}"} <= names
    assert "token_learner_0" not in names


@pytest.mark.once("torch")
def test_config_fields_are_passed_to_the_layers():
    model = transformer(
        **IMAGE,
        **LEARNER,
        mlp_dim=24,
        token_pooling="sum",
        drop_path_rate=0.3,
        dropout_rate=0.1,
        attention_dropout_rate=0.2,
        layer_scale=0.5,
        activation="quick_gelu",
        layer_norm_epsilon=1e-5,
        positions="sincos",
    )
    block, learner = (model.get_layer(name).get_config() for name in ("block_3", "token_learner"))
    expected = {
        "mlp_dim": 24,
        "dropout_rate": 0.1,
        "attention_dropout_rate": 0.2,
        "layer_scale": 0.5,
    }
    assert {name: block[name] for name in expected} == expected
    for layer in (block, learner):
        assert layer["activation"] == "quick_gelu"
    assert (block["layer_norm_epsilon"], learner["epsilon"]) == (1e-5, 1e-5)
    assert (learner["attention"], learner["pooling"], learner["grid"]) == ("conv", "sum", (4, 4))
    mlp = transformer(**IMAGE, **LEARNER, token_attention="mlp")
    assert mlp.get_layer("token_learner").attention == "mlp"
    depths = [model.get_layer(f"block_{i}").drop_path_rate for i in range(4)]
    close(depths, [0, 0.1, 0.2, 0.3])
    assert model.get_layer("norm").epsilon == 1e-5
    assert model.get_layer("positions").initializer == "sincos"


@pytest.mark.parametrize("pooling", ["avg", "max", "token"])
def test_vision_transformer_pooling_returns_the_average_the_maximum_or_the_class_token(pooling):
    arguments = {**IMAGE, "class_token": True, "register_tokens": 2, "include_top": False}
    pooled, tokens = transformer(**arguments, pooling=pooling), transformer(**arguments)
    assign_weights(pooled)
    tokens.set_weights(pooled.get_weights())
    x = array((2, 16, 24, 3), 0)
    values = run(tokens, x)
    expected = {"avg": values[:, 3:].mean(1), "max": values[:, 3:].max(1), "token": values[:, 0]}
    close(run(pooled, x), expected[pooling])


@pytest.mark.parametrize(
    "changes, features",
    [
        ({}, lambda x: x.mean(1)),
        ({"class_token": True, "register_tokens": 2}, lambda x: x[:, 0]),
        (
            {"class_token": True, "register_tokens": 2, "head_reads": "class_and_registers"},
            lambda x: x[:, :3].reshape(len(x), -1),
        ),
        (
            {"class_token": True, "register_tokens": 2, "head_reads": "class_and_average"},
            lambda x: np.concatenate([x[:, 0], x[:, 3:].mean(1)], -1),
        ),
    ],
    ids=["average", "class_token", "class_and_registers", "class_and_average"],
)
def test_config_head_reads_decides_the_input_of_the_head(changes, features):
    arguments = {**IMAGE, **changes, "classifier_activation": None}
    model, tokens = transformer(**arguments), transformer(**arguments, include_top=False)
    assign_weights(model)
    tokens.set_weights(model.get_weights()[:-2])
    x = array((2, 16, 24, 3), 0)
    values, (kernel, bias) = run(tokens, x), model.get_layer("head").get_weights()
    close(run(model, x), features(values) @ kernel + bias)


def test_preprocessing_scales_pixels_to_the_range_from_minus_one_to_one():
    with_it, without = (
        transformer(**IMAGE, include_preprocessing=include) for include in (True, False)
    )
    assign_weights(with_it)
    without.set_weights(with_it.get_weights())
    pixels = np.random.RandomState(0).randint(0, 256, (2, 16, 24, 3)).astype("uint8")
    close(run(with_it, pixels), run(without, pixels / np.float32(127.5) - 1))


def test_untrained_model_returns_equal_probabilities():
    found = run(transformer(**IMAGE, **LEARNER), 255 * np.abs(array((2, 16, 24, 3), 0)))
    close(found, np.full((2, 5), 0.2))


def test_predictions_stay_float32_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = transformer(**IMAGE)
    assert keras.backend.standardize_dtype(model(ops.zeros((1, 16, 24, 3))).dtype) == "float32"
    assert model.get_layer("head").compute_dtype == "bfloat16"


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "changes, words",
    [
        ({"input_shape": None}, ["input_shape=None, input_tensor=None"]),
        ({"input_shape": (16, 24)}, ["(height, width, channels)", "input_shape=(16, 24)"]),
        ({"input_shape": (None, 24, 3)}, ["input_shape=(None, 24, 3)"]),
        ({"input_shape": (5, 16, 24, 3)}, ["(height, width, channels)", "(5, 16, 24, 3)"]),
        ({"input_shape": 224}, ["`input_shape`", "(224, 224, 3)", "input_shape=224"]),
        ({"input_shape": (16, 24.0, 3)}, ["`input_shape`", "input_shape=(16, 24.0, 3)"]),
        ({"input_shape": (16, 24, 0)}, ["`input_shape`", "input_shape=(16, 24, 0)"]),
        ({"input_shape": "abc"}, ["`input_shape`", "input_shape='abc'"]),
        ({"input_tensor": [1]}, ["`input_tensor`", "input_tensor=[1]"]),
        ({"input_tensor": np.zeros((1, 16, 24, 3))}, ["`input_tensor`", "input_tensor=array"]),
        ({"input_tensor": keras.Input((None, 24, 3))}, ["`input_tensor`", "(None, None, 24, 3)"]),
        ({"input_tensor": keras.KerasTensor((None, 16, 24, 3))}, ["`input_tensor`", "(16, 24, 3)"]),
        ({"patch_size": (1, 4, 6), "input_shape": 224}, ["`input_shape`", "input_shape=224"]),
        ({"patch_size": (1, 4, 6), "input_tensor": [1]}, ["`input_tensor`", "input_tensor=[1]"]),
        ({"input_shape": (3, 24, 3)}, ["height", "input_shape=(3, 24, 3)", "patch_size=(4, 6)"]),
        ({"input_shape": (16, 5, 3)}, ["width", "input_shape=(16, 5, 3)", "patch_size=(4, 6)"]),
        ({"include_top": False, "pooling": "mean"}, ["pooling='mean'", "'avg'"]),
        ({"include_top": False, "pooling": "token"}, ["pooling='token'", "class_token=True"]),
    ],
    ids=str,
)
def test_vision_transformer_with_wrong_arguments_raises(changes, words):
    refused(lambda: transformer(**{**IMAGE, **changes}), "VisionTransformer: ", "Received", *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize("classes", [0, "10", True, 2.5, None])
def test_vision_transformer_with_wrong_classes_raises(classes):
    config = VisionTransformerConfig(16, 1, 2, (4, 4))
    refused(
        lambda: VisionTransformer(config, (8, 8, 3), classes=classes),
        "VisionTransformer: `classes`",
        f"Received: classes={classes!r}",
    )


@pytest.mark.once("torch")
def test_vision_transformer_with_channels_first_raises():
    keras.config.set_image_data_format("channels_first")
    refused(
        lambda: transformer(**IMAGE), "VisionTransformer: ", "image_data_format='channels_first'"
    )


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("norm", "expected"),
    [("all", ["before", "after", "inputs"]), ("inputs", ["inputs"]), ("none", [])],
)
def test_config_fuser_norm_decides_the_norms_and_the_cost_of_the_token_fuser(norm, expected):
    arguments = {"fuser": "token_fuser", "at": 0, "fuser_norm": norm, "include_top": False}
    model = transformer(**IMAGE, **LEARNER, **arguments)
    weights = [weight.path for weight in model.get_layer("token_fuser_0").weights]
    norms = [path.split("norm_")[1].split("/")[0] for path in weights if "norm_" in path]
    assert list(dict.fromkeys(norms)) == expected
    without = transformer(**IMAGE, **LEARNER, **{**arguments, "fuser_norm": "none"})
    assert (costs(model).paper_gflops > costs(without).paper_gflops) is bool(expected)
