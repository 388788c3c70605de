import math
from collections.abc import Mapping
from typing import Any, Self

import keras
from keras import layers

from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers import (
    AttentionPooling,
    ConvStem,
    PatchEmbedding,
    PositionEmbedding,
    PrefixTokens,
    SequencePositions,
    TransformerBlock,
    TubeletEmbedding,
)
from keras_tokenlearner.layers.layer_normalization import norm_layer
from keras_tokenlearner.models import names
from keras_tokenlearner.models.config import VisionTransformerConfig
from keras_tokenlearner.models.config_fields import POOLS
from keras_tokenlearner.models.reduction import reduce_and_fuse, reduce_tokens
from keras_tokenlearner.models.rotations import Rotations, call_block
from keras_tokenlearner.models.vision_model import Activation, CustomObjects, VisionModel


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class VisionTransformer(VisionModel):
    """A ViT or ViViT, with or without TokenLearner, as a functional `keras.Model`.

    The graph is embedding, positions, blocks, norm and head. The config can add a TokenLearner or
    another reducer, and TokenFusers or other fusers (Figure 3 of the paper). Positions are added
    before the first block. Rotary positions rotate queries and keys in the blocks.

    Name the layers of your own head, as in `keras.layers.Dropout(0.1, name="head_dropout")`. Layers
    of this model are named `"dropout"` and `"embedding"`. Keras gives the same names to the first
    unnamed `Dropout` and `Embedding`. Keras refuses models with two layers of one name.

    Args:
        config: A `VisionTransformerConfig`.
        input_shape: `(height, width, channels)`, or `(frames, height, width, channels)` for
            patches of three axes. Not needed with an `input_tensor`.
        input_tensor: A `keras.Input` to build on, instead of a new input.
        include_top: Boolean, whether the classifier is part of the model.
        include_preprocessing: Boolean, whether the model takes pixels in [0, 255] and normalises
            them itself.
        pooling: Output without top. `None` is the tokens, (B, tokens, C). `"avg"` and `"max"` pool
            the patches. `"token"` is the class token. `"head"` is the input of the head, by the
            config's `head_reads`, `final_norm` and `pre_logits`.
        classes: Integer, classes of the top.
        classifier_activation: Activation of the top; `None` gives logits.
        preprocessing: A `Preprocessing`. Defaults to a scaling of pixels to [-1, 1].
        class_names: Names of the classes in their order, or `None`.
        dtype: Dtype policy of the layers. Defaults to the global policy.
        name: Name of the model.

    Attributes:
        position_resize: Method by which `weights.plan_of` resizes the positions of this model: the
            method of the last `Plan.load`, or `"bilinear"`. `load_weights` always resizes
            bilinearly.

    Raises:
        ValueError: If input shape, patches and config contradict each other.

    Example:

    >>> config = VisionTransformerConfig(
    ...     hidden_dim=32, num_layers=2, num_heads=2, patch_size=(8, 8), reducer="token_learner"
    ... )
    >>> model = VisionTransformer(config, input_shape=(64, 96, 3), classes=10)
    >>> model.output_shape, len(model.blocks), model.head.units
    ((None, 10), 2, 10)

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021. Arnab et al., "ViViT: A
    Video Vision Transformer", 2021. Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for
    Images and Videos?", 2021.
    """

    config: VisionTransformerConfig
    config_class = VisionTransformerConfig

    poolings = ("avg", "max", "token", "head")
    position_resize: str = "bilinear"

    @staticmethod
    def _axes(config: VisionTransformerConfig) -> tuple[str, ...]:
        return ("frames", "height", "width")[-len(config.patch_size) :]

    @staticmethod
    def _graph(
        config: VisionTransformerConfig,
        x: keras.KerasTensor,
        pooling: str | None,
        classes: int | None,
        activation: Activation,
    ) -> keras.KerasTensor:
        if pooling == "token" and not config.class_token:
            raise ValueError(
                "VisionTransformer: pooling='token' needs a config with class_token=True; pass "
                "another `pooling` or change the config. Received: pooling='token', "
                "class_token=False"
            )
        _check_patches(config, x.shape[1:])
        x = _trunk(config, x)
        if classes is not None:
            head = layers.Dense(
                classes, use_bias=config.head_bias, kernel_initializer="zeros", name=names.HEAD
            )
            logits = head(_read(config, x))
            return layers.Activation(activation, dtype="float32", name=names.PREDICTIONS)(logits)
        if pooling == "head":
            return _read(config, x)
        return _normalise_pooled(config, _pool(config, x, pooling)) if pooling else x

    @property
    def blocks(self) -> list[TransformerBlock]:
        """The transformer blocks, from first to last."""
        return [self.get_layer(names.block_name(i)) for i in range(self.config.num_layers)]

    @property
    def grid(self) -> tuple[int, ...]:
        """`(H, W)` or `(T, H, W)`, the grid of the patches."""
        return tuple(self.get_layer(names.TOKENS).input.shape[1:-1])

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"position_resize": self.position_resize}

    @classmethod
    def from_config(
        cls, config: Mapping[str, JSON], custom_objects: CustomObjects | None = None
    ) -> Self:
        arguments: dict[str, Any] = dict(config)
        resize = arguments.pop("position_resize", "bilinear")  # earlier versions lack it
        model = super().from_config(arguments, custom_objects)
        model.position_resize = resize
        return model


