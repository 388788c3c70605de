"""A fixed sample of timm's ViTs. `python -m tests.presets.timm_rows` compares all ViTs."""

import pytest

from tests.presets.timm_rows import judge, rows
from tests.skips import peer

pytestmark = pytest.mark.peers

ROWS = {row["name"]: row for row in rows()}
EXACT = [
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "deit_tiny_distilled_patch16_224.fb_in1k",
    "deit_tiny_patch16_224.fb_in1k",
    "vit_small_patch14_reg4_dinov2.lvd142m",
    "vit_base_patch32_clip_quickgelu_224.openai",
    "vit_base_patch32_clip_224.laion2b_ft_in12k_in1k",
    "vit_base_patch16_siglip_gap_224.v2_webli",
]
REFUSED = [
    ("vit_relpos_medium_patch16_224.sw_in1k", "RelPosAttention"),
    ("beit_base_patch16_224.in22k_ft_in22k", "relative positions"),
    ("vit_tiny_r_s16_p8_224.augreg_in21k", "HybridEmbed"),
    ("vit_large_patch16_sapiens2.fb", "grouped attention"),  # in the upper blocks only
]


@pytest.mark.parametrize("name", EXACT)
def test_timm_preset_gives_the_outputs_of_timm(name):
    peer("timm")
    verdict, what = judge(ROWS[name])
    assert verdict == "exact", what


@pytest.mark.parametrize(("name", "feature"), REFUSED)
def test_unsupported_timm_preset_raises_and_names_the_feature(name, feature):
    peer("timm")
    verdict, what = judge(ROWS[name])
    assert verdict == "refused" and feature in what, (verdict, what)
