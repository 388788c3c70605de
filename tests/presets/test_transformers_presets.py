"""Folders saved by transformers: every family against its own tiny model with random weights."""

import json

import numpy as np
import pytest

import keras_tokenlearner as kt
from keras_tokenlearner.data.preprocessing import preprocess_image
from keras_tokenlearner.models import VisionTransformer
from keras_tokenlearner.presets.addresses import parse_address
from keras_tokenlearner.presets.config_json import read_statement
from keras_tokenlearner.presets.hub import fetch_files
from keras_tokenlearner.weights import plan_of
from keras_tokenlearner.weights.transformers_json import of_transformers
from tests.skips import peer
from tests.weights.foreign import close, fill, outputs

pytestmark = pytest.mark.peers

ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 8,
    "intermediate_size": 48,
}
SIZES = {**ENCODER, "image_size": 32}
DINOV2 = {name: value for name, value in SIZES.items() if name != "intermediate_size"}
DINOV2 |= {"mlp_ratio": 2}
VIDEO = {**ENCODER, "image_size": 24, "num_frames": 4}
VJEPA2 = {
    **{name: value for name, value in ENCODER.items() if name != "intermediate_size"},
    "hidden_size": 48,
    "mlp_ratio": 1.5,
    "crop_size": 24,
    "frames_per_clip": 4,
    "pred_hidden_size": 24,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
}
FLAT = {**ENCODER, "num_patches": 16}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "vocab_size": 99,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LABELS = {"num_labels": 5}


def pair(sizes):
    return {"vision_config": sizes, "text_config": TEXT}


# Model, config and its arguments.
MODELS = {
    "vit": ("ViTForImageClassification", "ViTConfig", SIZES | LABELS),
    "vit_pooler": ("ViTModel", "ViTConfig", SIZES),
    "deit": ("DeiTForImageClassification", "DeiTConfig", SIZES | LABELS),
    "deit_pooler": ("DeiTModel", "DeiTConfig", SIZES),
    "deit_distilled": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", SIZES | LABELS),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Config", DINOV2 | LABELS),
    "dinov2_features": ("Dinov2Model", "Dinov2Config", DINOV2),
    "dinov2_registers": (
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        DINOV2 | LABELS | {"num_register_tokens": 3},
    ),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViTConfig", SIZES | {"num_register_tokens": 2}),
    "dinov3_no_registers": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        SIZES | {"num_register_tokens": 0},
    ),
    "dinov3_gated": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        SIZES
        | {"use_gated_mlp": True, "hidden_act": "silu", "rope_theta": 50.0}
        | {"num_register_tokens": 1},
    ),
    "clip": ("CLIPVisionModel", "CLIPVisionConfig", SIZES),
    "clip_pair": ("CLIPModel", "CLIPConfig", pair(SIZES)),
    "clip_classifier": ("CLIPForImageClassification", "CLIPConfig", pair(SIZES) | LABELS),
    "siglip": ("SiglipVisionModel", "SiglipVisionConfig", SIZES),
    "siglip_pair": ("SiglipModel", "SiglipConfig", pair(SIZES)),
    "siglip_classifier": ("SiglipForImageClassification", "SiglipConfig", pair(SIZES) | LABELS),
    "siglip2": ("Siglip2VisionModel", "Siglip2VisionConfig", FLAT),
    "siglip2_pair": ("Siglip2Model", "Siglip2Config", pair(FLAT)),
    "aimv2": ("Aimv2VisionModel", "Aimv2VisionConfig", SIZES),
    "aimv2_biases": (
        "Aimv2VisionModel",
        "Aimv2VisionConfig",
        SIZES | {"qkv_bias": True, "mlp_bias": True},
    ),
    "aimv2_pair": ("Aimv2Model", "Aimv2Config", pair(SIZES)),
    "vivit": (
        "VivitForVideoClassification",
        "VivitConfig",
        VIDEO | LABELS | {"tubelet_size": [2, 8, 8]},
    ),
    "vivit_pooler": ("VivitModel", "VivitConfig", VIDEO | {"tubelet_size": [2, 8, 8]}),
    "videomae": (
        "VideoMAEForVideoClassification",
        "VideoMAEConfig",
        VIDEO | LABELS | {"tubelet_size": 2},
    ),
    "videomae_features": ("VideoMAEModel", "VideoMAEConfig", VIDEO | {"tubelet_size": 2}),
    "vjepa2": ("VJEPA2Model", "VJEPA2Config", VJEPA2),
}


VIDEOS = ("vivit", "videomae", "vjepa2")


def theirs(name):
    transformers = peer("transformers")
    model, config, arguments = MODELS[name]
    return fill(getattr(transformers, model)(getattr(transformers, config)(**arguments)))


