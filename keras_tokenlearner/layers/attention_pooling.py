import keras
from keras import ops

from keras_tokenlearner._checks import check_channels, check_heads, check_int, check_positive
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers import activations
from keras_tokenlearner.layers.composite import CompositeLayer
from keras_tokenlearner.layers.layer_normalization import norm_layer
from keras_tokenlearner.layers.mlp import MLP
from keras_tokenlearner.layers.multi_head_attention import MultiHeadAttention


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class AttentionPooling(CompositeLayer):
    """Pools all tokens to one vector by attention from a learned query: the head of SigLIP.

    `y = Attention(latent, x, x)` with a learned vector `latent`, then `y <- y + MLP(Norm(y))`. The
    layer accepts any number of tokens, for example 196 patches or 8 learned tokens.

    Args:
        num_heads: Integer, attention heads; must divide the channels.
        mlp_dim: Integer, hidden units of the MLP. `None` means four times the channels. 0 means no
            MLP and no norm, as in AIMv2.
        activation: Name or callable, the activation of the MLP.
        norm: `"layer_norm"` or `"rms_norm"`, the norm before the MLP.
        layer_norm_epsilon: Float, the epsilon of this norm.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, N, C).

    Returns:
        Tensor of shape (B, C).

    Raises:
        ValueError: If an argument is out of range or `num_heads` does not divide the channels.

    Example:

    >>> tokens = keras.random.normal((2, 196, 32))
    >>> tuple(AttentionPooling(num_heads=4)(tokens).shape)
    (2, 32)

    Source: Zhai et al., "Scaling Vision Transformers", 2022, after Lee et al., "Set Transformer",
    2019.
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int | None = None,
        activation: activations.Activation = "gelu_tanh",
        norm: str = "layer_norm",
        layer_norm_epsilon: float = 1e-6,
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(**kwargs)
        owner = "AttentionPooling"
        self.num_heads = check_int(owner, "num_heads", num_heads)
        self.mlp_dim = None if mlp_dim is None else check_int(owner, "mlp_dim", mlp_dim, minimum=0)
        self.activation = activations.get(activation, owner)
        self.norm = norm
        self.layer_norm_epsilon = check_positive(owner, "layer_norm_epsilon", layer_norm_epsilon)
        norm_layer(owner, norm, self.layer_norm_epsilon)

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        channels = check_channels("AttentionPooling", inputs_shape, rank=3)
        self.latent = self.add_weight(
            shape=(1, channels),
            initializer=keras.initializers.RandomNormal(stddev=channels**-0.5),
            name="latent",
        )
        self.attention = MultiHeadAttention(
            self.num_heads,
            key_dim=check_heads("AttentionPooling", self.num_heads, channels),
            dtype=self.dtype_policy,
            name="attention",
        )
        self.attention.build((None, 1, channels), inputs_shape)
        if self.mlp_dim == 0:
            return
        self.mlp_norm = norm_layer(
            "AttentionPooling", self.norm, self.layer_norm_epsilon, "mlp_norm", self.dtype_policy
        )
        self.mlp_norm.build((None, 1, channels))
        self.mlp = MLP(
            self.mlp_dim or 4 * channels,
            activation=self.activation,
            dtype=self.dtype_policy,
            name="mlp",
        )
        self.mlp.build((None, 1, channels))

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        shape = (ops.shape(inputs)[0], 1, inputs.shape[-1])
        query = ops.broadcast_to(ops.cast(self.latent, inputs.dtype), shape)
        x = self.attention(query, inputs)
        if self.mlp_dim != 0:
            x = x + self.mlp(self.mlp_norm(x))
        return x[:, 0]

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (inputs_shape[0], inputs_shape[-1])

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "activation": activations.serialize(self.activation),
            "norm": self.norm,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
