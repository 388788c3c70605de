"""ViT, DINOv2 and CLIP of Hugging Face transformers, against that library itself."""

import json
from pathlib import Path

import pytest

import keras_tokenlearner as kt
from keras_tokenlearner.models import VisionTransformer
from keras_tokenlearner.weights import load, plan_of
from keras_tokenlearner.weights.sources.source import CLIP, HALF, IMAGENET
from tests.skips import peer
from tests.weights.foreign import build, close, fill, normalised, outputs, pixels

pytestmark = pytest.mark.peers

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
IMAGES = [(32, 32), (64, 24)]


def theirs(name, **changes):
    """Return a tiny model of transformers, with random weights."""
    transformers = peer("transformers")
    start = name.split("For")[0].removesuffix("WithProjection")
    config = start.removesuffix("Model") + "Config"
    sizes = SIZES | ({} if "Dinov2" in name else {"intermediate_size": 48}) | changes
    return fill(getattr(transformers, name)(getattr(transformers, config)(**sizes)))


def forms(module, tmp_path):
    """Return a model in memory, and the paths of its weights in two file formats."""
    import torch

    peer("safetensors")
    module.save_pretrained(tmp_path)
    torch.save(module.state_dict(), tmp_path / "model.bin")
    return module, tmp_path / "model.safetensors", tmp_path / "model.bin"


@pytest.mark.parametrize("image", IMAGES, ids=str)
def test_huggingface_vit_gives_the_logits_of_transformers(image, tmp_path):
    module = theirs("ViTForImageClassification", num_labels=5)
    images = pixels(image)
    expected = module(normalised(images), interpolate_pos_encoding=True).logits.detach().numpy()
    for form in forms(module, tmp_path):
        model = build("huggingface_vit", form, image=image)
        report = load(model, "huggingface_vit", form, normalization="half")
        assert not report.left and not report.unused
        close(outputs(model, images), expected)


@pytest.mark.parametrize("name", ["ViT", "DeiT"])
def test_huggingface_module_in_memory_keeps_its_own_settings(name):
    settings = {"layer_norm_eps": 1e-3, "hidden_act": "gelu_new", "id2label": {0: "b", 1: "a"}}
    module = theirs(f"{name}ForImageClassification", **settings)
    plan = plan_of(module, normalization="half")
    assert plan.class_names == ("b", "a") and plan.grid == (4, 4)
    model = VisionTransformer(
        plan.config,
        (32, 32, 3),
        classes=2,
        classifier_activation=None,
        preprocessing=plan.preprocessing,
    )
    assert not plan.load(model).left
    images = pixels()
    close(outputs(model, images), module(normalised(images)).logits.detach().numpy())


def test_huggingface_module_with_an_unknown_activation_needs_the_argument_or_a_model(tmp_path):
    module = theirs("ViTForImageClassification", num_labels=5, hidden_act="relu")
    with pytest.raises(ValueError, match="plan_of: .* module .*`activation`.*'relu'") as caught:
        plan_of(module, normalization="half").config  # noqa: B018
    assert "file" not in str(caught.value)
    plan = plan_of(module, normalization="half", activation="relu")
    model = VisionTransformer(
        plan.config,
        (32, 32, 3),
        classes=5,
        classifier_activation=None,
        preprocessing=plan.preprocessing,
    )
    assert not load(model, None, module, normalization="half").left
    images = pixels()
    expected = module(normalised(images)).logits.detach().numpy()
    close(outputs(model, images), expected)
    module.save_pretrained(tmp_path)
    given = {"normalization": "half", "classifier_activation": None}
    with pytest.raises(ValueError, match="from_preset.*`activation`.*'relu'"):
        kt.from_preset(tmp_path, **given)
    close(outputs(kt.from_preset(tmp_path, activation="relu", **given), images), expected)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_huggingface_sharded_vit_gives_the_logits_of_transformers(kind, tmp_path):
    """The shards have the format of current releases of transformers, or of releases before 5."""
    module = theirs("ViTForImageClassification", num_labels=5)
    peer("safetensors")
    module.save_pretrained(tmp_path, max_shard_size="20KB")
    index = tmp_path / "model.safetensors.index.json"
    if kind == "bin":
        import torch
        from safetensors.torch import load_file

        files = json.loads(index.read_text())
        for part in tmp_path.glob("*.safetensors"):
            torch.save(load_file(part), part.with_suffix(".bin"))
        places = files["weight_map"]
        files["weight_map"] = {name: Path(places[name]).stem + ".bin" for name in places}
        index = tmp_path / "pytorch_model.bin.index.json"
        index.write_text(json.dumps(files))
    assert len(set(json.loads(index.read_text())["weight_map"].values())) > 2
    model = build("huggingface_vit", index)
    report = load(model, "huggingface_vit", index, normalization="half")
    assert not report.left and not report.unused
    images = pixels()
    close(outputs(model, images), module(normalised(images)).logits.detach().numpy())


def test_huggingface_vit_without_head_gives_tokens_and_ignores_the_pooler():
    module = theirs("ViTModel")
    model = build("huggingface_vit", module, include_top=False)
    report = load(model, "huggingface_vit", module, normalization="half")
    assert report.unused == ("pooler.dense.weight", "pooler.dense.bias")
    images = pixels()
    expected = module(normalised(images, *HALF)).last_hidden_state.detach().numpy()
    close(outputs(model, images), expected)


