"""Families of ViTs compared with timm's models: each family is a config of our model.

`timm_families.config_of` maps timm's modules to the fields of the config.
`timm_families.weights_of` maps its weights. No checkpoint is read.
"""

import json

import keras
import numpy as np
import pytest

from keras_tokenlearner.models import VisionTransformer, VisionTransformerConfig, retrofit
from tests.models.timm_families import config_of, weights_of
from tests.skips import peer

pytestmark = pytest.mark.peers

# One row per kind of timm's published configurations, with smaller sizes.
ROWS = {
    "vit_base_patch16_siglip_224.webli": {},
    "vit_so400m_patch16_siglip_512.v2_webli": {"embed_dim": 72, "num_heads": 3},
    "vit_wee_patch16_reg1_gap_256.sbb_in1k": {},
    "vit_so150m2_patch16_reg1_gap_256.sbb_e200_in12k": {},
    "vit_pe_core_base_patch16_224.fb": {"attn_pool_num_heads": 2},
    "vit_pe_spatial_base_patch16_512.fb": {},
    "vit_pe_lang_gigantic_patch14_448.fb": {},
    "vit_small_patch16_dinov3.lvd1689m": {},
    "vit_small_plus_patch16_dinov3_qkvb.lvd1689m": {},
    "vit_base_patch16_sapiens2.fb": {"num_kv_heads": (4, 2)},
    "eva02_base_patch14_224.mim_in22k": {},
    "eva02_tiny_patch14_336.mim_in22k_ft_in1k": {},
    "eva02_base_patch16_clip_224.merged2b": {},
    "eva_giant_patch14_224.clip_ft_in1k": {},
    "vit_base_patch16_rope_reg1_gap_256.sbb_in1k": {},
    "vit_small_patch16_rope_ape_224.naver_in1k": {},
    "vit_small_patch16_rope_mixed_224.naver_in1k": {},
    "aimv2_large_patch14_224.apple_pt": {},
    "beit3_base_patch16_224.in22k_ft_in1k": {},
    "vit_base_patch16_radio_v3.c_radio": {},
    "test_vit3.r160_in1k": {},
    "vit_base_patch16_224.augreg2_in21k_ft_in1k": {"global_pool": "max"},
}


def theirs(name, **changes):
    """Return a model of timm at small sizes, with random weights."""
    timm = peer("timm")
    import torch

    patch = 14 if "patch14" in name else 16
    sizes = {"embed_dim": 64, "num_heads": 4, "depth": 2, "img_size": (3 * patch, 4 * patch)}
    changes = {"num_kv_heads": (4, 4), **changes} if "sapiens2" in name else changes
    module = timm.create_model(name.split(".")[0], **{**sizes, "num_classes": 5, **changes})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
            parameter.normal_(0, scale, generator=generator)
    return module.eval()


def ours(module, **changes):
    """Return our model of logits with the config and weights of a model of timm."""
    config = VisionTransformerConfig(**config_of(module))
    model = VisionTransformer(
        VisionTransformerConfig(**json.loads(json.dumps(vars(config)))),
        (*module.patch_embed.img_size, 3),
        include_preprocessing=False,
        classifier_activation=None,
        classes=5,
        **changes,
    )
    given = weights_of(module)
    for weight in model.weights:
        weight.assign(given.pop(weight.path))
    behind = ("head/", "pooling/", "norm/") if "include_top" in changes else ()
    assert all(path.startswith(behind) for path in given), f"unused weights: {sorted(given)}"
    return model


def agree(found, expected, size=1e-5):
    expected = expected.detach().numpy()
    assert np.abs(found - expected).max() <= size * np.abs(expected).max()


@pytest.mark.parametrize("name", ROWS)
def test_timm_weights_of_each_vit_family_give_the_outputs_of_timm(name):
    import torch

    module = theirs(name, **ROWS[name])
    images = np.random.default_rng(0).normal(size=(2, *module.patch_embed.img_size, 3))
    images = images.astype("float32")
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2))
    agree(ours(module).predict(images, verbose=0), module(pixels))
    tokens = ours(module, include_top=False).predict(images, verbose=0)
    agree(tokens, module.forward_features(pixels))
    pooled = ours(module, include_top=False, pooling="head").predict(images, verbose=0)
    agree(pooled, module.forward_head(module.forward_features(pixels), pre_logits=True))


RETROFIT = [
    "vit_base_patch16_siglip_224.webli",
    "vit_small_patch16_dinov3.lvd1689m",
    "vit_small_patch16_rope_mixed_224.naver_in1k",
    "aimv2_large_patch14_224.apple_pt",
]


@pytest.mark.parametrize("name", RETROFIT)
def test_retrofit_of_timm_models_copies_their_weights_and_trains(name):
    model = ours(theirs(name, **ROWS[name]))
    images = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype("float32")
    for fuser in (None, "token_fuser"):
        student = retrofit(model, at=1, num_tokens=3, fuser=fuser)
        before = {
            weight.path: np.array(keras.ops.convert_to_numpy(weight)) for weight in student.weights
        }
        for weight in model.weights:
            if not weight.path.startswith("rotary"):
                np.testing.assert_array_equal(
                    before[weight.path], keras.ops.convert_to_numpy(weight)
                )
        student.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        loss = student.train_on_batch(images, np.arange(4))
        assert np.isfinite(loss)
        after = keras.ops.convert_to_numpy(student.blocks[0].mlp.output_dense.kernel)
        assert not np.array_equal(after, before["block_0/mlp/output/kernel"])
