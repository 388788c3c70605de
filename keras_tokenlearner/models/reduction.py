"""Reduces the tokens and restores them: parts of models (a) and (b) of Figure 3 of the paper."""

from typing import TypeAlias, cast

import keras
from keras import layers

from keras_tokenlearner._checks import check_model
from keras_tokenlearner.layers import (
    DirectTokens,
    FixedGrid,
    PooledTokens,
    Reproject,
    SpatialPooling,
    TokenFuser,
    TokenLearner,
    Unpool,
)
from keras_tokenlearner.models import names
from keras_tokenlearner.models.config import VisionTransformerConfig
from keras_tokenlearner.models.config_fields import REDUCERS
from keras_tokenlearner.models.rotations import call_block, table_of_maps

Grid: TypeAlias = tuple[int, ...]


def tokens_per_frame(config: VisionTransformerConfig, grid: Grid) -> int:
    """Return the number of tokens of each image or frame after the reducer."""
    if config.reducer != "spatial_pooling":
        return config.num_tokens
    height, width = grid[-2:]
    return (height // config.pool_size[0]) * (width // config.pool_size[1])


def reduce_tokens(
    config: VisionTransformerConfig, grid: Grid, x: keras.KerasTensor
) -> tuple[keras.KerasTensor, keras.KerasTensor | None]:
    """Reduce the patch tokens, as model (a) does before block `at`. Prefix tokens stay unchanged.

    Returns:
        The tokens, and the rotary table for later blocks. The table may be `None`.
    """
    prefix = config.num_prefix_tokens
    tokens, _, table = _reduced(config, grid, x[:, prefix:] if prefix else x)
    if prefix:
        tokens = layers.Concatenate(axis=1, name=names.JOIN)([x[:, :prefix], tokens])
    return tokens, table


def _reduced(
    config: VisionTransformerConfig,
    grid: Grid,
    patches: keras.KerasTensor,
    index: int | None = None,
) -> tuple[keras.KerasTensor, keras.KerasTensor | None, keras.KerasTensor | None]:
    """Return the reduced tokens, their maps and their rotary table. Unused outputs are `None`."""
    reducer, centred = _reducer(config, grid, index), config.rotates_tokens
    if config.fuser != "unpool" and not centred:
        return reducer(patches), None, None
    tokens, maps = reducer(patches, return_maps=True)
    table = table_of_maps(config, grid, patches, maps, index) if centred else None
    return tokens, maps, table


def reduce_and_fuse(
    config: VisionTransformerConfig,
    grid: Grid,
    index: int,
    block: layers.Layer,
    x: keras.KerasTensor,
) -> keras.KerasTensor:
    """Reduce the tokens, run block `index`, and restore all tokens: one layer of model (b)."""
    prefix = config.num_prefix_tokens
    patches = x[:, prefix:] if prefix else x
    name = names.numbered(cast(str, config.fuser), index)
    tokens, maps, table = _reduced(config, grid, patches, index)
    if prefix:
        tokens = layers.Concatenate(axis=1, name=names.numbered(names.JOIN, index))(
            [x[:, :prefix], tokens]
        )
    tokens = call_block(block, tokens, table)
    mixed = tokens[:, prefix:] if prefix else tokens
    if config.fuser == "unpool":
        fused = Unpool(grid=grid, name=name)(mixed, maps, patches)
    elif config.fuser == "reproject":
        fused = Reproject(
            config.num_heads,
            mlp_dim=config.mlp_dim,
            activation=config.activation,
            layer_norm_epsilon=config.layer_norm_epsilon,
            name=name,
        )(mixed, patches)
    else:
        fused = TokenFuser(
            beta=config.fuser_beta,
            norm=config.fuser_norm,
            grid=grid,
            activation=config.activation,
            dropout_rate=config.dropout_rate,
            layer_norm_epsilon=config.layer_norm_epsilon,
            name=name,
        )(mixed, patches)
    if prefix:
        fused = layers.Concatenate(axis=1, name=names.numbered(names.REJOIN, index))(
            [tokens[:, :prefix], fused]
        )
    return fused


def before_reducer(owner: str, model: keras.Model) -> keras.Model:
    """Return the part of a student before its first reducer, as a model.

    The output of this model includes the prefix tokens.

    Raises:
        ValueError: If the model has no reducer. The message starts with `owner`.
    """
    check_model(owner, "student", model, functional=True)
    trunk = None
    for layer in model.layers:
        if layer.name.startswith(REDUCERS):
            return keras.Model(model.input, model.get_layer(trunk).output)
        behind_trunk = layer.name in (names.DROPOUT, names.PRE_NORM)
        if behind_trunk or names.block_index(layer.name) is not None:
            trunk = layer.name
    raise ValueError(
        f"{owner}: `student` must have a TokenLearner or another reducer; build it with retrofit. "
        f"Received: student {model.name!r}"
    )


def _reducer(config: VisionTransformerConfig, grid: Grid, index: int | None = None) -> layers.Layer:
    """Return the layer that reduces tokens of shape (B, N, C)."""
    kind = cast(str, config.reducer)
    name = names.numbered(kind, index)
    if kind == "token_learner":
        return TokenLearner(
            config.num_tokens,
            attention=config.token_attention,
            pooling=config.token_pooling,
            over=config.over,
            grid=grid,
            activation=config.activation,
            epsilon=config.layer_norm_epsilon,
            position_bias=config.token_start == "grid",
            name=name,
        )
    if kind == "spatial_pooling":
        return SpatialPooling(config.pool_size, grid=grid, name=name)
    fixed = {
        "fixed_grid": FixedGrid,
        "direct_tokens": DirectTokens,
        "pooled_tokens": PooledTokens,
    }[kind]
    return fixed(config.num_tokens, grid=grid, name=name)
