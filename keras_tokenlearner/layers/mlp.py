import keras
from keras import layers

from keras_tokenlearner._checks import (
    check_bool,
    check_channels,
    check_choice,
    check_int,
    check_positive,
    check_rate,
)
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers import activations
from keras_tokenlearner.layers.composite import CompositeLayer
from keras_tokenlearner.layers.layer_normalization import NORMS, norm_layer
from keras_tokenlearner.layers.linear import linear
from keras_tokenlearner.layers.sublayers import call_sublayer


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class MLP(CompositeLayer):
    """Two dense layers over the last axis, with an activation between them.

    `y = W2 activation(W1 x + b1) + b2`, with dropout after each dense layer. The transformer block,
    the `"mlp"` forms of TokenLearner and TokenFuser, and `PooledTokens` use this layer.

    With a gate, `y = W2 (activation(Wg x + bg) * (W1 x + b1)) + b2`. A gated MLP with `"silu"` is
    SwiGLU, as in DINOv2's largest model. With an inner norm, the input of W2 is normalised
    first, as in EVA-02.

    Args:
        mlp_dim: Integer, units of the first dense layer.
        output_dim: Integer, units of the second dense layer. Defaults to the input channels.
        activation: Name or callable. Defaults to `"gelu_tanh"`, as in the JAX ViT.
        dropout_rate: Float in [0, 1), the rate after each dense layer.
        gated: Boolean, whether a third dense layer gates the hidden units.
        use_bias: Boolean, whether the dense layers have biases.
        inner_norm: `None`, or the norm of the hidden units: `"layer_norm"` or `"rms_norm"`.
        layer_norm_epsilon: Float, the epsilon of the inner norm.
        zero_output: Boolean, whether the second dense layer starts at zero.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (..., C).
        training: Boolean, whether to apply dropout.

    Returns:
        Tensor of shape (..., output_dim).

    Raises:
        ValueError: If an argument is unknown or out of range, or C is not known.

    Example:

    >>> x = keras.random.normal((2, 5, 16))
    >>> MLP(mlp_dim=64)(x).shape[-1]
    16

    Source: Shazeer, "GLU Variants Improve Transformer", 2020, for the gate.
    """

    def __init__(
        self,
        mlp_dim: int,
        output_dim: int | None = None,
        activation: activations.Activation = "gelu_tanh",
        dropout_rate: float = 0.0,
        gated: bool = False,
        use_bias: bool = True,
        inner_norm: str | None = None,
        layer_norm_epsilon: float = 1e-6,
        zero_output: bool = False,
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(**kwargs)
        self.mlp_dim = check_int("MLP", "mlp_dim", mlp_dim)
        self.output_dim = output_dim
        if output_dim is not None:
            self.output_dim = check_int("MLP", "output_dim", output_dim)
        self.activation = activations.get(activation, "MLP")
        self.dropout_rate = check_rate("MLP", "dropout_rate", dropout_rate)
        self.gated = check_bool("MLP", "gated", gated)
        self.use_bias = check_bool("MLP", "use_bias", use_bias)
        self.inner_norm = check_choice("MLP", "inner_norm", inner_norm, (None, *NORMS))
        self.layer_norm_epsilon = check_positive("MLP", "layer_norm_epsilon", layer_norm_epsilon)
        self.zero_output = check_bool("MLP", "zero_output", zero_output)

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        channels = check_channels("MLP", inputs_shape)
        dense = {
            "use_bias": self.use_bias,
            "kernel_initializer": "glorot_uniform",
            "bias_initializer": keras.initializers.RandomNormal(stddev=1e-6),
            "dtype": self.dtype_policy,
        }
        self.hidden = layers.Dense(self.mlp_dim, name="hidden", **dense)
        self.hidden.build(inputs_shape)
        if self.gated:
            self.gate = layers.Dense(self.mlp_dim, name="gate", **dense)
            self.gate.build(inputs_shape)
        self.hidden_dropout = layers.Dropout(
            self.dropout_rate, dtype=self.dtype_policy, name="hidden_dropout"
        )
        hidden_shape = (*inputs_shape[:-1], self.mlp_dim)
        if self.inner_norm is not None:
            self.norm = norm_layer(
                "MLP", self.inner_norm, self.layer_norm_epsilon, "norm", self.dtype_policy
            )
            self.norm.build(hidden_shape)
        if self.zero_output:
            dense |= {"kernel_initializer": "zeros", "bias_initializer": "zeros"}
        self.output_dense = layers.Dense(self.output_dim or channels, name="output", **dense)
        self.output_dense.build(hidden_shape)
        self.output_dropout = layers.Dropout(
            self.dropout_rate, dtype=self.dtype_policy, name="output_dropout"
        )

    def call(self, inputs: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        if self.gated:
            x = linear(self.gate, inputs, self.activation) * linear(self.hidden, inputs)
        else:
            x = linear(self.hidden, inputs, self.activation)
        if self.dropout_rate:
            x = call_sublayer(self, self.hidden_dropout, x, training=training)
        if self.inner_norm is not None:
            x = call_sublayer(self, self.norm, x, training=training)
        x = linear(self.output_dense, x)
        if not self.dropout_rate:
            return x
        return call_sublayer(self, self.output_dropout, x, training=training)

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*inputs_shape[:-1], self.output_dim or inputs_shape[-1])

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "mlp_dim": self.mlp_dim,
            "output_dim": self.output_dim,
            "activation": activations.serialize(self.activation),
            "dropout_rate": self.dropout_rate,
            "gated": self.gated,
            "use_bias": self.use_bias,
            "inner_norm": self.inner_norm,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "zero_output": self.zero_output,
        }
