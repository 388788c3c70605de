"""The fields of the configs as types for editors, and the choices of some fields."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypedDict

import keras

from keras_tokenlearner.layers.activations import Activation

Pairs: TypeAlias = tuple[tuple[int, int], ...]
FieldValue: TypeAlias = str | float | int | bool | tuple[float, ...] | Pairs | None
Fields: TypeAlias = Mapping[str, FieldValue]
# `(mean, std)` of pixels in [0, 1], or the name of such a pair.
Normalization: TypeAlias = str | tuple[Sequence[float], Sequence[float]]

REDUCERS = ("token_learner", "spatial_pooling", "fixed_grid", "direct_tokens", "pooled_tokens")
FUSERS = ("token_fuser", "unpool", "reproject")
BESIDE_THE_CLASS_TOKEN = ("class_and_registers", "class_and_average")
POOLS = ("average", "max", "attention")
HEAD_READS = (*BESIDE_THE_CLASS_TOKEN, *POOLS)
POSITIONS = ("normal", "sincos", "sequence")
ROTARY = ("index", "centred", "learned")
ROTARY_TOKENS = ("none", "centre_of_mass")


class VisionTransformerChanges(TypedDict, total=False):
    """The fields of `VisionTransformerConfig` that are not parameters of `from_preset` itself."""

    hidden_dim: int
    num_layers: int
    patch_size: tuple[int, ...]
    mlp_dim: int | None
    gated_mlp: bool
    reducer: str | None
    pool_size: tuple[int, ...]
    token_attention: str
    token_pooling: str
    token_start: str
    proportional_attention: bool
    over: str
    fuser: str | None
    fuser_beta: str
    fuser_norm: str
    stem: Pairs | None
    embedding_norm: bool
    positions: str | None
    rotary: str | None
    rotary_theta: float
    rotary_layout: str
    rotary_order: str
    rotary_offset: float
    rotary_grid: tuple[int, ...] | None
    rotary_tokens: str | None
    class_token: bool
    register_tokens: int
    head_reads: str | None
    pool_prefix: bool
    pooling_num_heads: int | None
    pooling_mlp_dim: int | None
    final_norm: str | None
    final_norm_epsilon: float | None
    pre_logits: int | None
    head_bias: bool
    pre_norm: bool
    block_attention: str
    dropout_rate: float
    attention_dropout_rate: float
    drop_path_rate: float
    layer_scale: float | None
    norm: str
    qk_norm: bool
    qkv_bias: str
    attention_bias: bool
    mlp_bias: bool
    attention_inner_norm: bool
    mlp_inner_norm: bool


class VisionTransformerFields(VisionTransformerChanges, total=False):
    """The fields of `VisionTransformerConfig`."""

    num_heads: int
    num_tokens: int
    at: int | None
    activation: str
    layer_norm_epsilon: float


class PlanOptions(TypedDict, total=False):
    """Keyword arguments of `plan_of` that users can pass."""

    normalization: Normalization | None
    layer_norm_epsilon: float | None
    activation: str | None
    num_heads: int | None
    grid: Sequence[int] | None
    resize: str | None


class SharedArguments(TypedDict, total=False):
    """The arguments that model classes, `create_model` and `from_preset` have in common."""

    input_shape: Sequence[int] | None
    include_preprocessing: bool
    pooling: str | None
    classifier_activation: Activation
    class_names: Sequence[str] | None
    name: str | None


class PresetArguments(VisionTransformerChanges, PlanOptions, SharedArguments, total=False):
    """The arguments of `from_preset`, except for `preset`."""

    at: int | None
    num_tokens: int | None
    include_top: bool | None
    classes: int | None
    dtype: str | keras.DTypePolicy | None


class X2Plus1DFields(TypedDict, total=False):
    """The fields of `X2Plus1DConfig`."""

    unit: str
    replaced: tuple[int, ...] | None
    attention: str
    num_tokens: int
    num_heads: int
    key_dim: int
    stem_channels: int
    stage_channels: tuple[int, ...]
    inner_channels: tuple[int, ...]
    stage_units: tuple[int, ...]
    head_channels: int
    dropout_rate: float
    batch_norm_epsilon: float
    batch_norm_momentum: float
