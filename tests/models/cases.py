"""A case for every form of every config, at sizes that build in a second."""

from keras_tokenlearner.models import (
    VisionTransformer,
    VisionTransformerConfig,
    X2Plus1D,
    X2Plus1DConfig,
    bottleneck_module,
)
from tests.conformance import ModelCase

_SOFTMAX = "a constant added along the axis of a softmax does not change its output"
_IMAGE = {
    "input_shape": (16, 24, 3),
    "hidden_dim": 16,
    "num_layers": 2,
    "num_heads": 2,
    "patch_size": (4, 6),
    "mlp_dim": 24,
}
_VIDEO = {**_IMAGE, "input_shape": (5, 16, 24, 3), "patch_size": (2, 4, 6)}
X2PLUS1D = {
    "input_shape": (3, 10, 12, 3),
    "stem_channels": 6,
    "stage_channels": (8, 10),
    "inner_channels": (12, 16),
    "stage_units": (1, 2),
    "head_channels": 18,
}
_TOP = {"input_shape", "input_tensor", "include_top", "include_preprocessing", "pooling"}
_TOP |= {"classifier_activation"}


def transformer(**arguments):
    """Return a model from arguments of the config, mixed with arguments of `VisionTransformer`."""
    top = {name: arguments.pop(name) for name in _TOP & arguments.keys()}
    return VisionTransformer(VisionTransformerConfig(**arguments), classes=5, **top)


def video_network(unit="conv2d+conv1d", **changes):
    """Return an X(2+1)D from arguments of the config, mixed with arguments of `X2Plus1D`."""
    arguments = {**X2PLUS1D, **_of_parts(unit, changes.get("attention")), **changes}
    if unit != "conv2d+conv1d":
        arguments.setdefault("replaced", (1,))
    top = {name: arguments.pop(name) for name in _TOP & arguments.keys()}
    return X2Plus1D(X2Plus1DConfig(unit, **arguments), classes=5, **top)


def module(unit, **changes):
    """Return the bottleneck module of a unit."""
    config = X2Plus1DConfig(unit, **_of_parts(unit, changes.get("attention")), **changes)
    return bottleneck_module(config, (3, 4, 5, 8))


def _of_parts(unit, attention):
    """Return small values of the config fields that the parts of a unit use."""
    parts = {*unit.split("+")}
    heads = parts & {"spatial", "temporal", "joint"} or attention == "multi_head"
    tokens = {"num_tokens": 3} if "tokenlearner" in parts else {}
    return {**tokens, **({"num_heads": 2, "key_dim": 6} if heads else {})}


def _network(name, unit="conv2d+conv1d", **changes):
    return ModelCase(name, lambda: video_network(unit, **changes))


def _module(name, unit, **changes):
    return ModelCase(name, lambda: module(unit, **changes), pixels=False)


def _case(name, base=_IMAGE, still=(), pixels=True, **changes):
    arguments = {**base, **changes}
    if arguments.get("reducer") == "token_learner":
        arguments.setdefault("num_tokens", 3)
    key_bias = () if "qkv_bias" in arguments else ("key/bias",)
    endings = dict.fromkeys((*key_bias, *still), _SOFTMAX)
    return ModelCase(name, lambda: transformer(**arguments), endings, pixels)


def _learner(name, base=_IMAGE, **changes):
    return _case(name, base, reducer="token_learner", **changes)