def _check_patches(config: VisionTransformerConfig, shape: tuple[int, ...]) -> None:
    axes = VisionTransformer._axes(config)
    for axis, size, patch in zip(axes, shape, config.patch_size, strict=False):
        if size < patch:
            raise ValueError(
                f"VisionTransformer: the {axis} of `input_shape` must be at least {patch}, one "
                f"patch. Received: input_shape={shape} with patch_size={config.patch_size}"
            )


def _trunk(config: VisionTransformerConfig, x: keras.KerasTensor) -> keras.KerasTensor:
    """Return all tokens after the last block and the norm, if any; prefix tokens first."""
    patches = _embed(config, x)
    grid, table = patches.shape[1:-1], None
    x = _with_prefix(config, patches)
    if config.pre_norm:
        x = _norm(config, names.PRE_NORM)(x)
    rotations = Rotations(config, patches)
    for index in range(config.num_layers):
        block = _block(config, index, grid)
        if index < config.place:
            x = rotations.apply(block, index, x)
        elif config.fuser:
            x = reduce_and_fuse(config, grid, index, block, x)
        else:
            if index == config.place:
                x, table = reduce_tokens(config, grid, x)
            x = call_block(block, x, table)
    if config.reducer and config.place == config.num_layers:
        x, _ = reduce_tokens(config, grid, x)
    return _norm(config, names.NORM)(x) if config.final_norm == "tokens" else x


def _norm(config: VisionTransformerConfig, name: str) -> layers.Layer:
    epsilon = config.final_norm_epsilon if name == names.NORM else None
    return norm_layer("VisionTransformer", config.norm, epsilon or config.layer_norm_epsilon, name)


def _embed(config: VisionTransformerConfig, x: keras.KerasTensor) -> keras.KerasTensor:
    """Return the patches with their positions, (B, H, W, C) or (B, T, H, W, C)."""
    if config.stem is not None:
        x = ConvStem(
            config.hidden_dim,
            config.stem,
            config.activation,
            config.layer_norm_epsilon,
            name=names.EMBEDDING,
        )(x)
    else:
        embedding = PatchEmbedding if len(config.patch_size) == 2 else TubeletEmbedding
        x = embedding(config.hidden_dim, config.patch_size, name=names.EMBEDDING)(x)
    if config.embedding_norm:
        x = _norm(config, names.EMBEDDING_NORM)(x)
    if config.positions is None:
        return x
    if config.positions == "sequence":
        return SequencePositions(name=names.POSITIONS)(x)
    return PositionEmbedding(config.positions, name=names.POSITIONS)(x)


