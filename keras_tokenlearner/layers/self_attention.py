import math

import keras
from keras import layers, ops

from keras_tokenlearner._checks import check_channels, check_heads, check_int
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers.composite import CompositeLayer


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class SelfAttention(CompositeLayer):
    """Multi-head self-attention of the paper's bottleneck modules: no bias, no output projection.

    `y_i = sum_j softmax_j(q_i . k_j / sqrt(d)) v_j` for every head. q, k and v are linear in the
    tokens, and d is the width of a head's queries. The outputs of the heads are concatenated.

    The layer is lighter than `keras.layers.MultiHeadAttention`, because the 1x1x1 convolutions
    around a bottleneck module already project. With 8 heads and queries narrower than values, the
    layer reproduces the costs in the paper. The paper's text states only the number of heads.

    Args:
        num_heads: Integer, attention heads; must divide `key_dim` and `value_dim`.
        key_dim: Integer, channels of the queries and of the keys, all heads together.
        value_dim: Integer, channels of the values and of the outputs. Defaults to the channels of
            the inputs.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, N, C).

    Returns:
        Tensor of shape (B, N, value_dim).

    Raises:
        ValueError: If an argument is not a positive integer, or `num_heads` does not divide
            `key_dim` and `value_dim`.

    Example:

    >>> tokens = keras.random.normal((2, 16, 32))
    >>> tuple(SelfAttention(num_heads=4, key_dim=8)(tokens).shape)
    (2, 16, 32)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 6.3. After: Srinivas et al., "Bottleneck Transformers for Visual Recognition",
    2021.
    """

    def __init__(
        self,
        num_heads: int = 8,
        key_dim: int = 128,
        value_dim: int | None = None,
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = check_int("SelfAttention", "num_heads", num_heads)
        self.key_dim = check_int("SelfAttention", "key_dim", key_dim)
        check_heads("SelfAttention", self.num_heads, self.key_dim, "key_dim")
        self.value_dim = value_dim
        if value_dim is not None:
            self.value_dim = check_int("SelfAttention", "value_dim", value_dim)

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        channels = check_channels("SelfAttention", inputs_shape, rank=3)
        value_dim = self.value_dim or channels
        name = "value_dim" if self.value_dim else None
        check_heads("SelfAttention", self.num_heads, value_dim, name)
        self.query_dense = self._dense(self.key_dim, inputs_shape, "query")
        self.key_dense = self._dense(self.key_dim, inputs_shape, "key")
        self.value_dense = self._dense(value_dim, inputs_shape, "value")

    def _dense(self, units: int, shape: tuple[int | None, ...], name: str) -> layers.Dense:
        dense = layers.Dense(
            units,
            use_bias=False,
            kernel_initializer="glorot_uniform",
            dtype=self.dtype_policy,
            name=name,
        )
        dense.build(shape)
        return dense

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        q = self._split_heads(self.query_dense(inputs))  # (B, N, heads, d)
        k = self._split_heads(self.key_dense(inputs))
        v = self._split_heads(self.value_dense(inputs))
        logits = ops.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(q.shape[-1])
        weights = ops.cast(ops.softmax(ops.cast(logits, "float32"), axis=-1), v.dtype)
        y = ops.einsum("bhij,bjhd->bihd", weights, v)
        return ops.reshape(y, (*ops.shape(inputs)[:2], self.value_dense.units))

    def _split_heads(self, x: keras.KerasTensor) -> keras.KerasTensor:
        shape = (*ops.shape(x)[:2], self.num_heads, x.shape[-1] // self.num_heads)
        return ops.reshape(x, shape)

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*inputs_shape[:-1], self.value_dim or inputs_shape[-1])

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
        }