MODEL_CASES = (
    _case("vit"),
    _case("vit_tokens", include_top=False, include_preprocessing=False, pixels=False),
    _case("vit_logits", classifier_activation=None, activation="gelu"),
    _case("vit_stem", stem=((6, 2), (8, 1), (8, 2)), patch_size=(4, 4)),
    # Model (a) of the paper, and alternatives to its TokenLearner
    _learner("model_a_first", at=0),
    _learner("model_a_middle"),
    _learner("model_a_last", at=2, token_pooling="sum"),
    _learner("model_a_mlp", token_attention="mlp", still=("token_learner/mlp/output/bias",)),
    _learner(
        "model_a_grid",
        class_token=True,
        register_tokens=1,
        token_attention="mlp",
        token_start="grid",
        proportional_attention=True,
        still=("token_learner/mlp/output/bias",),
    ),
    _case("spatial_pooling", reducer="spatial_pooling", pool_size=(2, 3)),
    _case("fixed_grid_model", reducer="fixed_grid", num_tokens=6),
    _case("direct_tokens_model", reducer="direct_tokens", num_tokens=3),
    _case("pooled_tokens_model", reducer="pooled_tokens", num_tokens=3, include_top=False),
    # Model (b) of the paper, and alternatives to its TokenFuser
    _learner("model_b", fuser="token_fuser", at=0),
    _learner("model_b_mlp", fuser="token_fuser", fuser_beta="mlp"),
    _learner("model_b_unpool", fuser="unpool"),
    _learner("model_b_reproject", fuser="reproject"),
    # Optional parts of blocks
    _case(
        "vit_pre_norm",
        pre_norm=True,
        class_token=True,
        positions="sincos",
        gated_mlp=True,
        head_reads="class_and_average",
    ),
    _learner(
        "regularised",
        class_token=True,
        register_tokens=2,
        layer_scale=0.1,
        drop_path_rate=0.1,
        dropout_rate=0.1,
        attention_dropout_rate=0.1,
    ),
    _learner(
        "model_b_prefix",
        fuser="token_fuser",
        class_token=True,
        register_tokens=1,
        include_top=False,
        pooling="avg",
    ),
    _learner("vector_attention", block_attention="vector", include_top=False, pooling="max"),
    # Options of newer families
    _case(
        "rotary_index",
        rotary="index",
        rotary_order="width_first",
        rotary_offset=1.0,
        rotary_grid=(3, 3),
        class_token=True,
        qkv_bias="query_value",
        attention_inner_norm=True,
        mlp_inner_norm=True,
        head_reads="average",
        final_norm="pooled",
    ),
    _case(
        "rotary_centred",
        positions=None,
        rotary="centred",
        rotary_theta=100.0,
        rotary_layout="half",
        class_token=True,
        register_tokens=2,
    ),
    _case("rotary_learned_model", rotary="learned", rotary_theta=10.0, qk_norm=True),
    _learner("rotary_centres_of_mass", rotary="index", rotary_tokens="centre_of_mass"),
    _learner(
        "rotary_centres_of_mass_fused",
        rotary="centred",
        rotary_tokens="centre_of_mass",
        fuser="token_fuser",
        class_token=True,
        include_top=False,
        pooling="avg",
    ),
    _case(
        "attention_pooled",
        head_reads="attention",
        pooling_num_heads=4,
        pooling_mlp_dim=12,
        register_tokens=1,
        pool_prefix=True,
    ),
    _case("attention_pooled_features", head_reads="attention", include_top=False, pooling="head"),
    _learner("attention_pooled_tokens", head_reads="attention", pooling_mlp_dim=0),
    _case("pre_logits", pre_logits=7, head_reads="max", head_bias=False, final_norm=None),
    _case(
        "bias_free",
        norm="rms_norm",
        embedding_norm=True,
        qkv_bias="none",
        attention_bias=False,
        mlp_bias=False,
        gated_mlp=True,
        activation="silu",
    ),
    # Videos
    _case("vivit", _VIDEO),
    _case(
        "video_sequence_positions",
        _VIDEO,
        positions="sequence",
        final_norm="pooled",
        qkv_bias="query_value",
    ),
    _case("video_rotary", _VIDEO, positions=None, rotary="index", rotary_layout="tiled"),
    _learner(
        "video_rotary_space_time",
        _VIDEO,
        over="space_time",
        rotary="index",
        rotary_tokens="centre_of_mass",
    ),
    _learner("video_a", _VIDEO),
    _learner(
        "video_grid",
        _VIDEO,
        class_token=True,
        token_attention="mlp",
        token_start="grid",
        proportional_attention=True,
        still=("token_learner/mlp/output/bias",),
    ),
    _learner("video_space_time", _VIDEO, over="space_time"),
    _learner("video_b", _VIDEO, fuser="token_fuser", at=0),
    _learner("video_b_unpool", _VIDEO, fuser="unpool"),
    _learner("video_space_time_reproject", _VIDEO, over="space_time", fuser="reproject"),
    # X(2+1)D and its bottleneck modules
    _network("x2plus1d"),
    _network("x2plus1d_tokenlearner", "conv2d+tokenlearner", classifier_activation=None),
    _network("x2plus1d_first_unit", "tokenlearner", replaced=(0, 1), attention="multi_head"),
    _network("x2plus1d_features", "spatial+temporal", include_top=False),
    _network("x2plus1d_average", "conv2d+joint", include_top=False, pooling="avg"),
    _module("module_temporal_vector", "conv2d+temporal_vector"),
    _module("module_mixer", "conv2d+mlpmixer"),
    _module("module_broadcast", "broadcast"),
    _module("module_prior_broadcast", "prior_broadcast"),
    _module("module_fuser", "fuser", attention="multi_head"),
)
