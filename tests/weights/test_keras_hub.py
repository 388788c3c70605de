"""ViT, SigLIP and DINOv3 of keras-hub, from models and files, against keras-hub itself."""

import keras
import numpy as np
import pytest

import keras_tokenlearner as kt
from keras_tokenlearner.models import VisionTransformer
from keras_tokenlearner.weights import load, plan_of
from keras_tokenlearner.weights.keras_json import of_keras
from tests.skips import peer
from tests.weights.foreign import build, close, outputs, pixels, randomise, refused

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
        **{name: changes.pop(name) for name in [*changes] if name.startswith("use_")},
    )
    model = models.ViTImageClassifier(backbone=backbone, num_classes=5, **changes)
    return randomise(model)


GAP = {"pooling": "gap"}
READS_ALL = {"head_reads": "average", "pool_prefix": True}  # all tokens


@pytest.mark.parametrize("form", ["model", "file"])
@pytest.mark.parametrize("changes", [{}, GAP, GAP | {"use_class_token": False}], ids=str)
def test_keras_hub_classifier_gives_the_outputs_of_keras_hub(form, changes, tmp_path):
    classifier = theirs(**changes)
    classifier.save_weights(tmp_path / "task.weights.h5")
    checkpoint = classifier if form == "model" else tmp_path / "task.weights.h5"
    given = READS_ALL if changes == GAP and form == "file" else {}
    model = build("keras_hub", checkpoint, **given)
    report = load(model, "keras_hub", checkpoint)
    assert not report.left and all(name.startswith("optimizer/") for name in report.unused)
    images = pixels()
    close(outputs(model, images), outputs(classifier, images / 127.5 - 1))


def test_keras_hub_file_with_class_token_and_head_needs_head_reads(tmp_path):
    classifier = theirs(**GAP)
    classifier.save_weights(path := tmp_path / "task.weights.h5")
    with pytest.raises(ValueError, match=r"`head_reads`, one of None, 'average'.*pool_prefix"):
        kt.from_preset(path)
    given = {"input_shape": (32, 32, 3), "classifier_activation": None}
    with pytest.raises(ValueError, match="pool_prefix is False"):
        kt.from_preset(path, head_reads="average", **given)
    images = pixels()
    model = kt.from_preset(path, **READS_ALL, **given)
    close(outputs(model, images), outputs(classifier, images / 127.5 - 1))
    by_class_token = build("keras_hub", path)
    refused("head_reads is None", by_class_token, "keras_hub", classifier)
    assert not load(by_class_token, "keras_hub", classifier, head="reset").left


def test_keras_hub_classifier_that_reads_the_first_patch_raises(tmp_path):
    classifier = theirs(use_class_token=False)
    with pytest.raises(ValueError, match="first patch"):
        load(build("keras_hub", class_token=False), "keras_hub", classifier)
    classifier.save_to_preset(str(tmp_path))
    with pytest.raises(ValueError, match="first patch"):
        kt.from_preset(tmp_path)


@pytest.mark.parametrize("form", ["model", "file"])
def test_keras_hub_backbone_gives_the_tokens_of_keras_hub(form, tmp_path):
    backbone = theirs().backbone
    backbone.save_weights(tmp_path / "model.weights.h5")
    checkpoint = backbone if form == "model" else tmp_path / "model.weights.h5"
    model = build("keras_hub", checkpoint, include_top=False)
    assert not load(model, "keras_hub", checkpoint).left
    images = pixels()
    close(outputs(model, images), outputs(backbone, images / 127.5 - 1))


def test_keras_hub_model_in_memory_keeps_its_own_settings():
    hub = peer("keras_hub")
    sizes = {"patch_size": 8, "hidden_dim": 32, "num_layers": 2, "num_heads": 2}
    shape = (32, 32, 3)
    backbone = hub.models.ViTBackbone(
        image_shape=shape, mlp_dim=48, layer_norm_epsilon=1e-3, **sizes
    )
    converter = hub.layers.ViTImageConverter(image_size=(32, 32), scale=1 / 255, offset=0.0)
    classifier = hub.models.ViTImageClassifier(
        backbone=randomise(backbone),
        num_classes=5,
        preprocessor=hub.models.ViTImageClassifierPreprocessor(converter),
    )
    plan = plan_of(classifier)
    assert plan.config.layer_norm_epsilon == 1e-3 and plan.grid == (4, 4)
    np.testing.assert_allclose((plan.preprocessing.mean, plan.preprocessing.std), [(0,), (1,)])
    model = VisionTransformer(
        plan.config, shape, include_top=False, preprocessing=plan.preprocessing
    )
    assert not load(model, "keras_hub", classifier).left
    images = pixels()
    close(outputs(model, images), outputs(backbone, images / 255))
    sizes |= {"intermediate_dim": 48, "image_shape": shape, "layer_norm_epsilon": 1e-3}
    assert plan_of(hub.models.SigLIPVisionEncoder(**sizes)).config.layer_norm_epsilon == 1e-3


