"""The modules between the two 1x1x1 convolutions of a bottleneck unit (Figure 9 of the paper)."""

import keras
from keras import layers

from keras_tokenlearner._checks import check_channels_last, check_ints, check_is
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner.layers import (
    FixedGrid,
    MixerBlock,
    PriorAttention,
    SelfAttention,
    SpaceTimeAttention,
    TokenFuser,
    TokenLearner,
    VectorAttention,
)
from keras_tokenlearner.models.x2plus1d_config import X2Plus1DConfig


@own_errors
def bottleneck_module(
    config: X2Plus1DConfig,
    input_shape: tuple[int, ...] = (64, 8, 8, 432),
    name: str = "module",
) -> keras.Model:
    """Build a model of one bottleneck module of the paper (Tables 11 to 13): a config's `unit`.

    A module maps a video, (B, T, H, W, C), to a video of the same shape. The parts that `unit`
    names run in order:

    * `conv2d`: 3x3 convolution of each frame, dense, no bias.
    * `conv1d`: convolution over 3 frames, dense, no bias.
    * `spatial`, `temporal`, `joint`: `SpaceTimeAttention` with multi-head attention.
    * `temporal_vector`: `SpaceTimeAttention` over time, with vector attention.
    * `mlpmixer`: frame averages, `MixerBlock`, broadcast.
    * `tokenlearner`: `TokenLearner`, attention between its tokens, `TokenFuser`.
    * `broadcast`: frame averages, attention between them, broadcast.
    * `prior_broadcast`: frame averages, `PriorAttention`, broadcast.
    * `fuser`: frame averages, attention between them, `TokenFuser`.

    "Broadcast" adds the transformed average of a frame to each of its positions.

    The modules of the paper:

    * Table 11: `joint`, `conv2d+joint`, `tokenlearner`, `conv2d+tokenlearner`.
    * Table 12: `conv2d+conv1d`, `conv2d+mlpmixer`, `conv2d+temporal`, `spatial+temporal`,
      `conv2d+spatial+temporal`, `spatial+tokenlearner`.
    * Table 13, in its order: `conv2d+temporal`, `conv2d+temporal_vector`,
      `conv2d+prior_broadcast`, `conv2d+broadcast`, `conv2d+fuser`, and `conv2d+tokenlearner` with
      either `attention`.

    Choices where the paper is not specific:

    * The `tokenlearner` part follows the paper's text. `alpha` of the `TokenLearner` is one 3x3
      convolution without LayerNorm. Queries, keys and values have the channels of the input and no
      bias. M of the `TokenFuser` mixes the tokens of all frames, without norms. Here M has a bias
      (512 parameters) and starts at zero, so the part starts as the identity. The part has 0.857M
      parameters. The tables print 0.81M, which the text does not explain.
    * Table 13 gives only names. The rows without TokenLearner need other tokens. "Standard
      transformer" and "vector transformer" are attention over time at every position. The standard
      transformer has the accuracy of Table 12's "Conv2D + Temporal transformer". "Broadcasting" and
      "TokenFuser" without TokenLearner take the average of each frame as its one token.
    * The input of MLP-Mixer is the averages of the frames, which fits the cost in the paper.

    Args:
        config: An `X2Plus1DConfig`. The module uses the fields `unit`, `attention`, `num_tokens`,
            `num_heads` and `key_dim`.
        input_shape: `(frames, height, width, channels)`. Defaults to the size in the paper.
        name: Name of the model.

    Returns:
        A functional `keras.Model` without batch normalisation and activation, which follow every
        part in a network.

    Raises:
        ValueError: If the input is not a video of known size. Also if `num_heads` does not divide
            the channels.

    Example:

    >>> from keras_tokenlearner.models import X2Plus1DConfig
    >>> module = bottleneck_module(X2Plus1DConfig(unit="conv2d+conv1d"), (4, 8, 8, 16))
    >>> module.output_shape
    (None, 4, 8, 8, 16)
    """
    check_channels_last("bottleneck_module")
    check_is("bottleneck_module", "config", config, X2Plus1DConfig, "an X2Plus1DConfig")
    inputs = keras.Input(check_ints("bottleneck_module", "input_shape", input_shape, lengths=(4,)))
    x = inputs
    for index, part in enumerate(config.parts):
        x = add_part(config, part, x, f"{index}_{part}")
    return keras.Model(inputs, x, name=name)


def convolution(
    x: keras.KerasTensor,
    channels: int,
    kernel_size: int | tuple[int, ...],
    name: str,
    strides: int | tuple[int, ...] = 1,
) -> keras.KerasTensor:
    """Add a 3-D convolution without bias, with padding: only the strides change the size of `x`."""
    return layers.Conv3D(
        channels,
        kernel_size,
        strides=strides,
        padding="same",
        data_format="channels_last",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(
            2.0, mode="fan_out", distribution="untruncated_normal"
        ),
        name=name,
    )(x)


def add_part(
    config: X2Plus1DConfig,
    part: str,
    x: keras.KerasTensor,
    name: str,
    strides: int | tuple[int, ...] = 1,
) -> keras.KerasTensor:
    """Apply one part of a bottleneck module to `x`. Only the part `conv2d` uses `strides`."""
    channels = x.shape[-1]
    if part == "conv2d":
        return convolution(x, channels, (1, 3, 3), name, strides=strides)
    if part == "conv1d":
        return convolution(x, channels, (3, 1, 1), name)
    heads, key_dim = config.num_heads, config.key_dim
    if part in ("spatial", "temporal", "joint"):
        return SpaceTimeAttention(part, num_heads=heads, key_dim=key_dim, name=name)(x)
    if part == "temporal_vector":
        return SpaceTimeAttention("temporal", attention="vector", name=name)(x)
    if part == "tokenlearner":
        tokens = TokenLearner(config.num_tokens, num_convs=1, use_norm=False, name=name)(x)
    else:
        tokens = FixedGrid(num_tokens=1, name=f"{name}_averages")(x)  # (B, T, C)
    if part == "mlpmixer":
        tokens = MixerBlock(name=name)(tokens)
    elif part == "prior_broadcast":
        tokens = PriorAttention(name=f"{name}_attention")(tokens)
    elif config.attention == "vector":
        tokens = VectorAttention(use_bias=False, name=f"{name}_attention")(tokens)
    else:
        tokens = SelfAttention(heads, key_dim, name=f"{name}_attention")(tokens)
    if part in ("tokenlearner", "fuser"):
        return TokenFuser(mixing="global", norm="none", name=f"{name}_fuser")(tokens, x)
    tokens = layers.Reshape((-1, 1, 1, channels), name=f"{name}_frames")(tokens)
    return layers.Add(name=f"{name}_sum")([x, tokens])
