import keras
import numpy as np
import pytest

from keras_tokenlearner.layers import SelfAttention, TokenLearner, VectorAttention
from keras_tokenlearner.models import X2Plus1D, X2Plus1DConfig
from keras_tokenlearner.models.x2plus1d_config import PARTS
from tests.conformance import array, assign_weights
from tests.layers import helpers
from tests.layers.helpers import close, refused, run
from tests.layers.test_mixer import mixer
from tests.layers.test_self_attention import self_attention
from tests.layers.test_vector_attention import equation_3
from tests.models.cases import X2PLUS1D, module, video_network


class Network:
    """An X(2+1)D in numpy, with the weights of a model."""

    def __init__(self, model):
        self.weights = {layer.name: layer.get_weights() for layer in model.layers}

    def conv(self, x, name, stride=1):
        (kernel,) = self.weights[name]
        y = helpers.convolution(x, kernel)
        if stride == 1:
            return y
        # SAME pads an even size only at the end, so windows are centred on odd positions.
        starts = [(kernel.shape[axis] > 1) * (1 - x.shape[axis + 1] % 2) for axis in (1, 2)]
        return y[:, :, starts[0] :: 2, starts[1] :: 2]

    def norm(self, x, name):
        gamma, beta, mean, variance = self.weights[f"{name}_norm"]
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def normalise(self, x, name):
        return np.maximum(self.norm(x, name), 0)

    def part(self, x, part, name, stride):
        if part in ("conv2d", "conv1d"):
            return self.conv(x, name, stride)
        (alpha,), (mix, bias), beta = (
            self.weights[name],
            self.weights[f"{name}_fuser"][:2],
            self.weights[f"{name}_fuser"][2],
        )
        maps = helpers.sigmoid(helpers.convolution(x.reshape(-1, *x.shape[2:]), alpha))
        maps = maps.reshape(*x.shape[:-1], -1)
        tokens = np.einsum("bthws,bthwc->btsc", maps, x) / (x.shape[2] * x.shape[3])
        shape = tokens.shape
        tokens = tokens.reshape(len(x), -1, x.shape[-1])  # frame after frame
        kernels = self.weights[f"{name}_attention"]
        tokens = equation_3(tokens, tokens, kernels, gamma=False, use_bias=False)
        tokens = np.einsum("bnc,nm->bmc", tokens, mix) + bias[:, None]
        weights = helpers.sigmoid(x @ beta)
        return x + np.einsum("bthws,btsc->bthwc", weights, tokens.reshape(shape))

    def unit(self, x, name, parts, first):
        stride = 2 if first else 1
        by_module = parts[0] == "conv2d"
        y = self.conv(x, f"{name}_expand", 1 if by_module else stride)
        y = self.normalise(y, f"{name}_expand")
        for index, part in enumerate(parts):
            y = self.part(y, part, f"{name}_{index}_{part}", stride if index == 0 else 1)
            y = self.normalise(y, f"{name}_{index}_{part}")
        y = self.norm(self.conv(y, f"{name}_project"), f"{name}_project")
        if first:
            x = self.norm(self.conv(x, f"{name}_shortcut", 2), f"{name}_shortcut")
        return np.maximum(x + y, 0)

    def __call__(self, pixels, parts, replaced):
        x = self.conv(pixels / 127.5 - 1, "stem_conv2d", 2)
        x = self.normalise(self.conv(x, "stem_conv1d"), "stem")
        x = self.unit(x, "stage_0_unit_0", ("conv2d", "conv1d"), first=True)
        for unit in range(2):
            inner = parts if unit in replaced else ("conv2d", "conv1d")
            x = self.unit(x, f"stage_1_unit_{unit}", inner, first=unit == 0)
        x = self.normalise(self.conv(x, "features"), "features").mean((1, 2, 3))
        x = np.maximum(x @ self.weights["pre_head"][0][0, 0, 0], 0)
        kernel, bias = self.weights["head"]
        return x @ kernel + bias


