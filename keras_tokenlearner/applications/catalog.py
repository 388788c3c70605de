"""The table of named models. A new variant is a new row."""

from dataclasses import dataclass
from typing import Unpack

from keras_tokenlearner.models import VisionTransformerConfig, X2Plus1DConfig
from keras_tokenlearner.models.config_fields import VisionTransformerFields, X2Plus1DFields

# Hidden size, heads and blocks of each size. S, B and L are from section 3.1 of the paper. Ti and H
# are from DeiT and ViT. SO400M is from Alabdulmohsin et al., "Getting ViT in Shape", 2023. nano and
# pico are our sizes, for laptops and for tests.
SIZES: dict[str, VisionTransformerFields] = {
    "pico": {"hidden_dim": 32, "num_heads": 2, "num_layers": 2},
    "nano": {
        "hidden_dim": 96,
        "num_heads": 3,
        "num_layers": 6,
        "stem": ((48, 2), (64, 1), (96, 2)),
        "positions": "sincos",
    },
    "S": {"hidden_dim": 384, "num_heads": 6, "num_layers": 12},
    "B": {"hidden_dim": 768, "num_heads": 12, "num_layers": 12},
    "L": {"hidden_dim": 1024, "num_heads": 16, "num_layers": 24},
    "Ti": {"hidden_dim": 192, "num_heads": 3, "num_layers": 12},
    "H": {"hidden_dim": 1280, "num_heads": 16, "num_layers": 32},
    "SO400M": {"hidden_dim": 1152, "num_heads": 16, "num_layers": 27, "mlp_dim": 4304},
}


# Sizes of X(2+1)D. M is the size of X3D-M, the default of the config. pico is our own size.
X2PLUS1D_SIZES: dict[str, X2Plus1DFields] = {
    "pico": {
        "stem_channels": 8,
        "stage_channels": (8, 16),
        "inner_channels": (16, 32),
        "stage_units": (1, 3),
        "head_channels": 64,
    },
    "m": {},
}
# Further fields of these sizes for models with learned tokens. Other models refuse these fields.
X2PLUS1D_TOKENS: dict[str, X2Plus1DFields] = {"pico": {"num_tokens": 4, "replaced": (1, 2)}}


@dataclass(frozen=True)
class CatalogEntry:
    """A named model: its config and its default input shape.

    The type of the config selects `VisionTransformer` or `X2Plus1D`.

    Example:

    >>> CATALOG["tokenlearner_b16_8at6"].config.num_tokens
    8
    """

    config: VisionTransformerConfig | X2Plus1DConfig
    input_shape: tuple[int, ...]


def _vit(
    size: str,
    patch: int,
    input_shape: tuple[int, ...],
    **changes: Unpack[VisionTransformerFields],
) -> CatalogEntry:
    patch_size = (patch, patch) if len(input_shape) == 3 else (2, patch, patch)
    arguments: VisionTransformerFields = {**SIZES[size], "patch_size": patch_size, **changes}
    return CatalogEntry(VisionTransformerConfig(**arguments), input_shape)


def _learner(
    size: str,
    patch: int,
    input_shape: tuple[int, ...],
    num_tokens: int,
    at: int,
    /,
    **changes: Unpack[VisionTransformerFields],
) -> CatalogEntry:
    arguments: VisionTransformerFields = {
        "reducer": "token_learner",
        "num_tokens": num_tokens,
        "at": at,
        **changes,
    }
    return _vit(size, patch, input_shape, **arguments)


def _x2plus1d(size: str, input_shape: tuple[int, ...], unit: str = "conv2d+conv1d") -> CatalogEntry:
    tokens = X2PLUS1D_TOKENS.get(size, {}) if "tokenlearner" in unit else {}
    arguments: X2Plus1DFields = {**X2PLUS1D_SIZES[size], **tokens, "unit": unit}
    return CatalogEntry(X2Plus1DConfig(**arguments), input_shape)


_28 = (28, 28, 1)
_32 = (32, 32, 3)
_224 = (224, 224, 3)
_384 = (384, 384, 3)
_512 = (512, 512, 3)
_VIDEO = (32, 224, 224, 3)
_FUSER = "token_fuser"
_CLIP = (8, 32, 32, 3)
_64_FRAMES = (64, 256, 256, 3)