def _with_prefix(config: VisionTransformerConfig, patches: keras.KerasTensor) -> keras.KerasTensor:
    """Flatten the grid of patches, and prepend class token and registers: (B, P + N, C)."""
    shape = (math.prod(patches.shape[1:-1]), config.hidden_dim)
    x = layers.Reshape(shape, name=names.TOKENS)(patches)
    if config.register_tokens:
        x = PrefixTokens(config.register_tokens, name=names.REGISTER_TOKENS)(x)
    if config.class_token:
        x = PrefixTokens(name=names.CLASS_TOKEN)(x)
    return layers.Dropout(config.dropout_rate, name=names.DROPOUT)(x)


def _block(config: VisionTransformerConfig, index: int, grid: tuple[int, ...]) -> TransformerBlock:
    depth = index / max(config.num_layers - 1, 1)
    proportional = config.proportional_attention and index >= config.place
    return TransformerBlock(
        config.num_heads,
        mlp_dim=config.mlp_dim,
        gated_mlp=config.gated_mlp,
        attention=config.block_attention,
        dropout_rate=config.dropout_rate,
        attention_dropout_rate=config.attention_dropout_rate,
        drop_path_rate=config.drop_path_rate * depth,
        layer_scale=config.layer_scale,
        activation=config.activation,
        layer_norm_epsilon=config.layer_norm_epsilon,
        norm=config.norm,
        qk_norm=config.qk_norm,
        qkv_bias=config.qkv_bias,
        attention_bias=config.attention_bias,
        mlp_bias=config.mlp_bias,
        attention_inner_norm=config.attention_inner_norm,
        mlp_inner_norm=config.mlp_inner_norm,
        rotary=config.rotary and config.rotary_layout,
        num_patches=math.prod(grid) if proportional else None,
        num_prefix_tokens=config.num_prefix_tokens if proportional else 0,
        name=names.block_name(index),
    )


def _read(config: VisionTransformerConfig, x: keras.KerasTensor) -> keras.KerasTensor:
    """Return the vector that the head reads."""
    if config.head_reads in POOLS:
        x = _pool(config, x, {"average": "avg"}.get(config.head_reads, config.head_reads))
    else:
        tokens, x = x, _pool(config, x, "token" if config.class_token else "avg")
        if config.head_reads is not None:
            x = layers.Concatenate(name=config.head_reads)([x, _beside(config, tokens)])
    x = _normalise_pooled(config, x)
    if config.pre_logits is None:
        return x
    return layers.Dense(config.pre_logits, activation="tanh", name=names.PRE_LOGITS)(x)


def _beside(config: VisionTransformerConfig, x: keras.KerasTensor) -> keras.KerasTensor:
    """Return the vector that the head reads in addition to the class token."""
    if config.head_reads == "class_and_average":
        return _pool(config, x, "avg")
    return layers.Flatten(name=names.FLAT_REGISTERS)(x[:, 1 : config.num_prefix_tokens])


def _pool(config: VisionTransformerConfig, x: keras.KerasTensor, pooling: str) -> keras.KerasTensor:
    if pooling == "token":
        return x[:, 0]
    prefix = 0 if config.pool_prefix else config.num_prefix_tokens
    tokens = x[:, prefix:] if prefix else x
    if pooling == "attention":
        mlp_dim = config.mlp_dim if config.pooling_mlp_dim is None else config.pooling_mlp_dim
        return AttentionPooling(
            config.pooling_num_heads or config.num_heads,
            mlp_dim=mlp_dim,
            activation=config.activation,
            norm=config.norm,
            layer_norm_epsilon=config.layer_norm_epsilon,
            name=names.POOLING,
        )(tokens)
    kind = layers.GlobalAveragePooling1D if pooling == "avg" else layers.GlobalMaxPooling1D
    return kind(data_format="channels_last", name=names.POOLING)(tokens)


def _normalise_pooled(config: VisionTransformerConfig, x: keras.KerasTensor) -> keras.KerasTensor:
    return _norm(config, names.NORM)(x) if config.final_norm == "pooled" else x
