"""ViT of torchvision against torchvision itself, and checkpoints given with a wrong source."""

import keras
import numpy as np
import pytest

from keras_tokenlearner.models import VisionTransformer
from keras_tokenlearner.weights import plan_of
from keras_tokenlearner.weights.positions import resize_table
from keras_tokenlearner.weights.sources.source import IMAGENET
from tests.skips import peer
from tests.weights.foreign import augreg_entries, close, fill, normalised, outputs, pixels

pytestmark = pytest.mark.once("torch")


def logits_model(plan, image=(32, 32), **changes):
    return VisionTransformer(
        plan.config_with(changes),
        input_shape=(*image, 3),
        classes=plan.classes,
        classifier_activation=None,
        preprocessing=plan.preprocessing,
    )


@pytest.mark.every_backend
@pytest.mark.peers
def test_torchvision_weights_give_the_logits_of_torchvision():
    models = peer("torchvision").models
    sizes = {"patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 48}
    module = fill(models.VisionTransformer(image_size=32, num_classes=5, **sizes))
    plan = plan_of(module, num_heads=2)
    assert plan.source == "torchvision" and plan.classes == 5
    model = logits_model(plan)
    report = plan.load(model)
    assert not report.left and not report.unused
    images = pixels()
    expected = module(normalised(images, *IMAGENET)).detach().numpy()
    close(outputs(model, images), expected)


@pytest.mark.peers
def test_torchvision_positions_after_resizing_equal_the_positions_of_torchvision():
    models = peer("torchvision").models
    sizes = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 48}
    module = fill(models.VisionTransformer(image_size=40, num_classes=5, **sizes))
    plan = plan_of(module, num_heads=2)
    for size in (8, 16, 24, 72):
        model = logits_model(plan, (size, size))
        plan.load(model)
        state = dict(module.state_dict())
        interpolate = models.vision_transformer.interpolate_embeddings
        wanted = interpolate(size, 8, state)["encoder.pos_embedding"][0, 1:].numpy()
        found = keras.ops.convert_to_numpy(model.get_layer("positions").table)
        np.testing.assert_allclose(found.reshape(-1, 32), wanted, atol=1e-5)


@pytest.mark.every_backend
@pytest.mark.peers
def test_checkpoint_of_an_unknown_number_of_heads_raises():
    models = peer("torchvision").models
    sizes = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 64, "mlp_dim": 48}
    plan = plan_of(models.VisionTransformer(image_size=32, num_classes=5, **sizes))
    with pytest.raises(ValueError, match="num_heads=.* 1"):
        plan.config  # noqa: B018


@pytest.mark.parametrize(
    ("names", "given", "right"),
    [
        (("patch_embed.proj.weight", "blocks.0.ls1.gamma", "mask_token"), "timm", "dinov2"),
        (
            ("embeddings.patch_embeddings.projection.weight", "encoder.layer.0.layer_scale1.l"),
            "huggingface_vit",
            "huggingface_dinov2",
        ),
        (
            ("embeddings.patch_embeddings.projection.weight", "embeddings.distillation_token"),
            "huggingface_vit",
            "huggingface_deit",
        ),
        (
            (
                "vision_model.embeddings.patch_embedding.weight",
                "vision_model.embeddings.class_embedding",
                "vision_model.pre_layrnorm.weight",
                "vision_model.post_layernorm.weight",
            ),
            "huggingface_siglip",
            "huggingface_clip",
        ),
    ],
)
def test_checkpoint_of_another_source_raises_and_names_that_source(names, given, right):
    entries = {name: np.zeros((3, 3, 2, 2), np.float32) for name in names}
    with pytest.raises(ValueError, match=f"'{right}'.*source='{given}'"):
        plan_of(entries, given)


def test_checkpoint_of_an_unknown_source_raises_and_lists_its_entries():
    with pytest.raises(ValueError, match="'augreg'.* a, b.*source=None"):
        plan_of({"a": np.zeros(1), "b": np.zeros(1)})


def test_dinov2_positions_are_resized_by_the_rule_of_meta():
    """Meta's own rule: scale factors of the new size plus 0.1, without antialiasing."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")
    table = np.random.default_rng(0).normal(size=(7, 7, 4)).astype("float32")
    for grid in ((3, 5), (16, 9), (7, 12)):
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(table.transpose(2, 0, 1))[None],
            scale_factor=tuple((size + 0.1) / 7 for size in grid),
            mode="bicubic",
        )[0].permute(1, 2, 0)
        assert expected.shape[:2] == grid
        found = resize_table(table, grid, "bicubic_offset")
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_checkpoint_whose_positions_fit_two_grids_raises():
    entries = augreg_entries(grid=(2, 8))
    model = logits_model(plan_of(entries), image=(16, 64))
    with pytest.raises(ValueError, match=r"`grid`.*\(2, 8\) or \(4, 4\).*grid=None"):
        plan_of(entries).load(model)
    report = plan_of(entries, grid=(2, 8)).load(model)
    assert not report.resized
