from typing import cast

import keras
from keras import layers, ops

from keras_tokenlearner._checks import check_int, check_positive
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers import activations
from keras_tokenlearner.layers.composite import CompositeLayer
from keras_tokenlearner.layers.mlp import MLP


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class MixerBlock(CompositeLayer):
    """A block of MLP-Mixer: an MLP over the tokens, then an MLP over the channels.

    `u = x + MLP(LayerNorm(x)^T)^T`, the same for every channel. Then `y = u + MLP(LayerNorm(u))`,
    the same for every token.

    The paper does not state the sizes of the MLP-Mixer in Table 12. The costs in the paper fit one
    block over one token per frame. They fit one hidden unit per channel in the MLP over the
    channels. They fit 32 or 64 hidden units in the MLP over the tokens; the default here is 64.

    Args:
        token_dim: Integer, hidden units of the MLP over the tokens.
        channel_dim: Integer, hidden units of the MLP over the channels. Defaults to the channels.
        activation: Name or callable, the activation of the MLPs.
        layer_norm_epsilon: Float, the epsilon of the LayerNorms.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, N, C), with known N, the input size of the MLP over tokens.

    Returns:
        Tensor of the shape of the inputs.

    Raises:
        ValueError: If an argument is out of range, or N or C is not known.

    Example:

    >>> frames = keras.random.normal((2, 16, 32))
    >>> tuple(MixerBlock()(frames).shape)
    (2, 16, 32)

    Source: Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision", 2021.
    """

    def __init__(
        self,
        token_dim: int = 64,
        channel_dim: int | None = None,
        activation: activations.Activation = "gelu_tanh",
        layer_norm_epsilon: float = 1e-6,
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(**kwargs)
        self.token_dim = check_int("MixerBlock", "token_dim", token_dim)
        self.channel_dim = channel_dim
        if channel_dim is not None:
            self.channel_dim = check_int("MixerBlock", "channel_dim", channel_dim)
        self.activation = activations.get(activation, "MixerBlock")
        self.layer_norm_epsilon = check_positive(
            "MixerBlock", "layer_norm_epsilon", layer_norm_epsilon
        )

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        if len(inputs_shape) != 3 or None in inputs_shape[1:]:
            raise ValueError(
                "MixerBlock: inputs must have shape (B, N, C) with known N and C. "
                f"Received: shape={tuple(inputs_shape)}"
            )
        length, channels = cast(tuple[int, ...], inputs_shape[1:])
        self.token_norm, self.channel_norm = (
            layers.LayerNormalization(
                epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name=f"{over}_norm"
            )
            for over in ("token", "channel")
        )
        self.token_norm.build(inputs_shape)
        self.channel_norm.build(inputs_shape)
        self.token_mlp = MLP(
            self.token_dim, activation=self.activation, dtype=self.dtype_policy, name="token_mlp"
        )
        self.token_mlp.build((None, channels, length))
        self.channel_mlp = MLP(
            self.channel_dim or channels,
            activation=self.activation,
            dtype=self.dtype_policy,
            name="channel_mlp",
        )
        self.channel_mlp.build(inputs_shape)

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        x = ops.transpose(self.token_norm(inputs), (0, 2, 1))  # (B, C, N)
        x = inputs + ops.transpose(self.token_mlp(x), (0, 2, 1))
        return x + self.channel_mlp(self.channel_norm(x))

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return inputs_shape

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "token_dim": self.token_dim,
            "channel_dim": self.channel_dim,
            "activation": activations.serialize(self.activation),
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
