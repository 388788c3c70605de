"""The fields of the configs as types for editors, and the choices of some fields."""

import contextlib
from collections.abc import Iterator
from typing import TypedDict

REDUCERS = ("token_learner", "spatial_pooling", "fixed_grid", "direct_tokens", "pooled_tokens")
FUSERS = ("token_fuser", "unpool", "reproject")
BESIDE_THE_CLASS_TOKEN = ("class_and_registers", "class_and_average")
POOLS = ("average", "max", "attention")
HEAD_READS = (*BESIDE_THE_CLASS_TOKEN, *POOLS)
POSITIONS = ("normal", "sincos", "sequence")
ROTARY = ("index", "centred", "learned")


class VisionTransformerFields(TypedDict, total=False):
    """The fields of `VisionTransformerConfig`."""

    hidden_dim: int
    num_layers: int
    num_heads: int
    patch_size: tuple[int, ...]
    mlp_dim: int | None
    gated_mlp: bool
    reducer: str | None
    num_tokens: int
    pool_size: tuple[int, ...]
    at: int | None
    token_attention: str
    token_pooling: str
    token_start: str
    proportional_attention: bool
    over: str
    fuser: str | None
    fuser_beta: str
    fuser_norm: str
    stem: tuple[tuple[int, int], ...] | None
    embedding_norm: bool
    positions: str | None
    rotary: str | None
    rotary_theta: float
    rotary_layout: str
    rotary_order: str
    rotary_offset: float
    rotary_grid: tuple[int, ...] | None
    rotary_tokens: str
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
    activation: str
    layer_norm_epsilon: float
    norm: str
    qk_norm: bool
    qkv_bias: str
    attention_bias: bool
    mlp_bias: bool
    attention_inner_norm: bool
    mlp_inner_norm: bool


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


@contextlib.contextmanager
def errors_of(owner: str) -> Iterator[None]:
    """Let the errors of a config name the function that the user called.

    Example:

    >>> with errors_of("retrofit"):
    ...     raise ValueError("VisionTransformerConfig: `at` must be an integer")
    Traceback (most recent call last):
    ...
    ValueError: retrofit: `at` must be an integer
    """
    try:
        yield
    except ValueError as error:
        name, colon, rest = str(error).partition(": ")
        if name not in ("VisionTransformerConfig", "X2Plus1DConfig"):
            raise
        raise ValueError(f"{owner}{colon}{rest}") from error
