"""ViT, SigLIP and DINOv3 of keras-hub, from models and files, against keras-hub itself."""

import keras
import numpy as np
import pytest

import keras_tokenlearner as kt
from keras_tokenlearner.models import VisionTransformer
from keras_tokenlearner.presets.keras_json import of_keras
from keras_tokenlearner.weights import load, plan_of
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
@pytest.mark.parametrize("changes", [{}, {"use_class_token": False, "pooling": "gap"}], ids=str)
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
        with pytest.raises(ValueError, match="pre_logits/kernel|dense/vars/0"):
            load(model, "keras_hub", checkpoint)
        assert len(load(model, "keras_hub", checkpoint, head="drop").unused) >= 4


@pytest.mark.parametrize("max_shard_size", [10, 3e-5])
@pytest.mark.parametrize("form", ["backbone", "classifier"])
def test_keras_hub_preset_folder_gives_the_outputs_of_keras_hub(form, max_shard_size, tmp_path):
    classifier = theirs()
    theirs_model = classifier if form == "classifier" else classifier.backbone
    theirs_model.save_to_preset(str(tmp_path), max_shard_size=max_shard_size)
    assert (tmp_path / "model.weights.json").exists() == (max_shard_size < 1)
    model = kt.from_preset(tmp_path, classifier_activation=None)
    images = pixels()
    expected = outputs(theirs_model, images / 127.5 - 1)
    close(outputs(model, images), expected if form == "classifier" else expected[:, 0])


SIZES = {
    "patch_size": 8,
    "hidden_dim": 32,
    "num_layers": 2,
    "num_heads": 2,
    "intermediate_dim": 48,
    "image_shape": (32, 32, 3),
}


@pytest.mark.parametrize("form", ["model", "folder", "pair"])
def test_keras_hub_siglip_gives_the_pooled_vector_of_keras_hub(form, tmp_path):
    models = peer("keras_hub").models
    vision = randomise(models.SigLIPVisionEncoder(**SIZES))
    text = {"vocabulary_size": 9, "embedding_dim": 8, "hidden_dim": 8, "num_layers": 1}
    text |= {"num_heads": 1, "intermediate_dim": 8, "max_sequence_length": 4}
    if form == "model":
        model = build("keras_hub_siglip", vision, include_top=False)
        load(model, "keras_hub_siglip", vision)
        images = pixels()
        tokens = keras.Model(vision.input, vision.get_layer("post_layer_norm").output)
        close(outputs(model, images), outputs(tokens, images / 127.5 - 1))
        return
    theirs_model = vision
    if form == "pair":
        encoder = models.SigLIPTextEncoder(**text, projection_dim=32)
        theirs_model = models.SigLIPBackbone(vision, encoder)
    theirs_model.save_to_preset(str(tmp_path))
    images = pixels()
    model = kt.from_preset(tmp_path)
    close(outputs(model, images), outputs(vision, images / 127.5 - 1))


@pytest.mark.parametrize("leaf", ["2", "9", "²"])
def test_keras_hub_siglip_file_with_further_variables_raises_and_names_them(leaf):
    model = build("keras_hub_siglip", include_top=False)
    start = "layers/sig_lip_vision_embedding/patch_embedding/vars"
    kernel = np.zeros((8, 8, 3, 32), "float32")
    entries = {f"{start}/0": kernel, f"{start}/{leaf}": np.zeros(32, "float32")}
    with pytest.raises(ValueError, match=f"Missing in the model: .*{start}/{leaf}"):
        load(model, "keras_hub_siglip", entries)


def test_keras_hub_clip_in_memory_is_never_taken_for_siglip():
    vision = peer("keras_hub").models.CLIPVisionEncoder(**SIZES)
    with pytest.raises(ValueError, match="class_embedding"):
        plan_of(vision)
    with pytest.raises(ValueError, match="class_embedding"):
        plan_of(vision, "keras_hub_siglip")


@pytest.mark.parametrize(
    "changes",
    [
        {"use_key_bias": False},
        {"use_gated_mlp": True, "hidden_activation": "silu", "use_mask_token": False},
    ],
    ids=str,
)
def test_keras_hub_dinov3_gives_the_tokens_of_keras_hub(changes, tmp_path):
    backbone = randomise(
        peer("keras_hub").models.DINOV3Backbone(**SIZES, num_register_tokens=2, **changes)
    )
    backbone.save_to_preset(str(tmp_path))
    model = kt.from_preset(tmp_path, normalization="half", include_top=False, pooling="none")
    images = pixels()
    expected = outputs(backbone, images / 127.5 - 1)
    close(outputs(model, images), expected)
    plan = plan_of(backbone, activation=changes.get("hidden_activation", "gelu"), num_heads=2)
    again = VisionTransformer(
        plan.config, (32, 32, 3), include_top=False, preprocessing=model.preprocessing
    )
    plan.load(again, check_settings=False)
    close(outputs(again, images), expected)


def test_image_converter_of_keras_hub_decides_the_preprocessing(tmp_path):
    hub = peer("keras_hub")
    converter = hub.layers.ImageConverter(
        image_size=(32, 32), scale=[1 / 60, 1 / 50, 1 / 40], offset=[-2, -1, -3]
    )
    statement = of_keras(
        "test",
        {"registered_name": "keras_hub>ViTBackbone", "config": {}},
        {"config": converter.get_config()},
    )
    images = pixels()
    mean, std = (np.array(v) for v in (statement.preprocessing.mean, statement.preprocessing.std))
    np.testing.assert_allclose((images / 255 - mean) / std, converter(images), atol=1e-4)
    assert statement.preprocessing.size == (32, 32)
    assert statement.preprocessing.resize_mode == "shortest"