def flat_patches(pixels, edge=8):
    """Return images as SigLIP 2 takes them: patches, their mask, and the grid."""
    import torch

    count, _, height, width = pixels.shape
    grid = (height // edge, width // edge)
    patches = pixels.permute(0, 2, 3, 1).reshape(count, grid[0], edge, grid[1], edge, 3)
    patches = patches.permute(0, 1, 3, 2, 4, 5).reshape(count, grid[0] * grid[1], -1)
    mask = torch.ones(patches.shape[:2], dtype=torch.long)
    return patches, mask, torch.tensor([grid] * count)


def expected(name, module, images, **arguments):
    """Return logits of transformers, or else `pooler_output`, or else the mean of the tokens."""
    import torch

    pixels = torch.from_numpy(np.moveaxis(images / 127.5 - 1, -1, -3).copy())
    if name.endswith("_pair"):
        module = module.vision_model
    inputs = flat_patches(pixels) if name.startswith("siglip2") else (pixels,)
    with torch.no_grad():
        arguments |= {"skip_predictor": True} if name == "vjepa2" else {}
        found = module(*inputs, **arguments)
    if "logits" in found:
        return found.logits.numpy()
    if "pooler_output" in found:
        return found.pooler_output.numpy().reshape(len(images), -1)
    return found.last_hidden_state.mean(1).numpy()


@pytest.mark.parametrize("name", MODELS)
def test_transformers_preset_gives_the_outputs_of_transformers(name, tmp_path):
    module = theirs(name)
    module.save_pretrained(tmp_path)
    pixels = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(pixels))
    classifies = "Classification" in MODELS[name][0]
    model = kt.from_preset(tmp_path, **({"classifier_activation": None} if classifies else {}))
    size = (4, 24, 24, 3) if name.startswith(VIDEOS) else (32, 32, 3)
    assert model.input_shape[1:] == size
    images = np.random.default_rng(2).integers(0, 256, (2, *size)).astype("float32")
    close(outputs(model, images), expected(name, module, images))


def test_transformers_preset_of_an_image_size_not_divisible_by_patches_keeps_the_size(tmp_path):
    transformers = peer("transformers")
    config = transformers.ViTConfig(**SIZES | LABELS | {"image_size": 37})
    module = fill(transformers.ViTForImageClassification(config))
    module.save_pretrained(tmp_path)
    pixels = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(pixels))
    model = kt.from_preset(tmp_path, classifier_activation=None)
    assert model.input_shape[1:] == (37, 37, 3)
    images = np.random.default_rng(2).integers(0, 256, (2, 37, 37, 3)).astype("float32")
    close(outputs(model, images), expected("vit", module, images))


@pytest.mark.parametrize(
    "name", ["vit", "siglip_pair", "clip", "dinov2", "dinov2_registers", "dinov3"]
)
def test_transformers_preset_has_the_size_of_its_processor(name, tmp_path):
    """DINOv2 has positions for images of 518 pixels, and crops images to 224 pixels."""
    module = theirs(name)
    module.save_pretrained(tmp_path)
    edge = 16  # the positions are for 32 pixels
    pixels = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "crop_size": edge, "size": 2 * edge}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(pixels))
    classifies = "Classification" in MODELS[name][0]
    model = kt.from_preset(tmp_path, **({"classifier_activation": None} if classifies else {}))
    assert model.input_shape[1:] == (edge, edge, 3)
    assert model.preprocessing.size == (edge, edge) and model.preprocessing.crop_fraction == 0.5
    images = np.random.default_rng(2).integers(0, 256, (2, edge, edge, 3)).astype("float32")
    given = {} if "dino" in name else {"interpolate_pos_encoding": True}
    close(outputs(model, images), expected(name, module, images, **given))


def test_siglip2_preset_on_another_grid_gives_the_outputs_of_transformers(tmp_path):
    module = theirs("siglip2")
    module.save_pretrained(tmp_path)
    for size in ((24, 40, 3), (16, 16, 3)):
        model = kt.from_preset(tmp_path, input_shape=size)
        images = np.random.default_rng(2).integers(0, 256, (2, *size)).astype("float32")
        close(outputs(model, images), expected("siglip2", module, images))


@pytest.mark.parametrize(
    ("model", "config", "arguments", "missing"),
    [
        ("ViTModel", "ViTConfig", SIZES | {"pooler_act": "relu"}, "pooler .*activation"),
        ("Aimv2VisionModel", "Aimv2VisionConfig", SIZES | {"is_native": True}, "any size"),
        (
            "VideoMAEForVideoClassification",
            "VideoMAEConfig",
            VIDEO | {"use_mean_pooling": False, "tubelet_size": 2},
            "first patch",
        ),
        ("VJEPA2ForVideoClassification", "VJEPA2Config", VJEPA2, "pooler.cross_attention_layer"),
    ],
)
def test_unsupported_transformers_preset_raises_and_names_the_feature(
    model, config, arguments, missing, tmp_path
):
    transformers = peer("transformers")
    module = getattr(transformers, model)(getattr(transformers, config)(**arguments))
    module.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=missing):
        kt.from_preset(tmp_path)


