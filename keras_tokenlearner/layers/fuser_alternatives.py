"""Alternatives to the TokenFuser in the paper (Figure 7): unpooling and re-projection."""

import keras
from keras import layers, ops

from keras_tokenlearner._checks import (
    check_channels,
    check_channels_last,
    check_heads,
    check_int,
    check_positive,
)
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers import activations
from keras_tokenlearner.layers.composite import CompositeLayer
from keras_tokenlearner.layers.grids import (
    check_grid,
    flatten_grid,
    resolve_grid,
    restore_grid,
    to_frames,
)
from keras_tokenlearner.layers.mlp import MLP
from keras_tokenlearner.layers.multi_head_attention import MultiHeadAttention


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class Unpool(CompositeLayer):
    """Adds processed tokens to each position of their frame, weighted by the TokenLearner's maps.

    `X_t[n] <- sum_s maps[n, s] Y_t[s] + X_t[n]` for frame t. A TokenFuser computes its own weights;
    this layer uses the TokenLearner's maps instead. The layer has no parameters. The residual is
    part of the layer.

    Args:
        grid: `(H, W)` or `(T, H, W)`, the layout of inputs of shape (B, N, C).
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        tokens: Tensor of shape (B, T * S, C), the processed tokens Y, frame after frame.
        maps: Tensor of the shape of `inputs` with S in place of C, from
            `TokenLearner(...)(inputs, return_maps=True)`.
        inputs: Tensor X of shape (B, H, W, C), (B, T, H, W, C), or (B, N, C) with a `grid`.

    Returns:
        Tensor of the shape of `inputs`.

    Raises:
        ValueError: If the inputs do not fit the grid, or tokens or maps do not fit the inputs.

    Example:

    >>> images = keras.random.normal((2, 14, 14, 32))
    >>> maps = keras.random.uniform((2, 14, 14, 8))
    >>> tokens = keras.random.normal((2, 8, 32))
    >>> tuple(Unpool()(tokens, maps, images).shape)
    (2, 14, 14, 32)
    """

    def __init__(
        self, grid: tuple[int, ...] | None = None, **kwargs: str | bool | keras.DTypePolicy | None
    ) -> None:
        super().__init__(**kwargs)
        check_channels_last("Unpool")
        self.grid = check_grid("Unpool", grid)

    def build(
        self,
        tokens_shape: tuple[int | None, ...],
        maps_shape: tuple[int | None, ...],
        inputs_shape: tuple[int | None, ...],
    ) -> None:
        frames = resolve_grid("Unpool", inputs_shape, self.grid)[0]
        if tuple(maps_shape[:-1]) != tuple(inputs_shape[:-1]):
            raise ValueError(
                "Unpool: maps must have the shape of the inputs, except for the channels. "
                f"Received: maps of shape {tuple(maps_shape)}, inputs of shape "
                f"{tuple(inputs_shape)}"
            )
        count = maps_shape[-1]
        length = None if frames is None or count is None else frames * count
        if (
            len(tokens_shape) != 3
            or tokens_shape[-1] != inputs_shape[-1]
            or (length is not None and tokens_shape[1] not in (None, length))
        ):
            raise ValueError(
                "Unpool: tokens must have shape (B, T * S, C), with S from the maps and C from the "
                f"inputs. Received: tokens of shape {tuple(tokens_shape)}, maps of shape "
                f"{tuple(maps_shape)}, inputs of shape {tuple(inputs_shape)}"
            )

    def call(
        self, tokens: keras.KerasTensor, maps: keras.KerasTensor, inputs: keras.KerasTensor
    ) -> keras.KerasTensor:
        grid = resolve_grid("Unpool", inputs.shape, self.grid)
        weights = flatten_grid(to_frames(maps, grid))  # (B * T, H * W, S)
        tokens = ops.reshape(tokens, (-1, maps.shape[-1], tokens.shape[-1]))  # (B * T, S, C)
        return inputs + restore_grid(ops.matmul(weights, tokens), inputs)

    def compute_output_shape(
        self,
        tokens_shape: tuple[int | None, ...],
        maps_shape: tuple[int | None, ...],
        inputs_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        return inputs_shape

    def get_config(self) -> dict[str, JSON]:
        return {**super().get_config(), "grid": self.grid}


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class Reproject(CompositeLayer):
    """Writes processed tokens back by a transformer layer: positions attend to the tokens.

    `X <- X + Attention(LayerNorm(X), LayerNorm(Y))`, then `X <- X + MLP(LayerNorm(X))`. Positions
    are the queries; tokens are keys and values. Unlike in the TokenFuser, every position attends to
    the tokens of all frames. The layer also applies an MLP to every position.

    Args:
        num_heads: Integer, attention heads; must divide the channels.
        mlp_dim: Integer, hidden units of the MLP. Defaults to four times the channels.
        activation: Name or callable, the activation of the MLP.
        layer_norm_epsilon: Float, the epsilon of the LayerNorms.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        tokens: Tensor of shape (B, S, C), the processed tokens Y.
        inputs: Tensor X of shape (B, ..., C), of rank 3 or more.

    Returns:
        Tensor of the shape of `inputs`.

    Raises:
        ValueError: If an argument is out of range or `num_heads` does not divide the channels. Also
            if tokens and inputs differ in channels.

    Example:

    >>> images = keras.random.normal((2, 14, 14, 32))
    >>> tokens = keras.random.normal((2, 8, 32))
    >>> tuple(Reproject(num_heads=4)(tokens, images).shape)
    (2, 14, 14, 32)

    Source: after Wu et al., "Visual Transformers", 2020.
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int | None = None,
        activation: activations.Activation = "gelu_tanh",
        layer_norm_epsilon: float = 1e-6,
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = check_int("Reproject", "num_heads", num_heads)
        self.mlp_dim = None if mlp_dim is None else check_int("Reproject", "mlp_dim", mlp_dim)
        self.activation = activations.get(activation, "Reproject")
        self.layer_norm_epsilon = check_positive(
            "Reproject", "layer_norm_epsilon", layer_norm_epsilon
        )

    def build(
        self, tokens_shape: tuple[int | None, ...], inputs_shape: tuple[int | None, ...]
    ) -> None:
        channels = check_channels("Reproject", inputs_shape)
        if len(tokens_shape) != 3 or tokens_shape[-1] != channels:
            raise ValueError(
                "Reproject: tokens must have shape (B, S, C) with the channels of the inputs. "
                f"Received: tokens of shape {tuple(tokens_shape)}, inputs of shape "
                f"{tuple(inputs_shape)}"
            )
        shape = (None, None, channels)
        self.tokens_norm, self.inputs_norm, self.mlp_norm = (
            layers.LayerNormalization(
                epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name=f"{name}_norm"
            )
            for name in ("tokens", "inputs", "mlp")
        )
        for norm in (self.tokens_norm, self.inputs_norm, self.mlp_norm):
            norm.build(shape)
        self.attention = MultiHeadAttention(
            self.num_heads,
            key_dim=check_heads("Reproject", self.num_heads, channels),
            dtype=self.dtype_policy,
            name="attention",
        )
        self.attention.build(shape, shape)
        self.mlp = MLP(
            self.mlp_dim or 4 * channels,
            activation=self.activation,
            dtype=self.dtype_policy,
            name="mlp",
        )
        self.mlp.build(shape)

    def call(self, tokens: keras.KerasTensor, inputs: keras.KerasTensor) -> keras.KerasTensor:
        x = flatten_grid(inputs)
        x = x + self.attention(self.inputs_norm(x), self.tokens_norm(tokens))
        x = x + self.mlp(self.mlp_norm(x))
        return restore_grid(x, inputs)

    def compute_output_shape(
        self, tokens_shape: tuple[int | None, ...], inputs_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return inputs_shape

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "activation": activations.serialize(self.activation),
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
