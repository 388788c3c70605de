import keras
from keras import layers

from keras_tokenlearner._checks import check_bool, check_channels, check_int, check_rate
from keras_tokenlearner.layers import activations
from keras_tokenlearner.layers.linear import linear


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class MLP(layers.Layer):
    """Two dense layers with an activation between, over the last axis.

    `y = W2 activation(W1 x + b1) + b2`, with dropout after each dense layer. It is the MLP of the
    transformer block, of the TokenLearner's and the TokenFuser's later versions, and of the
    generators that the paper compares with.

    With a gate it is `y = W2 (activation(Wg x + bg) * (W1 x + b1)) + b2`; with the activation
    `"silu"` that is SwiGLU, as in DINOv2's largest model.

    Args:
        mlp_dim: Integer, units of the first dense layer.
        output_dim: Integer, units of the second. Defaults to the channels of the inputs.
        activation: Name or callable. Defaults to `"gelu_tanh"`, the form of the JAX reference.
        dropout_rate: Float in [0, 1), the rate after each dense layer.
        gated: Boolean, whether a third dense layer gates the hidden units.
        **kwargs: Name, dtype and the like, for `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of shape (..., C).
        training: Boolean, whether to drop.

    Returns:
        Tensor of shape (..., output_dim).

    Raises:
        ValueError: If a size is not a positive integer or a rate is outside [0, 1).

    Example:

    >>> x = keras.random.normal((2, 5, 16))
    >>> MLP(mlp_dim=64)(x).shape[-1]
    16

    Source: the gate, Shazeer, "GLU Variants Improve Transformer", 2020.
    """

    def __init__(
        self,
        mlp_dim,
        output_dim=None,
        activation="gelu_tanh",
        dropout_rate=0.0,
        gated=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.mlp_dim = check_int("MLP", "mlp_dim", mlp_dim)
        self.output_dim = output_dim
        if output_dim is not None:
            self.output_dim = check_int("MLP", "output_dim", output_dim)
        self.activation = activations.get(activation, "MLP")
        self.dropout_rate = check_rate("MLP", "dropout_rate", dropout_rate)
        self.gated = check_bool("MLP", "gated", gated)

    def build(self, inputs_shape):
        channels = check_channels("MLP", inputs_shape)
        dense = {
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
        self.output_dense = layers.Dense(self.output_dim or channels, name="output", **dense)
        self.output_dense.build(hidden_shape)
        self.output_dropout = layers.Dropout(
            self.dropout_rate, dtype=self.dtype_policy, name="output_dropout"
        )

    def call(self, inputs, training=None):
        if self.gated:
            x = self.activation(linear(self.gate, inputs)) * linear(self.hidden, inputs)
        else:
            x = self.activation(linear(self.hidden, inputs))
        if not self.dropout_rate:
            return linear(self.output_dense, x)
        x = self.hidden_dropout(x, training=training)
        return self.output_dropout(linear(self.output_dense, x), training=training)

    def compute_output_shape(self, inputs_shape):
        return (*inputs_shape[:-1], self.output_dim or inputs_shape[-1])

    def get_config(self):
        return {
            **super().get_config(),
            "mlp_dim": self.mlp_dim,
            "output_dim": self.output_dim,
            "activation": activations.serialize(self.activation),
            "dropout_rate": self.dropout_rate,
            "gated": self.gated,
        }
