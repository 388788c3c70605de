"""Our models as backbones of keras-hub's classifiers."""

import subprocess

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, export
from keras_tokenlearner.applications import hub_backbone
from keras_tokenlearner.models import Preprocessing
from keras_tokenlearner.serving import writing
from tests.skips import peer

pytestmark = pytest.mark.peers
keras_hub = peer("keras_hub")


def test_hub_backbone_in_an_image_classifier_trains_and_loads(tmp_path):
    random = np.random.default_rng(0)
    images, labels = random.uniform(0, 255, (8, 32, 32, 3)).astype("float32"), np.arange(8) % 3
    backbone = hub_backbone("tokenlearner_pico8_4at1", input_shape=(32, 32, 3))
    classifier = keras_hub.models.ImageClassifier(
        backbone=backbone, num_classes=3, preprocessor=None, activation="softmax"
    )
    classifier.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    classifier.fit(images, labels, batch_size=4, epochs=1, verbose=0)
    answers = classifier.predict(images, verbose=0)
    assert answers.shape == (8, 3)

    # Our model with the same weights gives the same predictions.
    ours = create_model("tokenlearner_pico8_4at1", classes=3)
    ours.set_weights(backbone.get_weights() + classifier.get_layer("predictions").get_weights())
    np.testing.assert_allclose(ours.predict(images, verbose=0), answers, atol=1e-5)

    classifier.save(tmp_path / "classifier.keras")
    loaded = keras.saving.load_model(tmp_path / "classifier.keras", compile=False)
    np.testing.assert_allclose(loaded.predict(images, verbose=0), answers, atol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="only on torch: other backends write a SavedModel without a second process",
)
def test_export_of_a_classifier_on_a_hub_backbone_by_a_second_process_writes_the_file(
    tmp_path, monkeypatch
):
    pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
    monkeypatch.setattr(writing, "subprocess", subprocess)  # a process of its own
    backbone = hub_backbone("vit_pico8", input_shape=(32, 32, 3))
    classifier = keras_hub.models.ImageClassifier(
        backbone=backbone, num_classes=3, preprocessor=None, activation="softmax"
    )
    assert export(classifier, tmp_path).max_difference < 1e-4


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_hub_backbone_with_a_dtype_has_layers_of_this_dtype(tmp_path, dtype):
    backbone = hub_backbone("vit_pico8", input_shape=(32, 32, 3), dtype=dtype)
    backbone.save(tmp_path / "backbone.keras")
    loaded = keras.saving.load_model(tmp_path / "backbone.keras", compile=False)
    for model in (backbone, loaded):
        policies = {layer.dtype_policy.name for layer in model.layers if layer.weights}
        assert policies == {dtype} and model.dtype_policy.name == dtype


def frozen(backbone):
    backbone.trainable = False


def frozen_in_part(backbone):
    backbone.get_layer("block_0").trainable = False
    backbone.get_layer("block_1").mlp.hidden.trainable = False


@pytest.mark.parametrize("freeze", [None, frozen, frozen_in_part])
def test_frozen_hub_backbone_is_frozen_in_a_classifier_before_and_after_loading(tmp_path, freeze):
    backbone = hub_backbone("vit_pico8", input_shape=(32, 32, 3), trainable=freeze is not None)
    total = len(backbone.weights)
    if freeze:
        freeze(backbone)
    classifier = keras_hub.models.ImageClassifier(
        backbone=backbone, num_classes=3, preprocessor=None
    )
    classifier.save(tmp_path / "classifier.keras")
    loaded = keras.saving.load_model(tmp_path / "classifier.keras", compile=False)
    paths = [[weight.path for weight in one.trainable_weights] for one in (classifier, loaded)]
    assert paths[0] == paths[1]
    assert len(paths[0]) == 2 if freeze is not frozen_in_part else 2 < len(paths[0]) < total
    assert loaded.backbone.trainable == backbone.trainable


def test_quantized_hub_backbone_saved_and_loaded_gives_the_same_features(tmp_path):
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    backbone = hub_backbone("vit_pico8", input_shape=(32, 32, 3))
    backbone.quantize("int8")
    backbone.save(tmp_path / "backbone.keras")
    loaded = keras.saving.load_model(tmp_path / "backbone.keras", compile=False)
    features = (model.predict(images, verbose=0) for model in (backbone, loaded))
    np.testing.assert_allclose(*features, atol=1e-5)


def test_hub_backbone_with_an_unknown_dtype_raises():
    with pytest.raises(ValueError, match="hub_backbone: `dtype` .*dtype='float1'"):
        hub_backbone("vit_pico8", dtype="float1")


def test_hub_backbone_with_weights_saved_and_loaded_gives_the_same_features(tmp_path):
    # These weights decide the normalisation and the input shape of the model.
    images = np.random.default_rng(0).uniform(0, 255, (1, 112, 112, 3))
    backbone = hub_backbone("tokenlearner_s14_16at5", weights="cifar10")
    backbone.save(tmp_path / "backbone.keras")
    loaded = keras.saving.load_model(tmp_path / "backbone.keras", compile=False)
    assert loaded.input_shape == backbone.input_shape
    features = (model.predict(images, verbose=0) for model in (backbone, loaded))
    np.testing.assert_allclose(*features, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"), [("pooling", "max"), ("include_top", True), ("classes", 3)]
)
def test_hub_backbone_with_a_classifier_argument_or_pooling_raises(name, value):
    with pytest.raises(ValueError, match=f"hub_backbone: .*`{name}`.*{name}={value!r}"):
        hub_backbone("vit_pico8", **{name: value})


def test_hub_backbone_with_a_preprocessing_normalises_pixels_by_its_mean_and_std():
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3))
    given = {"preprocessing": Preprocessing(mean=(0.2,), std=(0.3,))}
    backbone = hub_backbone("vit_pico8", **given)
    body = create_model("vit_pico8", include_top=False, pooling="avg", **given)
    body.set_weights(backbone.get_weights())
    features = (model.predict(images, verbose=0).reshape(1, -1) for model in (backbone, body))
    np.testing.assert_allclose(*features, atol=1e-5)