@pytest.mark.parametrize(
    "unit, replaced",
    [
        ("conv2d+conv1d", ()),
        ("conv2d+tokenlearner", (1,)),
        ("conv2d+tokenlearner", (0, 1)),
        ("tokenlearner", (0,)),
    ],
    ids=str,
)
def test_x2plus1d_equals_its_equations(unit, replaced):
    units = {"replaced": replaced} if replaced else {}
    model = video_network(unit, **units, classifier_activation=None)
    assign_weights(model)
    pixels = np.clip(128 + 64 * array((2, *X2PLUS1D["input_shape"]), 0), 0, 255)
    expected = Network(model)(pixels, unit.split("+"), replaced)
    close(run(model, pixels), expected, atol=1e-4)


def broadcast(x, tokens):
    return x + tokens[:, :, None, None]


def attend(model, name, tokens):
    kernels = model.get_layer(name).get_weights()
    if isinstance(model.get_layer(name), VectorAttention):
        return equation_3(tokens, tokens, kernels, gamma=False, use_bias=False)
    return self_attention(tokens, kernels, 2)


def module_oracle(part, model, x):
    """Return the output of a part that computes from the averages of frames."""
    averages = x.mean((2, 3))
    if part == "mlpmixer":
        return broadcast(x, mixer(averages, model.get_layer("0_mlpmixer").get_weights()))
    if part == "prior_broadcast":
        table, kernel = model.get_layer("0_prior_broadcast_attention").get_weights()
        return broadcast(x, helpers.softmax(table, -1) @ (averages @ kernel))
    tokens = attend(model, f"0_{part}_attention", averages)
    if part == "broadcast":
        return broadcast(x, tokens)
    mix, bias, beta = model.get_layer("0_fuser_fuser").get_weights()
    tokens = np.einsum("btc,tu->buc", tokens, mix) + bias[:, None]
    return x + helpers.sigmoid(x @ beta) * tokens[:, :, None, None]


@pytest.mark.parametrize(
    ("part", "attention"),
    [
        *(("mlpmixer", "vector"), ("prior_broadcast", "vector")),
        *((part, kind) for part in ("broadcast", "fuser") for kind in ("vector", "multi_head")),
    ],
)
def test_bottleneck_modules_on_frame_averages_equal_their_equations(part, attention):
    model = module(part, attention=attention)
    assign_weights(model)
    x = array((2, 3, 4, 5, 8), 0)
    close(run(model, x), module_oracle(part, model, x))


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "attention, kind", [("vector", VectorAttention), ("multi_head", SelfAttention)]
)
def test_bottleneck_attention_argument_changes_only_the_token_attention(attention, kind):
    model = module("spatial+tokenlearner", attention=attention)
    assert isinstance(model.get_layer("1_tokenlearner_attention"), kind)
    # The argument selects only the attention between tokens.
    assert model.get_layer("0_spatial").attention == "multi_head"


@pytest.mark.once("torch")
@pytest.mark.parametrize("part", PARTS)
def test_bottleneck_module_of_each_part_keeps_the_input_shape(part):
    assert module(f"conv2d+{part}").output_shape == (None, 3, 4, 5, 8)


def test_untrained_token_learner_bottleneck_module_is_the_identity():
    x = array((2, 3, 4, 5, 8), 0)
    close(run(module("tokenlearner"), x), x)


@pytest.mark.once("torch")
def test_x2plus1d_config_default_sizes_equal_x3d_m():
    with keras.StatelessScope(initialize_variables=False):
        model = X2Plus1D(X2Plus1DConfig(), (64, 256, 256, 3), classes=157)

    def shape(name):
        return model.get_layer(name).output.shape[1:]

    sizes = ((3, 64, 24, 54), (5, 32, 48, 108), (11, 16, 96, 216), (7, 8, 192, 432))
    assert shape("stem_relu") == (64, 128, 128, 24)
    for stage, (units, size, channels, inner) in enumerate(sizes):
        last = f"stage_{stage}_unit_{units - 1}"
        assert shape(f"{last}_1_conv1d") == (64, size, size, inner)
        assert shape(f"{last}_relu") == (64, size, size, channels)
        assert f"stage_{stage}_unit_{units}_relu" not in [x.name for x in model.layers]
    assert shape("features_relu") == (64, 8, 8, 432)
    assert shape("pre_head") == (1, 1, 1, 2048)
    assert model.output_shape == (None, 157)


