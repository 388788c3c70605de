"""DINOv2's linear heads, which Meta publishes in files next to their backbones."""

import numpy as np
import pytest

import keras_tokenlearner as kt
from keras_tokenlearner.weights.sources.source import IMAGENET
from tests.skips import peer
from tests.weights.foreign import close, fill, normalised, outputs, pixels

pytestmark = pytest.mark.peers


@pytest.fixture
def files(tmp_path):
    """A backbone and its head, and the folder of their files under Meta's names."""
    timm = peer("timm")
    import torch

    backbone = timm.models.vision_transformer.VisionTransformer(
        img_size=24, patch_size=8, embed_dim=32, depth=2, num_heads=2, init_values=0.1,
        num_classes=0,
    )  # fmt: skip
    backbone, head = fill(backbone), fill(torch.nn.Linear(64, 5))
    state = backbone.state_dict() | {"mask_token": torch.zeros(1, 32)}
    torch.save(state, tmp_path / "dinov2_vits14_pretrain.pth")
    torch.save(head.state_dict(), tmp_path / "dinov2_vits14_linear_head.pth")
    return backbone, head, tmp_path


def expected(backbone, head):
    """Return the logits of Meta's `_LinearClassifierWrapper` with one layer, in numpy."""
    tokens = backbone.forward_features(normalised(pixels((24, 24)), *IMAGENET)).detach().numpy()
    both = np.concatenate([tokens[:, 0], tokens[:, 1:].mean(1)], axis=1)
    return both @ head.weight.detach().numpy().T + head.bias.detach().numpy()


def test_dinov2_preset_with_a_linear_head_in_its_folder_loads_the_head(files):
    backbone, head, folder = files
    path = folder / "dinov2_vits14_pretrain.pth"
    model = kt.from_preset(path, num_heads=2, classifier_activation=None)
    assert model.config.head_reads == "class_and_average"
    close(outputs(model, pixels((24, 24))), expected(backbone, head))
    features = kt.from_preset(path, num_heads=2, include_top=False, pooling="token")
    assert features.output_shape == (None, 32)


def test_dinov2_backbone_and_linear_head_in_one_file_give_the_logits_of_meta(files):
    backbone, head, folder = files
    import torch

    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    state |= {f"linear_head.{name}": value for name, value in head.state_dict().items()}
    state["backbone.mask_token"] = torch.zeros(1, 32)
    torch.save(state, folder / "classifier.pth")
    model = kt.from_preset(folder / "classifier.pth", num_heads=2, classifier_activation=None)
    close(outputs(model, pixels((24, 24))), expected(backbone, head))


def test_dinov2_linear_head_that_reads_four_blocks_raises(files):
    _, _, folder = files
    import torch

    head = torch.nn.Linear(5 * 32, 5)
    torch.save(head.state_dict(), folder / "dinov2_vits14_linear_head.pth")
    with pytest.raises(ValueError, match="several blocks"):
        kt.from_preset(folder / "dinov2_vits14_pretrain.pth", num_heads=2)
