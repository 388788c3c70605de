import math

import keras
from keras import layers

from keras_tokenlearner._checks import check_bool, check_channels_last, check_choice, check_int
from keras_tokenlearner.layers import (
    ConvStem,
    PatchEmbedding,
    PositionEmbedding,
    PrefixTokens,
    TransformerBlock,
    TubeletEmbedding,
)
from keras_tokenlearner.models.reduction import reduce_and_fuse, reduce_tokens


def vision_transformer(
    config,
    input_shape=None,
    input_tensor=None,
    include_top=True,
    include_preprocessing=True,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name=None,
):
    """Build a ViT or ViViT, with or without TokenLearner, as a functional `keras.Model`.

    The graph is embedding, positions, blocks, LayerNorm, head, with a reducer and fusers where the
    config has them (Figure 3 of the paper). Positions are added once, before the first block.

    Args:
        config: A `VisionTransformerConfig`.
        input_shape: `(height, width, channels)`, or `(frames, height, width, channels)` for
            patches of three axes. Not needed with an `input_tensor`.
        input_tensor: Keras tensor to build on, in place of an input of its own.
        include_top: Boolean, whether the classifier is part of the model.
        include_preprocessing: Boolean, whether the model takes pixels in [0, 255] and scales them
            to [-1, 1] itself.
        pooling: Without top: `None` for the tokens, (B, tokens, C), `"avg"`, `"max"`, or
            `"token"`, the class token. The top reads what the config's `head_reads` says.
        classes: Integer, classes of the top.
        classifier_activation: Activation of the top; `None` gives logits.
        name: Name of the model.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If input, patches and config do not fit each other.

    Example:

    >>> config = VisionTransformerConfig(
    ...     hidden_dim=32, num_layers=2, num_heads=2, patch_size=(8, 8), reducer="token_learner"
    ... )
    >>> model = vision_transformer(config, input_shape=(64, 96, 3), classes=10)
    >>> model.output_shape
    (None, 10)
    """
    include_top = check_bool("vision_transformer", "include_top", include_top)
    include_preprocessing = check_bool(
        "vision_transformer", "include_preprocessing", include_preprocessing
    )
    inputs = _inputs(config, input_shape, input_tensor)
    check_choice("vision_transformer", "pooling", pooling, (None, "avg", "max", "token"))
    if pooling == "token" and not config.class_token:
        raise ValueError(
            "vision_transformer: pooling='token' reads the class token, and the config has none; "
            "pass class_token=True or another pooling. Received: pooling='token'"
        )
    x = inputs
    if include_preprocessing:
        x = layers.Rescaling(1 / 127.5, offset=-1.0, name="preprocessing")(x)
    x, grid = _embed(config, x)
    if config.pre_norm:
        x = layers.LayerNormalization(epsilon=config.layer_norm_epsilon, name="pre_norm")(x)
    for index in range(config.num_layers):
        block = _block(config, index)
        if index < config.place:
            x = block(x)
        elif config.fuser:
            x = reduce_and_fuse(config, grid, index, block, x)
        else:
            x = reduce_tokens(config, grid, x) if index == config.place else x
            x = block(x)
    if config.reducer and config.place == config.num_layers:
        x = reduce_tokens(config, grid, x)
    x = layers.LayerNormalization(epsilon=config.layer_norm_epsilon, name="norm")(x)
    if include_top:
        classes = check_int("vision_transformer", "classes", classes)
        x = _read(config, x)
        x = layers.Dense(classes, kernel_initializer="zeros", name="head")(x)
        x = layers.Activation(classifier_activation, dtype="float32", name="predictions")(x)
    elif pooling:
        x = _pool(config, x, pooling)
    if input_tensor is not None:
        inputs = keras.utils.get_source_inputs(input_tensor)
    return keras.Model(inputs, x, name=name)


def _inputs(config, input_shape, input_tensor):
    """Return the tensor to build on, once its shape is known to suit the patches."""
    check_channels_last("vision_transformer")
    if input_tensor is not None:
        shape = tuple(input_tensor.shape[1:])
    elif input_shape is not None:
        shape = tuple(input_shape)
    else:
        raise ValueError(
            "vision_transformer: pass `input_shape` or `input_tensor`. Received neither"
        )
    axes = ("frames", "height", "width")[-len(config.patch_size) :]
    if len(shape) != len(axes) + 1 or None in shape:
        raise ValueError(
            f"vision_transformer: inputs must be ({', '.join(axes)}, channels), all known, for "
            f"patches of {config.patch_size}. Received: input_shape={shape}"
        )
    for axis, size, patch in zip(axes, shape, config.patch_size, strict=False):
        if size < patch:
            raise ValueError(
                f"vision_transformer: {axis} must be at least one patch, {patch}. "
                f"Received: input_shape={shape} with patch_size={config.patch_size}"
            )
    return keras.Input(shape, name="inputs") if input_tensor is None else input_tensor


def _embed(config, x):
    """Return the tokens (B, P + N, C) of pixels and the grid of the patches."""
    if config.stem is not None:
        x = ConvStem(
            config.hidden_dim,
            config.stem,
            config.activation,
            config.layer_norm_epsilon,
            name="embedding",
        )(x)
    else:
        embedding = PatchEmbedding if len(config.patch_size) == 2 else TubeletEmbedding
        x = embedding(config.hidden_dim, config.patch_size, name="embedding")(x)
    grid = x.shape[1:-1]
    x = PositionEmbedding(config.positions, name="positions")(x)
    x = layers.Reshape((math.prod(grid), config.hidden_dim), name="tokens")(x)
    if config.register_tokens:
        x = PrefixTokens(config.register_tokens, name="register_tokens")(x)
    if config.class_token:
        x = PrefixTokens(name="class_token")(x)
    return layers.Dropout(config.dropout_rate, name="dropout")(x), grid


def _block(config, index):
    depth = index / max(config.num_layers - 1, 1)
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
        name=f"block_{index}",
    )


def _read(config, x):
    """Return what the head reads of the tokens."""
    first = _pool(config, x, "token" if config.class_token else "avg")
    if config.head_reads is None:
        return first
    if config.head_reads == "class_and_average":
        second = _pool(config, x, "avg")
    else:
        second = layers.Flatten(name="registers")(x[:, 1 : config.num_prefix_tokens])
    return layers.Concatenate(name=config.head_reads)([first, second])


def _pool(config, x, pooling):
    if pooling == "token":
        return x[:, 0]
    patches = x[:, config.num_prefix_tokens :] if config.num_prefix_tokens else x
    kind = layers.GlobalAveragePooling1D if pooling == "avg" else layers.GlobalMaxPooling1D
    return kind(data_format="channels_last", name="pooling")(patches)