@pytest.mark.once("torch")
@pytest.mark.parametrize("replaced, units", [(None, (4, 5, 6)), ((0, 2), (0, 2))], ids=str)
def test_x2plus1d_replaced_units_have_token_learners(replaced, units):
    sizes = {"stage_channels": (8,), "inner_channels": (16,), "stage_units": (7,)}
    model = video_network("conv2d+tokenlearner", **sizes, replaced=replaced)
    found = [layer.name for layer in model.layers if isinstance(layer, TokenLearner)]
    assert found == [f"stage_0_unit_{unit}_1_tokenlearner" for unit in units]


@pytest.mark.parametrize("unit", ["conv2d+conv1d", "conv2d+tokenlearner"])
def test_untrained_x2plus1d_units_equal_their_shortcut(unit):
    model = video_network(unit)
    pairs = [  # the shortcut and the output of each unit
        ("stage_0_unit_0_shortcut_norm", "stage_0_unit_0_relu"),
        ("stage_1_unit_0_shortcut_norm", "stage_1_unit_0_relu"),
        ("stage_1_unit_0_relu", "stage_1_unit_1_relu"),
    ]
    assert [block.name for block in model.blocks] == [name for _, name in pairs]
    layers = [[model.get_layer(name).output for name in pair] for pair in pairs]
    clips = 255 * np.abs(array((2, *X2PLUS1D["input_shape"]), 0)) / 4
    for shortcut, found in keras.Model(model.input, layers).predict(clips, verbose=0):
        assert found.max() > 0.1
        close(found, np.maximum(shortcut, 0))


def test_x2plus1d_batch_norm_statistics_change_in_training_only():
    model = video_network()
    norm = model.get_layer("stem_norm")
    pixels = 255 * np.abs(array((2, *X2PLUS1D["input_shape"]), 0)) / 4
    before = norm.get_weights()[2]
    model(pixels, training=False)
    np.testing.assert_array_equal(norm.get_weights()[2], before)
    model(pixels, training=True)
    assert np.abs(norm.get_weights()[2] - before).max() > 1e-4


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_x2plus1d_pooling_returns_the_average_or_the_maximum(pooling):
    pooled, places = (video_network(include_top=False, pooling=p) for p in (pooling, None))
    assign_weights(pooled)
    places.set_weights(pooled.get_weights())
    x = array((2, *X2PLUS1D["input_shape"]), 0)
    values = run(places, x)
    assert values.shape == (2, 3, 2, 2, 16)
    close(run(pooled, x), getattr(values, {"avg": "mean", "max": "max"}[pooling])((1, 2, 3)))


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "changes, words",
    [
        ({"unit": "conv2d+tokenlearn"}, ["unit='conv2d+tokenlearn'", "'tokenlearner'"]),
        ({"unit": ""}, ["unit=''", "'conv2d'"]),
        ({"unit": None}, ["unit=None", "'conv2d+tokenlearner'"]),
        ({"attention": "heads"}, ["attention='heads'", "'multi_head'"]),
        ({"replaced": (7,)}, ["replaced=(7,)", "0 to 6"]),
        ({"replaced": (1, 1)}, ["replaced=(1, 1)"]),
        ({"replaced": 3}, ["replaced=3"]),
        ({"replaced": (-1,)}, ["replaced=(-1,)"]),
        ({"replaced": ([1],)}, ["replaced=([1],)"]),
        ({"num_tokens": 0}, ["num_tokens=0"]),
        ({"stage_channels": 24}, ["stage_channels=24"]),
        ({"stage_channels": ()}, ["stage_channels=()"]),
        ({"stage_units": (3, 5)}, ["stage_units=(3, 5)", "4 stages"]),
        ({"inner_channels": (54, 108, 216, 0)}, ["inner_channels=(54, 108, 216, 0)"]),
        ({"unit": "joint", "num_heads": 5}, ["`key_dim`", "num_heads=5, key_dim=128"]),
        (
            {"unit": "tokenlearner", "attention": "multi_head", "num_heads": 32},
            ["`inner_channels[-1]`", "num_heads=32, inner_channels[-1]=432"],
        ),
        ({"dropout_rate": 1}, ["dropout_rate=1", "[0, 1)"]),
        ({"batch_norm_momentum": -0.1}, ["batch_norm_momentum=-0.1"]),
        ({"batch_norm_epsilon": 0}, ["batch_norm_epsilon=0"]),
        ({"head_channels": "2048"}, ["head_channels='2048'"]),
        ({"num_tokens": 3}, ["`num_tokens`", "unit='conv2d+conv1d'", "num_tokens=3"]),
        ({"unit": "joint", "num_tokens": 3}, ["`num_tokens`", "unit='joint'", "num_tokens=3"]),
        ({"attention": "multi_head"}, ["`attention`", "attention='multi_head'"]),
        ({"unit": "mlpmixer", "attention": "multi_head"}, ["`attention`", "unit='mlpmixer'"]),
        ({"num_heads": 2}, ["`num_heads`", "unit='conv2d+conv1d'", "num_heads=2"]),
        ({"unit": "tokenlearner", "num_heads": 2}, ["`num_heads`", "attention='vector'"]),
        ({"unit": "temporal_vector", "key_dim": 6}, ["`key_dim`", "key_dim=6"]),
        ({"replaced": (4, 5, 6)}, ["`replaced`", "replaced=(4, 5, 6)"]),
        ({"unit": "joint", "replaced": ()}, ["`unit`", "replaced=()", "unit='joint'"]),
    ],
    ids=str,
)
def test_x2plus1d_config_with_wrong_fields_raises(changes, words):
    refused(lambda: X2Plus1DConfig(**changes), "X2Plus1DConfig: ", "Received: ", *words)