@pytest.mark.parametrize("form", ["model", "file"])
@pytest.mark.parametrize("lacking", ["use_mha_bias", "use_mlp_bias", "use_patch_bias"])
def test_keras_hub_backbone_without_biases_gives_the_tokens_of_keras_hub(form, lacking, tmp_path):
    backbone = theirs(**{lacking: False}).backbone
    backbone.save_weights(tmp_path / "model.weights.h5")
    checkpoint = backbone if form == "model" else tmp_path / "model.weights.h5"
    model = build("keras_hub", checkpoint, include_top=False)
    report = load(model, "keras_hub", checkpoint)
    assert not report.left and not report.unused
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
@pytest.mark.parametrize("form", ["backbone", "token", "gap"])
def test_keras_hub_preset_folder_gives_the_outputs_of_keras_hub(form, max_shard_size, tmp_path):
    classifier = theirs(pooling="gap" if form == "gap" else "token")
    theirs_model = classifier.backbone if form == "backbone" else classifier
    theirs_model.save_to_preset(str(tmp_path), max_shard_size=max_shard_size)
    assert (tmp_path / "model.weights.json").exists() == (max_shard_size < 1)
    given = {} if form == "backbone" else {"classifier_activation": None}
    model = kt.from_preset(tmp_path, **given)
    images = pixels()
    expected = outputs(theirs_model, images / 127.5 - 1)
    close(outputs(model, images), expected[:, 0] if form == "backbone" else expected)


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


@pytest.mark.once("torch")
def test_keras_hub_dinov3_with_a_function_as_activation_gives_its_name_or_asks_for_it(tmp_path):
    kind = peer("keras_hub").models.DINOV3Backbone
    backbone = kind(**SIZES, hidden_activation=keras.activations.silu)
    assert plan_of(backbone).config.activation == "silu"
    backbone.save_to_preset(str(tmp_path))
    assert kt.from_preset(tmp_path).config.activation == "silu"

    def gelu(x):
        return keras.ops.relu(x)

    backbone = kind(**SIZES, hidden_activation=gelu)
    with pytest.raises(ValueError, match="plan_of: the model .*`activation`.*function") as caught:
        plan_of(backbone).config  # noqa: B018
    assert "file" not in str(caught.value)
    plan = plan_of(backbone, activation="relu")
    model = VisionTransformer(
        plan.config, (32, 32, 3), include_top=False, preprocessing=plan.preprocessing
    )
    assert not load(model, None, backbone).left


@pytest.mark.once("torch")
@pytest.mark.parametrize("shape", [(3, 32, 48), (32, 48, 3)], ids=str)
def test_keras_hub_image_shape_with_channels_first_or_last_gives_height_and_width(shape):
    said = {"registered_name": "keras_hub>DINOV3Backbone", "config": {"image_shape": shape}}
    assert of_keras("test", said, {}, {}).input_size == (32, 48)


def test_keras_hub_dinov3_without_a_bias_of_the_embedding_raises():
    backbone = peer("keras_hub").models.DINOV3Backbone(**SIZES, num_register_tokens=2)
    entries = {weight.path: keras.ops.convert_to_numpy(weight) for weight in backbone.weights}
    plan = plan_of(entries, "keras_hub_dinov3", activation="gelu", num_heads=2)
    model = VisionTransformer(plan.config, (32, 32, 3), include_top=False)
    del entries["embeddings/patch_embeddings/projection/bias"]
    with pytest.raises(ValueError, match="embedding/projection/bias"):
        load(model, "keras_hub_dinov3", entries, normalization="half")


def normalise(converter, images):
    """Return images that are normalised as the config of an image converter states."""
    backbone = {"registered_name": "keras_hub>ViTBackbone", "config": {}}
    found = of_keras("test", backbone, {"config": converter}, {}).preprocessing
    assert (found.size, found.resize_mode) == ((32, 32), "shortest")
    return (images / 255 - np.array(found.mean)) / np.array(found.std)


@pytest.mark.parametrize(
    "scaling",
    [
        {"scale": [1 / 60, 1 / 50, 1 / 40], "offset": [-2, -1, -3]},
        {"scale": np.array([1 / 60, 1 / 50, 1 / 40]), "offset": np.array([-2.0, -1.0, -3.0])},
        {"scale": 1 / 127.5, "offset": -1},
        {},
    ],
    ids=str,
)
def test_image_converter_of_keras_hub_decides_the_preprocessing(scaling):
    converter = peer("keras_hub").layers.ViTImageConverter(image_size=(32, 32), **scaling)
    images = pixels()
    wanted = keras.ops.convert_to_numpy(converter(images))
    np.testing.assert_allclose(normalise(converter.get_config(), images), wanted, atol=1e-4)


def test_image_converter_of_old_keras_hub_normalises_the_scaled_pixels():
    images, mean, std = pixels(), np.array([0.4, 0.5, 0.6]), np.array([0.1, 0.2, 0.3])
    wanted = (images / 255 - mean) / std
    said = {"image_size": [32, 32], "scale": 1 / 255, "offset": None}
    said |= {"norm_mean": mean.tolist(), "norm_std": std.tolist()}
    np.testing.assert_allclose(normalise(said, images), wanted, atol=1e-4)
    said = {"height": 32, "width": 32, "scale": 1 / 255}
    said |= {"mean": mean.tolist(), "variance": (std**2).tolist()}
    np.testing.assert_allclose(normalise(said, images), wanted, atol=1e-4)
    converter = peer("keras_hub").layers.ImageConverter(**said)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(converter(images)), wanted, atol=1e-4)


@pytest.mark.parametrize("scale", [0, "x", [[1.0, 2.0]]], ids=str)
def test_image_converter_of_keras_hub_with_a_wrong_scale_raises(scale):
    with pytest.raises(ValueError, match="test: .*again"):
        normalise({"scale": scale}, pixels())
