from typing import cast

import keras
from keras import layers, ops

from keras_tokenlearner._checks import (
    check_channels_last,
    check_choice,
    check_int,
    check_positive,
    check_rate,
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
from keras_tokenlearner.layers.sublayers import call_sublayer


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class TokenFuser(CompositeLayer):
    """Mixes processed tokens and writes them back to every position of their frame.

    A linear layer over the token axis mixes the tokens Y, `Y <- M Y`, for every channel alike.
    Then (Eq. 2 of the paper), frame by frame,

    `X_t <- B_w Y_t + X_t` with `B_w = sigmoid(beta(X_t))` of shape (H * W, S)

    Every position chooses its own blend of the frame's S tokens. The residual X is part of the
    layer.

    Text and released code of the paper differ:

    * In the text, M mixes all S * T tokens and beta is linear. The layer has no normalization
      layers: `mixing="global", norm="none"`.
    * The defaults equal the released code. The costs in the paper are the costs of this code. The
      code mixes the S tokens of each frame. It normalises before and after the mixing, and before
      beta.
    * The released code with `use_normalization=False` still normalises before beta:
      `norm="inputs"`.
    * A later version of the code has an MLP as beta: `beta="mlp"`.

    The mixing kernel starts at zero, so the untrained layer is the identity. With normalization
    layers, the first gradients are large. Clip the global norm of the gradients to 1.0, as the
    authors do.

    Args:
        mixing: `"frame"` mixes the tokens of each frame, `"global"` the tokens of all frames.
        beta: `"linear"` or `"mlp"`, the form of beta: one linear layer, or
            C -> `bottleneck_dim` -> S.
        norm: `"all"` normalises the tokens before and after mixing, and X before beta. `"inputs"`
            normalises only X. `"none"` normalises nothing.
        grid: `(H, W)` or `(T, H, W)`, the layout of inputs of shape (B, N, C).
        bottleneck_dim: Integer, hidden units of beta as an MLP.
        activation: Name or callable, the activation of beta as an MLP.
        dropout_rate: Float in [0, 1), the dropout rate on `B_w Y_t`, and in beta as an MLP.
        layer_norm_epsilon: Float, the epsilon of the LayerNorms.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        tokens: Tensor of shape (B, T * S, C), the processed tokens Y, frame after frame.
        inputs: Tensor X of shape (B, H, W, C), (B, T, H, W, C), or (B, N, C) with a `grid`. X
            is the input from which the tokens were learned.
        training: Boolean, whether to apply dropout.

    Returns:
        Tensor of the shape of `inputs`.

    Raises:
        ValueError: If an argument is out of range, or the shapes of tokens and inputs disagree.

    Example:

    >>> images = keras.random.normal((2, 14, 14, 32))
    >>> tokens = keras.random.normal((2, 8, 32))
    >>> tuple(TokenFuser()(tokens, images).shape)
    (2, 14, 14, 32)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 2.2.
    """

    def __init__(
        self,
        mixing: str = "frame",
        beta: str = "linear",
        norm: str = "all",
        grid: tuple[int, ...] | None = None,
        bottleneck_dim: int = 64,
        activation: activations.Activation = "gelu_tanh",
        dropout_rate: float = 0.0,
        layer_norm_epsilon: float = 1e-6,
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(**kwargs)
        check_channels_last("TokenFuser")
        self.mixing = check_choice("TokenFuser", "mixing", mixing, ("frame", "global"))
        self.beta = check_choice("TokenFuser", "beta", beta, ("linear", "mlp"))
        self.norm = check_choice("TokenFuser", "norm", norm, ("all", "inputs", "none"))
        self.grid = check_grid("TokenFuser", grid)
        self.bottleneck_dim = check_int("TokenFuser", "bottleneck_dim", bottleneck_dim)
        self.activation = activations.get(activation, "TokenFuser")
        self.dropout_rate = check_rate("TokenFuser", "dropout_rate", dropout_rate)
        self.layer_norm_epsilon = check_positive(
            "TokenFuser", "layer_norm_epsilon", layer_norm_epsilon
        )

    def build(
        self, tokens_shape: tuple[int | None, ...], inputs_shape: tuple[int | None, ...]
    ) -> None:
        count = self._tokens_per_frame(tokens_shape, inputs_shape)
        channels = cast(int, inputs_shape[-1])
        mixed = count if self.mixing == "frame" else tokens_shape[1]
        self.mix = layers.Dense(
            mixed, kernel_initializer="zeros", dtype=self.dtype_policy, name="mix"
        )
        self.mix.build((None, channels, mixed))
        if self.norm == "all":
            self.norm_before = self._layer_norm("norm_before", channels)
            self.norm_after = self._layer_norm("norm_after", channels)
        if self.norm != "none":
            self.norm_inputs = self._layer_norm("norm_inputs", channels)
        if self.beta == "mlp":
            self.blend = MLP(
                self.bottleneck_dim,
                count,
                activation=self.activation,
                dropout_rate=self.dropout_rate,
                dtype=self.dtype_policy,
                name="blend",
            )
        else:
            self.blend = layers.Dense(
                count,
                use_bias=False,
                kernel_initializer="lecun_normal",
                dtype=self.dtype_policy,
                name="blend",
            )
        self.blend.build((None, None, channels))
        self.drop = layers.Dropout(self.dropout_rate, dtype=self.dtype_policy, name="drop")

    def _layer_norm(self, name: str, channels: int) -> layers.LayerNormalization:
        norm = layers.LayerNormalization(
            epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name=name
        )
        norm.build((None, None, channels))
        return norm

    def call(
        self,
        tokens: keras.KerasTensor,
        inputs: keras.KerasTensor,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        grid = resolve_grid("TokenFuser", inputs.shape, self.grid)
        count = self._tokens_per_frame(tokens.shape, inputs.shape)
        frame_shape = (-1, count, tokens.shape[-1])
        if self.mixing == "frame":
            tokens = ops.reshape(tokens, frame_shape)
        tokens = ops.reshape(self._mix(tokens, training), frame_shape)
        x = flatten_grid(to_frames(inputs, grid))  # (B * T, H * W, C)
        if self.norm != "none":
            x = call_sublayer(self, self.norm_inputs, x, training=training)
        weights = ops.sigmoid(call_sublayer(self, self.blend, x, training=training))
        fused = ops.matmul(weights, tokens)  # of (B * T, H * W, S) and (B * T, S, C)
        fused = call_sublayer(self, self.drop, fused, training=training)
        return inputs + restore_grid(fused, inputs)

    def _mix(self, tokens: keras.KerasTensor, training: bool | None) -> keras.KerasTensor:
        """Apply the linear layer over the token axis."""
        x = tokens
        if self.norm == "all":
            x = call_sublayer(self, self.norm_before, x, training=training)
        x = call_sublayer(self, self.mix, ops.transpose(x, (0, 2, 1)), training=training)
        x = ops.transpose(x, (0, 2, 1))
        if self.norm == "all":
            x = call_sublayer(self, self.norm_after, x, training=training)
        return x

    def _tokens_per_frame(
        self, tokens_shape: tuple[int | None, ...], inputs_shape: tuple[int | None, ...]
    ) -> int:
        """Return S, or raise `ValueError` if the two shapes do not fit together."""
        frames = resolve_grid("TokenFuser", inputs_shape, self.grid)[0]
        shapes = (
            f"Received: tokens of shape {tuple(tokens_shape)}, inputs of shape "
            f"{tuple(inputs_shape)}"
        )
        if len(tokens_shape) != 3 or tokens_shape[-1] != inputs_shape[-1]:
            raise ValueError(
                "TokenFuser: tokens must have shape (B, T * S, C) with the channels of the inputs. "
                + shapes
            )
        if frames is None or tokens_shape[1] is None:
            if self.built and self.mixing == "frame":
                return self.mix.units
            if self.built and frames is not None:
                return self.mix.units // frames
            raise ValueError(
                "TokenFuser: the number of frames and the number of tokens must be known. " + shapes
            )
        if tokens_shape[1] % frames:
            raise ValueError(
                "TokenFuser: every frame must have the same number of tokens. "
                f"{shapes}, with {frames} frames"
            )
        return tokens_shape[1] // frames

    def compute_output_shape(
        self, tokens_shape: tuple[int | None, ...], inputs_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return inputs_shape

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "mixing": self.mixing,
            "beta": self.beta,
            "norm": self.norm,
            "grid": self.grid,
            "bottleneck_dim": self.bottleneck_dim,
            "activation": activations.serialize(self.activation),
            "dropout_rate": self.dropout_rate,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
