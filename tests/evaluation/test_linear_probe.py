"""`linear_probe`, compared with the ridge regression of `few_shot_accuracy`."""

import functools

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.evaluation import few_shot_accuracy, linear_probe
from keras_tokenlearner.models import Preprocessing, VisionTransformer
from tests.models.test_retrofit import Noted, pixels


def features_model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Activation("linear", name="same")])


def blobs(count, seed):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    centres = 2.0 * np.eye(4)[:3]
    return (centres[labels] + random.normal(size=(count, 4)) * 0.8).astype("float32"), labels


def test_linear_probe_equals_the_ridge_regression_of_few_shot():
    x, labels = blobs(90, 0)
    test, test_labels = blobs(60, 1)
    model = linear_probe(features_model(), x, labels[:, None], l2=3.0)  # as in `keras.datasets`
    right = np.mean(model.predict(test, verbose=0).argmax(1) == test_labels)
    assert right == few_shot_accuracy(x, labels, test, test_labels, shots=30, l2=3.0)
    assert right > 0.7


def test_linear_probe_scale_minimises_the_cross_entropy():
    x, labels = blobs(90, 0)
    model = linear_probe(features_model(), x, labels)
    kernel, bias = model.get_layer("head").get_weights()

    def entropy(scale):
        logits = scale * (x @ kernel + bias)
        logits -= logits.max(1, keepdims=True)
        return np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(90), labels])

    assert entropy(1.0) <= min(entropy(0.8), entropy(1.25))
    np.testing.assert_allclose(model.predict(x, verbose=0).sum(1), 1, atol=1e-5)


@pytest.mark.once("torch")
def test_linear_probe_of_token_outputs_or_wrong_labels_raises():
    x, labels = blobs(9, 0)
    tokens = keras.Sequential([keras.Input((3, 4)), keras.layers.Activation("linear")])
    with pytest.raises(ValueError, match="linear_probe: .*pooling"):
        linear_probe(tokens, np.zeros((9, 3, 4)), labels)
    for bad in (labels[:5], labels / 1.0, labels - 1):
        with pytest.raises(ValueError, match="linear_probe: `labels`"):
            linear_probe(features_model(), x, bad)
    with pytest.raises(ValueError, match="l2=0"):
        linear_probe(features_model(), x, labels, l2=0)


ATTENTION = {"head_reads": "attention", "pooling_num_heads": 2, "pooling_mlp_dim": 16}
PREFIX = {"head_reads": "average", "pool_prefix": True}
ONCE = pytest.mark.once("torch")


@pytest.mark.parametrize(
    ("pooling", "changes"),
    [
        ("token", {}),
        ("avg", {}),
        ("max", {}),
        ("head", {}),
        pytest.param("avg", ATTENTION, marks=ONCE),
        pytest.param("head", ATTENTION, marks=ONCE),
        pytest.param("token", PREFIX, marks=ONCE),
        pytest.param("max", PREFIX, marks=ONCE),
    ],
    ids=str,
)
def test_linear_probe_of_a_vision_transformer_keeps_its_preprocessing_and_features(
    pooling, changes
):
    rule = Preprocessing(interpolation="bicubic", crop_fraction=0.875)
    model = create_model(
        "vit_pico8",
        include_top=False,
        pooling=pooling,
        class_token=True,
        pre_logits=5,
        activation=functools.partial(keras.activations.relu),  # Keras cannot save it
        preprocessing=rule,
        **changes,
    )
    model.get_layer("block_0").trainable = False
    images = np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 3)).astype("float32")
    probe = linear_probe(model, images, np.arange(8) % 2)
    assert isinstance(probe, VisionTransformer) and probe.preprocessing == rule
    assert probe.name == model.name and not probe.get_layer("block_0").trainable
    kernel, bias = probe.head.get_weights()
    logits = model.predict(images, verbose=0) @ kernel + bias
    wanted = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    np.testing.assert_allclose(probe.predict(images, verbose=0), wanted, atol=1e-5)


@pytest.mark.once("torch")
@pytest.mark.parametrize("is_custom", [False, True])
def test_linear_probe_of_a_frozen_model_has_only_its_head_trainable(is_custom):
    model = create_model("vit_pico8", include_top=False, pooling="avg")
    model = keras.Model(model.input, model.output) if is_custom else model
    model.trainable = False
    probe = linear_probe(model, np.zeros((4, 32, 32, 3)), np.arange(4) % 2)
    assert isinstance(probe, VisionTransformer) is not is_custom
    assert probe.trainable_weights == probe.get_layer("head").weights
    assert len(probe.trainable_weights) == 2


@pytest.mark.once("torch")
def test_linear_probe_of_a_model_of_an_own_class_returns_a_vision_transformer():
    config = create_model("vit_pico8").config
    model = Noted(config, (32, 32, 3), include_top=False, pooling="avg", note="mine")
    assert type(linear_probe(model, pixels(4, 32, 32, 3), np.arange(4) % 2)) is VisionTransformer


@pytest.mark.once("torch")
def test_linear_probe_of_a_model_with_lora_weights_shares_its_layers():
    model = create_model("vit_pico8", include_top=False, pooling="avg")
    model.blocks[0].mlp.hidden.enable_lora(2)
    probe = linear_probe(model, np.zeros((4, 32, 32, 3)), np.arange(4) % 2)
    assert probe.get_layer("block_0") is model.get_layer("block_0")
