"""Activations of model outputs: one rule for `predict` and exported models."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_tokenlearner import create_model, export
from keras_tokenlearner.models.last_activation import last_activation
from keras_tokenlearner.models.preprocessing import check_takes_pixels
from keras_tokenlearner.serving import predict
from keras_tokenlearner.serving.classifier import (
    classifier_activation_of,
    probabilities,
)
from keras_tokenlearner.serving.metadata import METADATA, own_class_names

NAME = "tokenlearner_pico8_4at1"


def ends_in(*after):
    """Return a small model of images that ends in the given operations."""
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(x)
    for operation in after:
        x = operation(x)
    return keras.Model(inputs, x)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("after", "wanted"),
    [
        ((layers.Dense(3, "softmax"),), "softmax"),
        ((layers.Dense(3), layers.Activation("softmax")), "softmax"),
        ((layers.Dense(3), layers.Softmax()), "softmax"),
        ((layers.Dense(3), keras.ops.softmax), "softmax"),
        ((layers.Dense(3, "softmax"), layers.Activation("linear", dtype="float32")), "softmax"),
        ((layers.Dense(3, "sigmoid"),), "sigmoid"),
        ((layers.Dense(3), keras.ops.sigmoid), "sigmoid"),
        ((layers.Dense(3, "softmax"), layers.Dropout(0.1)), "softmax"),
        ((layers.LayerNormalization(),), "linear"),
        ((layers.Dense(3, layers.Softmax()),), "softmax"),
        ((layers.Dense(3, layers.Activation("softmax")),), "softmax"),
        ((layers.Dense(3, keras.ops.softmax),), "softmax"),
        ((layers.Dense(3, "softmax"), layers.Activation(layers.Identity())), "softmax"),
        ((layers.Dense(3), layers.Activation(keras.ops.sigmoid)), "sigmoid"),
        ((layers.Dense(3), layers.ReLU()), "linear"),
    ],
    ids=[
        "softmax in dense",
        "softmax in activation layer",
        "softmax layer",
        "softmax operation",
        "linear behind softmax",
        "sigmoid in dense",
        "sigmoid operation",
        "dropout behind softmax",
        "normalization",
        "softmax layer in dense",
        "activation layer in dense",
        "softmax operation in dense",
        "identity behind softmax",
        "sigmoid operation in activation layer",
        "relu layer",
    ],
)
def test_last_activation_of_a_model_is_found(after, wanted):
    assert classifier_activation_of("export", ends_in(*after)) == (wanted, False)


@pytest.mark.once("torch")
def test_last_activation_of_a_nested_model_is_found():
    inner = ends_in(layers.Dense(3, "sigmoid"))
    outer = keras.Sequential([keras.Input((8, 8, 3)), inner])
    assert classifier_activation_of("export", outer) == ("sigmoid", False)


@pytest.mark.once("torch")
def test_own_class_names_of_a_nested_model_require_all_its_classes_in_the_same_order():
    inner, inputs = ends_in(layers.Dense(3, "softmax")), keras.Input((8, 8, 3))
    inner.class_names = ["cat", "dog", "owl"]
    outputs = inner(inputs)
    assert own_class_names(keras.Model(inputs, outputs)) == inner.class_names
    sequential = keras.Sequential([keras.Input((8, 8, 3)), layers.RandomFlip(), inner])
    assert own_class_names(sequential) == inner.class_names
    order = keras.ops.take(outputs, [2, 0, 1], axis=-1)
    for others in (order, keras.ops.softmax(order), outputs[:, :2], layers.Dense(3)(outputs)):
        assert own_class_names(keras.Model(inputs, others)) is None
    inner.class_names = ["cat", "dog"]
    assert own_class_names(keras.Model(inputs, outputs)) is None


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("activation", "ending"),
    [
        (None, "ends in logits"),
        ("linear", "ends in logits"),
        (layers.Identity(), "ends in logits"),
        ("relu", "activation"),
        ("tanh", "activation"),
        (layers.ReLU(), "activation"),
    ],
    ids=str,
)
def test_model_that_ends_in_no_probabilities_without_classifier_activation_raises(
    activation, ending
):
    model = ends_in(layers.Dense(3, activation))
    is_logits = ending == "ends in logits"
    assert last_activation(model) == ("linear" if is_logits else None, True)
    with pytest.raises(ValueError) as caught:
        classifier_activation_of("predict", model)
    for word in ("predict", "'softmax'", "'sigmoid'", "classifier_activation=None"):
        assert word in str(caught.value)
    assert "'linear'" not in str(caught.value)  # `predict` refuses models without probabilities
    with pytest.raises(ValueError, match="'linear' for other outputs"):
        classifier_activation_of("export", model)
    assert ("ends in logits" in str(caught.value)) is is_logits
    assert classifier_activation_of("predict", model, "sigmoid") == ("sigmoid", True)
    assert classifier_activation_of("predict", model, "linear") == ("linear", False)


@pytest.mark.once("torch")
def test_model_without_top_that_ends_in_a_dense_layer_returns_features():
    model = create_model("vit_pico8", include_top=False, pooling="head", pre_logits=8)
    assert last_activation(model) == (None, True)  # a tanh
    assert classifier_activation_of("export", model) == ("linear", False)


@pytest.mark.once("torch")
def test_classifier_activation_unlike_the_last_activation_raises():
    with pytest.raises(ValueError, match="classifier_activation='sigmoid'"):
        classifier_activation_of("export", ends_in(layers.Dense(3, "softmax")), "sigmoid")
    with pytest.raises(ValueError, match="classifier_activation='tanh'"):
        classifier_activation_of("export", ends_in(layers.Dense(3)), "tanh")


def test_probabilities_of_logits_equal_keras_and_never_overflow():
    logits = np.array([[500.0, -500.0, 0.0], [1.0, 2.0, 3.0]], "float32")
    for name in ("softmax", "sigmoid"):
        right = keras.ops.convert_to_numpy(keras.activations.get(name)(logits))
        np.testing.assert_allclose(probabilities(logits, name), right, atol=1e-6)


@pytest.mark.once("torch")
def test_check_takes_pixels_of_a_classifier_without_preprocessing_raises():
    plain = create_model(NAME, classes=2, include_preprocessing=False)
    base = create_model(NAME, include_top=False, pooling="avg", include_preprocessing=False)
    on_top = keras.Sequential([keras.Input((32, 32, 3)), base, layers.Dense(3, "softmax")])
    inputs = keras.Input((32, 32, 3))
    direct = keras.Model(inputs, layers.Dense(3)(base(inputs)))
    video = create_model("tokenlearner_x2plus1d_pico", classes=2, include_preprocessing=False)
    turned = create_model(
        NAME, classes=2, include_preprocessing=False, rotary="index", positions=None
    )
    for model in (plain, on_top, direct, video, turned):
        with pytest.raises(ValueError, match="include_preprocessing=False"):
            check_takes_pixels("export", model)
    scaled = keras.Sequential(
        [keras.Input((32, 32, 3)), layers.Rescaling(1 / 127.5, -1), base, layers.Dense(3)]
    )
    by_function, by_norm = (
        keras.Model(inputs, layers.Dense(3)(base(x)))
        for x in (inputs / 127.5 - 1, layers.BatchNormalization()(inputs))
    )
    whole = create_model(NAME, classes=2)
    for model in (scaled, by_function, by_norm, whole, ends_in(layers.Dense(3))):
        assert check_takes_pixels("export", model) is None


@pytest.fixture(scope="module")
def multi_label(tmp_path_factory):
    """A folder with a model that ends in logits and an image; the model, pixels and logits."""
    pillow = pytest.importorskip("PIL.Image", reason="writes the image")
    folder = tmp_path_factory.mktemp("logits")
    keras.utils.set_random_seed(0)
    base = create_model(NAME, include_top=False, pooling="avg")
    model = keras.Sequential([keras.Input((32, 32, 3)), base, layers.Dense(3, name="mine")])
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.3, w.shape) for w in model.get_weights()])
    pixels = random.integers(0, 256, (32, 32, 3)).astype("uint8")
    pillow.fromarray(pixels).save(folder / "image.png")
    model.save(folder / "logits.keras")
    logits = model.predict(pixels[None].astype("float32"), verbose=0)[0]
    return folder, model, pixels, logits


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_predict_with_classifier_activation_turns_logits_into_probabilities(
    multi_label, activation
):
    folder, _, _, logits = multi_label
    arguments = folder / "logits.keras", folder / "image.png"
    with pytest.raises(ValueError, match="classifier_activation=None"):
        predict(*arguments)
    (answer,) = predict(*arguments, classifier_activation=activation)
    powers = np.exp(logits)
    right = powers / powers.sum() if activation == "softmax" else powers / (1 + powers)
    for row in answer["classes"]:
        assert row["probability"] == pytest.approx(right[row["class"]], abs=1e-5)


def test_exported_multi_label_model_has_sigmoid_probabilities_and_the_classes_of_predict(
    multi_label, tmp_path
):
    """The model ends in a custom dense layer, and the export adds a sigmoid."""
    tf = pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
    folder, model, pixels, logits = multi_label
    with pytest.raises(ValueError, match="classifier_activation=None"):
        export(model, tmp_path / "served", ["cat", "dog", "owl"])
    assert not (tmp_path / "served").exists()
    path = export(
        model, tmp_path / "served", ["cat", "dog", "owl"], classifier_activation="sigmoid"
    ).path
    served = tf.saved_model.load(str(path))
    answer = served.images(pixels[None])
    right = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(answer["probabilities"][0], right, atol=1e-5)
    best = np.argsort(-right)
    names = [("cat", "dog", "owl")[place].encode() for place in best]
    assert answer["top_class_names"].numpy()[0].tolist() == names
    metadata = json.loads((path / METADATA).read_text())
    assert metadata["classifier_activation"] == "sigmoid"
    (found,) = predict(tmp_path / "served", folder / "image.png")
    (ours,) = predict(
        folder / "logits.keras", folder / "image.png", classifier_activation="sigmoid"
    )
    assert [row["class"] for row in found["classes"]] == [row["class"] for row in ours["classes"]]
    with pytest.raises(ValueError, match="classifier_activation='softmax'"):
        predict(tmp_path / "served", folder / "image.png", classifier_activation="softmax")


@pytest.mark.once("torch")
def test_export_with_class_names_for_features_or_of_wrong_values_raises(tmp_path):
    pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
    features = create_model(NAME, include_top=False, pooling="avg")
    with pytest.raises(ValueError, match="class_names"):
        export(features, tmp_path / "served", class_names=["a"] * features.output_shape[-1])
    tokens = create_model(NAME, include_top=False)
    with pytest.raises(ValueError, match="class_names"):
        export(tokens, tmp_path / "served", class_names=["a"] * tokens.output_shape[-1])
    model = create_model(NAME, classes=2)
    for wrong in ("ab", ["a", 1], ["a"], np.array(["a"])):
        with pytest.raises(ValueError, match="class_names"):
            export(model, tmp_path / "served", class_names=wrong)
    assert not (tmp_path / "served").exists()
