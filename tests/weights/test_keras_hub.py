"""ViT of keras-hub, from its models and its files, against keras-hub itself."""

import pytest

import keras_tokenlearner as kt
from keras_tokenlearner.weights import load
from tests.skips import peer
from tests.weights.foreign import build, close, outputs, pixels, randomise

pytestmark = pytest.mark.peers


def theirs(**changes):
    models = peer("keras_hub").models
    backbone = models.ViTBackbone(
        image_shape=(32, 32, 3),
        patch_size=(8, 8),
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        mlp_dim=48,
        use_class_token=changes.pop("use_class_token", True),
    )
    model = models.ViTImageClassifier(backbone=backbone, num_classes=5, **changes)
    return randomise(model)


@pytest.mark.parametrize("form", ["model", "file"])
@pytest.mark.parametrize("changes", [{}, {"use_class_token": False, "pooling": "gap"}])
def test_keras_hub_classifier_gives_the_outputs_of_keras_hub(form, changes, tmp_path):
    classifier = theirs(**changes)
    classifier.save_weights(tmp_path / "task.weights.h5")
    checkpoint = classifier if form == "model" else tmp_path / "task.weights.h5"
    model = build("keras_hub", checkpoint)
    report = load(model, "keras_hub", checkpoint)
    assert not report.left and all(name.startswith("optimizer/") for name in report.unused)
    images = pixels()
    close(outputs(model, images), outputs(classifier, images / 127.5 - 1))


@pytest.mark.parametrize("form", ["model", "file"])
def test_keras_hub_backbone_gives_the_tokens_of_keras_hub(form, tmp_path):
    backbone = theirs().backbone
    backbone.save_weights(tmp_path / "model.weights.h5")
    checkpoint = backbone if form == "model" else tmp_path / "model.weights.h5"
    model = build("keras_hub", checkpoint, include_top=False)
    assert not load(model, "keras_hub", checkpoint).left
    images = pixels()
    close(outputs(model, images), outputs(backbone, images / 127.5 - 1))


def test_keras_hub_head_after_another_layer_raises_unless_dropped(tmp_path):
    classifier = theirs(intermediate_dim=6)
    classifier.save_weights(tmp_path / "task.weights.h5")
    for checkpoint in (classifier, tmp_path / "task.weights.h5"):
        model = build("keras_hub", checkpoint)
        with pytest.raises(ValueError, match="follows layers that this model lacks"):
            load(model, "keras_hub", checkpoint)
        assert len(load(model, "keras_hub", checkpoint, head="drop").unused) >= 4


@pytest.mark.parametrize("form", ["backbone", "classifier"])
def test_keras_hub_preset_folder_gives_the_outputs_of_keras_hub(form, tmp_path):
    classifier = theirs()
    theirs_model = classifier if form == "classifier" else classifier.backbone
    theirs_model.save_to_preset(str(tmp_path))
    model = kt.from_preset(tmp_path, classifier_activation=None)
    images = pixels()
    expected = outputs(theirs_model, images / 127.5 - 1)
    close(outputs(model, images), expected if form == "classifier" else expected[:, 0])