def test_v_jepa_2_classifier_preset_without_top_gives_the_features_of_transformers(tmp_path):
    transformers = peer("transformers")
    module = transformers.VJEPA2ForVideoClassification(transformers.VJEPA2Config(**VJEPA2))
    fill(module).save_pretrained(tmp_path)
    model = kt.from_preset(tmp_path, include_top=False, normalization="half")
    images = np.random.default_rng(2).integers(0, 256, (2, 4, 24, 24, 3)).astype("float32")
    close(outputs(model, images), expected("vjepa2", module.vjepa2, images))


SQUARE = {"size": {"height": 48, "width": 48}, "crop_size": {"height": 32, "width": 32}}
SHORTEST = SQUARE | {"size": {"shortest_edge": 48}}
OLD = {"size": 48, "crop_size": 32}  # files of old releases


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        *((kind, sizes) for kind in ("DeiT", "CLIP") for sizes in (SQUARE, SHORTEST, OLD)),
        ("ViT", {"size": {"height": 32, "width": 32}}),
        ("ViT", {"size": 32}),
    ],
    ids=str,
)
def test_transformers_preset_resizes_images_as_its_image_processor_does(kind, sizes, tmp_path):
    transformers = peer("transformers")
    shape = (32, 32, 3)
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**sizes, resample=3)
    said = processor.to_dict() | sizes | {"image_processor_type": f"{kind}ImageProcessor"}
    statement = of_transformers("test", {"model_type": kind.lower()}, said)
    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3)).astype("uint8")
    wanted = processor(image, return_tensors="np", do_normalize=False, do_rescale=False)
    found = preprocess_image(image, shape, statement.preprocessing)
    wanted = np.moveaxis(wanted["pixel_values"][0], 0, -1)
    np.testing.assert_allclose(found.astype("float32"), wanted, atol=1)


@pytest.mark.parametrize("kind", ["Image", "Video"])
def test_vivit_preset_preprocessing_equals_the_processor_of_transformers(kind, tmp_path):
    """ViViT's processors shift pixels before they normalise them."""
    transformers = peer("transformers")
    processor = getattr(transformers, f"Vivit{kind}Processor")(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}
    )
    theirs("vivit").save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model = kt.from_preset(tmp_path)
    video = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3)).astype("uint8")
    wanted = np.asarray(processor(list(video), return_tensors="pt")["pixel_values"][0])
    mean, std = (np.array(value) for value in (model.preprocessing.mean, model.preprocessing.std))
    found = (video / 255 - mean) / std
    np.testing.assert_allclose(found, np.moveaxis(wanted, 1, -1), atol=1e-5)


def processor(mean):
    return {"image_mean": [mean] * 3, "image_std": [0.5] * 3}


LEGACY = {"preprocessor_config.json": processor(0.1)}
VIDEOS_ALONE = {"video_preprocessor_config.json": processor(0.2)}
NESTED = {"processor_config.json": {"image_processor": processor(0.3), "processor_class": "P"}}
BOTH = {
    "processor_config.json": {"image_processor": processor(0.3), "video_processor": processor(0.4)}
}


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("model_type", "files", "mean"),
    [
        ("siglip", NESTED, 0.3),
        ("siglip", LEGACY | NESTED, 0.3),
        ("siglip", LEGACY | VIDEOS_ALONE | BOTH, 0.3),
        ("siglip", LEGACY | VIDEOS_ALONE, 0.1),
        ("siglip", LEGACY | {"processor_config.json": {"processor_class": "P"}}, 0.1),
        ("vivit", LEGACY | VIDEOS_ALONE | BOTH, 0.4),
        ("vivit", LEGACY | VIDEOS_ALONE, 0.2),
        ("vivit", LEGACY, 0.1),
    ],
)
def test_transformers_preset_with_several_processors_reads_the_first_as_transformers_does(
    model_type, files, mean, tmp_path
):
    for name, said in ({"config.json": {"model_type": model_type}} | files).items():
        (tmp_path / name).write_text(json.dumps(said))
    (tmp_path / "model.safetensors").touch()
    found = fetch_files("test", parse_address("test", tmp_path))
    assert read_statement("test", found.configs).preprocessing.mean == (mean,) * 3


@pytest.mark.parametrize("name", ["videomae", "videomae_features", "vivit"])
def test_video_module_of_transformers_in_memory_is_recognised_and_gives_its_outputs(name):
    module = theirs(name)
    heads, kind = VIDEO["num_attention_heads"], name.partition("_")[0]
    plan = plan_of(module, num_heads=heads, normalization="half", grid=(2, 3, 3))
    assert plan.source == f"huggingface_{kind}"
    top = {"classes": plan.classes, "classifier_activation": None}
    model = VisionTransformer(
        plan.config,
        (4, 24, 24, 3),
        preprocessing=plan.preprocessing,
        **(top if plan.classes else {"include_top": False, "pooling": "head"}),
    )
    assert not plan.load(model).left
    images = np.random.default_rng(2).integers(0, 256, (2, 4, 24, 24, 3)).astype("float32")
    close(outputs(model, images), expected(name, module, images))