@pytest.mark.parametrize("image", IMAGES, ids=str)
@pytest.mark.parametrize("name", ["ForImageClassification", "ForImageClassificationWithTeacher"])
def test_huggingface_deit_gives_the_logits_of_transformers(image, name, tmp_path):
    module = theirs(f"DeiT{name}", num_labels=5)
    images = pixels(image)
    found = module(normalised(images, *IMAGENET), interpolate_pos_encoding=True)
    for form in forms(module, tmp_path):
        model = build("huggingface_deit", form, image=image)
        report = load(model, "huggingface_deit", form)
        assert not report.left and not report.unused
        close(outputs(model, images), found.logits.detach().numpy())


@pytest.mark.parametrize("registers", [0, 3])
def test_huggingface_dinov2_with_swiglu_gives_the_logits_of_transformers(registers, tmp_path):
    name = f"Dinov2{'WithRegisters' * bool(registers)}ForImageClassification"
    changes = {"num_register_tokens": registers} if registers else {}
    module = theirs(name, mlp_ratio=3, use_swiglu_ffn=True, num_labels=5, **changes)
    images = pixels()
    expected = module(normalised(images, *IMAGENET)).logits.detach().numpy()
    for form in forms(module, tmp_path):
        model = build("huggingface_dinov2", form, mlp_dim=64)
        load(model, "huggingface_dinov2", form)
        close(outputs(model, images), expected)


@pytest.mark.parametrize("image", IMAGES, ids=str)
@pytest.mark.parametrize("registers", [0, 3])
def test_huggingface_dinov2_gives_the_tokens_of_transformers(image, registers, tmp_path):
    name = "Dinov2WithRegistersModel" if registers else "Dinov2Model"
    changes = {"num_register_tokens": registers} if registers else {}
    module = theirs(name, mlp_ratio=2, **changes)
    images = pixels(image)
    expected = module(normalised(images, *IMAGENET)).last_hidden_state.detach().numpy()
    for form in forms(module, tmp_path):
        source = "huggingface_dinov2"
        model = build(source, form, image=image, include_top=False, mlp_dim=64)
        report = load(model, source, form)
        assert report.unused == ("embeddings.mask_token",) and not report.left
        close(outputs(model, images), expected)


@pytest.mark.parametrize("image", IMAGES, ids=str)
def test_huggingface_clip_gives_the_features_of_transformers(image, tmp_path):
    module = theirs("CLIPVisionModel")
    images = pixels(image)
    found = module(normalised(images, *CLIP), interpolate_pos_encoding=True)
    for form in forms(module, tmp_path):
        model = build("huggingface_clip", form, image, False, activation="quick_gelu")
        report = load(model, "huggingface_clip", form)
        assert not report.left and not report.unused
        close(outputs(model, images)[:, 0], found.pooler_output.detach().numpy())


def test_huggingface_clip_with_its_text_model_gives_the_features_of_transformers():
    transformers = peer("transformers")
    config = transformers.CLIPConfig(
        vision_config=SIZES | {"intermediate_size": 48},
        text_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
        | {"num_attention_heads": 1, "vocab_size": 99},
    )
    module = fill(transformers.CLIPModel(config))
    model = build("huggingface_clip", module, include_top=False, activation="quick_gelu")
    report = load(model, "huggingface_clip", module)
    assert not report.left and "visual_projection.weight" in report.unused
    images = pixels()
    found = module.vision_model(normalised(images, *CLIP)).pooler_output
    close(outputs(model, images)[:, 0], found.detach().numpy())


def test_clip_projection_as_wide_as_the_classes_becomes_the_head():
    module = theirs("CLIPVisionModelWithProjection", projection_dim=7)
    plan = plan_of(module, activation="quick_gelu", num_heads=2)
    assert plan.classes is None and plan.projection == 7
    model = VisionTransformer(
        plan.config,
        input_shape=(32, 32, 3),
        classes=7,
        classifier_activation=None,
        preprocessing=plan.preprocessing,
    )
    assert not plan.load(model).left
    images = pixels()
    expected = module(normalised(images, *CLIP)).image_embeds.detach().numpy()
    close(outputs(model, images), expected)


def test_clip_preset_with_as_many_classes_as_its_projection_gets_a_new_head(tmp_path):
    theirs("CLIPVisionModelWithProjection", projection_dim=7).save_pretrained(tmp_path)
    named = {"hidden_dim": 32, "num_layers": 2, "num_heads": 2, "mlp_dim": 48}
    named |= {"activation": "quick_gelu", "class_token": True, "input_shape": (32, 32, 3)}
    for build_it in (
        lambda: kt.from_preset(tmp_path, classes=7),
        lambda: kt.create_model("vit_pico8", weights=tmp_path, classes=7, **named),
    ):
        with pytest.warns(UserWarning, match="reset .*: head/kernel"):
            model = build_it()
        assert model.classes == 7 and not model.head.get_weights()[0].any()


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_huggingface_clip_activation_follows_its_config(activation, tmp_path):
    module = theirs("CLIPVisionModel", hidden_act=activation)
    module.save_pretrained(tmp_path)
    model = kt.from_preset(tmp_path, input_shape=(32, 32, 3))
    assert model.config.activation == activation
    images = pixels()
    expected = module(normalised(images, *CLIP)).pooler_output.detach().numpy()
    close(outputs(model, images), expected)