# A transformer's name has family, size and patch size. An unusual number of blocks follows. In
# `8at6`, 8 tokens are learned after 6 blocks. An X(2+1)D's name has family, size and the module of
# the last units. The modules `conv2d+conv1d` and `conv2d+tokenlearner` are omitted from names.
CATALOG = {
    "vit_pico8": _vit("pico", 8, _32),
    "vit_nano4": _vit("nano", 4, _28),
    "vit_s32": _vit("S", 32, _384),
    "vit_b32": _vit("B", 32, _384),
    "vit_b16": _vit("B", 16, _384),
    "vit_l16": _vit("L", 16, _512),
    # Sizes of published checkpoints, each also with a TokenLearner after half of the blocks.
    "vit_ti16": _vit("Ti", 16, _224),
    "vit_s16": _vit("S", 16, _224),
    "vit_s14": _vit("S", 14, _224),
    "vit_b14": _vit("B", 14, _224),
    "vit_b8": _vit("B", 8, _224),
    "vit_l14": _vit("L", 14, _224),
    "vit_h14": _vit("H", 14, _224),
    "vit_so400m14": _vit("SO400M", 14, _224),
    "tokenlearner_ti16_8at6": _learner("Ti", 16, _224, 8, 6),
    "tokenlearner_s16_8at6": _learner("S", 16, _224, 8, 6),
    "tokenlearner_s14_8at6": _learner("S", 14, _224, 8, 6),
    # A DINOv2 ViT-S/14 with registers, retrofitted: `benchmarks/retrofit_ablation.py`.
    "tokenlearner_s14_16at5": _learner(
        "S",
        14,
        (112, 112, 3),
        16,
        5,
        token_attention="mlp",
        token_start="grid",
        proportional_attention=True,
        class_token=True,
        register_tokens=4,
        layer_scale=1.0,
        activation="gelu",
    ),
    "tokenlearner_b14_8at6": _learner("B", 14, _224, 8, 6),
    "tokenlearner_b8_8at6": _learner("B", 8, _224, 8, 6),
    "tokenlearner_l14_16at12": _learner("L", 14, _224, 16, 12),
    "tokenlearner_h14_16at16": _learner("H", 14, _224, 16, 16),
    "tokenlearner_so400m14_16at13": _learner("SO400M", 14, _224, 16, 13),
    "tokenlearner_pico8_4at1": _learner("pico", 8, _32, 4, 1),
    "tokenlearner_pico8_4at1_fuser": _learner("pico", 8, _32, 4, 1, fuser=_FUSER),
    "tokenlearner_nano4_8at2": _learner("nano", 4, _28, 8, 2, token_attention="mlp"),
    "tokenlearner_s32_8at6": _learner("S", 32, _384, 8, 6),
    "tokenlearner_s32_22_8at11": _learner("S", 32, _384, 8, 11, num_layers=22),
    "tokenlearner_b32_8at6": _learner("B", 32, _384, 8, 6),
    "tokenlearner_b32_20_8at10": _learner("B", 32, _384, 8, 10, num_layers=20),
    "tokenlearner_b16_8at6": _learner("B", 16, _384, 8, 6),
    "tokenlearner_b16_8at6_fuser": _learner("B", 16, _384, 8, 6, fuser=_FUSER),
    "tokenlearner_b16_16at6": _learner("B", 16, _384, 16, 6),
    "tokenlearner_b16_16at6_fuser": _learner("B", 16, _384, 16, 6, fuser=_FUSER),
    "tokenlearner_b16_21_8at10": _learner("B", 16, _384, 8, 10, num_layers=21),
    "tokenlearner_b16_21_16at10": _learner("B", 16, _384, 16, 10, num_layers=21),
    "tokenlearner_l16_16at12": _learner("L", 16, _512, 16, 12),
    "tokenlearner_l16_16at12_fuser": _learner("L", 16, _512, 16, 12, fuser=_FUSER),
    "tokenlearner_l16_8at18": _learner("L", 16, _512, 8, 18),
    "tokenlearner_l16_8at18_fuser": _learner("L", 16, _512, 8, 18, fuser=_FUSER),
    "tokenlearner_l16_30_8at18": _learner("L", 16, _512, 8, 18, num_layers=30),
    "tokenlearner_l16_35_16at12": _learner("L", 16, _512, 16, 12, num_layers=35),
    "tokenlearner_l14_35_16at18": _learner("L", 14, _512, 16, 18, num_layers=35),
    "tokenlearner_l10_35_16at18": _learner("L", 10, _512, 16, 18, num_layers=35),
    "tokenlearner_l10_35_16at18_fuser": _learner(
        "L", 10, _512, 16, 18, num_layers=35, fuser=_FUSER
    ),
    "tokenlearner_l8_35_16at18": _learner("L", 8, _512, 16, 18, num_layers=35),
    "vivit_b16": _vit("B", 16, _VIDEO, class_token=True),
    "tokenlearner_vivit_b16_8at6": _learner("B", 16, _VIDEO, 8, 6),
    "vivit_l16": _vit("L", 16, _VIDEO, class_token=True),
    "vivit_l16_320": _vit("L", 16, (32, 320, 320, 3), class_token=True),
    "tokenlearner_vivit_l16_16at12": _learner("L", 16, _VIDEO, 16, 12),
    "tokenlearner_vivit_l16_30_8at18": _learner("L", 16, _VIDEO, 8, 18, num_layers=30),
    "tokenlearner_vivit_l14_35_16at18": _learner("L", 14, _VIDEO, 16, 18, num_layers=35),
    "tokenlearner_vivit_l10_35_16at18": _learner("L", 10, _VIDEO, 16, 18, num_layers=35),
    "tokenlearner_vivit_l10_35_16at18_fuser": _learner(
        "L", 10, _VIDEO, 16, 18, num_layers=35, fuser=_FUSER
    ),
    "x2plus1d_pico": _x2plus1d("pico", _CLIP),
    "x2plus1d_m": _x2plus1d("m", _64_FRAMES),
    "x2plus1d_m_spatial_temporal": _x2plus1d("m", _64_FRAMES, "spatial+temporal"),
    "tokenlearner_x2plus1d_pico": _x2plus1d("pico", _CLIP, "conv2d+tokenlearner"),
    "tokenlearner_x2plus1d_m": _x2plus1d("m", _64_FRAMES, "conv2d+tokenlearner"),
    "tokenlearner_x2plus1d_m_without_conv2d": _x2plus1d("m", _64_FRAMES, "tokenlearner"),
}