@pytest.mark.once("torch")
def test_x2plus1d_config_accepts_lists():
    config = X2Plus1DConfig("conv2d+tokenlearner", [1, 2], stage_units=[1, 2, 3, 4])
    assert (config.replaced, config.stage_units) == ((1, 2), (1, 2, 3, 4))
    assert hash(config)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "changes, words",
    [
        ({"input_shape": None}, ["input_shape=None, input_tensor=None"]),
        ({"input_shape": (10, 12, 3)}, ["(frames, height, width, channels)", "(10, 12, 3)"]),
        ({"input_shape": (None, 10, 12, 3)}, ["(None, 10, 12, 3)"]),
        ({"input_shape": 224}, ["`input_shape`", "input_shape=224"]),
        ({"input_tensor": [1]}, ["`input_tensor`", "input_tensor=[1]"]),
        ({"include_top": False, "pooling": "token"}, ["pooling='token'", "'avg'"]),
    ],
    ids=str,
)
def test_x2plus1d_with_wrong_arguments_raises(changes, words):
    refused(lambda: video_network(**changes), "X2Plus1D: ", "Received", *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize("classes", [0, "10", True, None])
def test_x2plus1d_with_wrong_classes_raises(classes):
    refused(
        lambda: X2Plus1D(X2Plus1DConfig(), (2, 8, 8, 3), classes=classes),
        "X2Plus1D: `classes`",
        f"Received: classes={classes!r}",
    )


@pytest.mark.once("torch")
def test_bottleneck_module_with_wrong_shapes_or_heads_raises():
    from keras_tokenlearner.models import bottleneck_module

    config = X2Plus1DConfig("joint")
    refused(lambda: bottleneck_module(config, (8, 8, 432)), "bottleneck_module: `input_shape`")
    refused(lambda: bottleneck_module(config, (2, 8, 8, 30)), "num_heads=8 with 30 channels")


@pytest.mark.once("torch")
def test_x2plus1d_with_channels_first_raises():
    keras.config.set_image_data_format("channels_first")
    refused(video_network, "X2Plus1D: ", "image_data_format='channels_first'")
    refused(lambda: module("conv2d"), "bottleneck_module: ", "image_data_format='channels_first'")
