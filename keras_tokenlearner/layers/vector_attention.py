import keras
from keras import layers, ops

from keras_tokenlearner._checks import check_bool, check_channels, check_int
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers.channel_attention import channel_attention
from keras_tokenlearner.layers.composite import CompositeLayer

_QUERIES_AT_ONCE = 8  # so that the largest tensor has shape (B, 8, N, C)


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class VectorAttention(CompositeLayer):
    """Attention with separate weights for every channel, the paper's Vector Transformer.

    For every token `z_i` (Eq. 3 of the paper)

    `y_i = sum_j softmax_j(gamma(f_q(z_i) * f_k(z_j))) * f_v(z_j)`

    with linear `f_q`, `f_k`, `f_v`, products by channel, and a softmax over j for each channel. No
    sum precedes the softmax, so there is no `1 / sqrt(d)`. There is no output projection.

    `gamma` is a projection with `gamma=True`, or if keys and values differ in channels. The
    projection has no bias, because a bias would cancel in the softmax. Otherwise `gamma` is the
    identity. The layer is then multi-head attention with one channel per head and without scaling.

    Eq. 3, computed directly, stores a tensor of N x N x C. This layer computes a few queries at a
    time, also for the gradient. Its memory grows with N x C. Without `gamma` and mask, the layer is
    also several times faster than the direct computation. With `gamma`, the N x N products by a
    C x C matrix dominate the cost.

    Args:
        key_dim: Integer, channels of queries and keys. Defaults to the channels of the inputs.
        value_dim: Integer, channels of values and of the outputs. Defaults to `key_dim`.
        gamma: Boolean, whether to project the products before the softmax. Must not be `False` if
            `value_dim` differs from `key_dim`. Defaults to `True` in this case only.
        use_bias: Boolean, whether `f_q`, `f_k` and `f_v` have biases.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        query: Tensor of shape (B, N, C).
        value: Tensor of shape (B, M, C), the tokens to attend to. Defaults to `query`.
        attention_mask: Boolean tensor of shape (B, N, M) or (1, N, M), `True` where a query may
            attend to a token.

    Returns:
        Tensor of shape (B, N, value_dim).

    Raises:
        ValueError: If a size is not a positive integer. Also if `gamma=False` and `value_dim`
            differs from `key_dim`.

    Example:

    >>> tokens = keras.random.normal((2, 8, 32))
    >>> tuple(VectorAttention()(tokens).shape)
    (2, 8, 32)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, appendix A.1. After: Zhao et al., "Exploring Self-attention for Image Recognition", 2020.
    """

    def __init__(
        self,
        key_dim: int | None = None,
        value_dim: int | None = None,
        gamma: bool | None = None,
        use_bias: bool = True,
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(**kwargs)
        owner = "VectorAttention"
        self.key_dim = None if key_dim is None else check_int(owner, "key_dim", key_dim)
        self.value_dim = None if value_dim is None else check_int(owner, "value_dim", value_dim)
        self.gamma = None if gamma is None else check_bool(owner, "gamma", gamma)
        self.use_bias = check_bool(owner, "use_bias", use_bias)

    def build(
        self, query_shape: tuple[int | None, ...], value_shape: tuple[int | None, ...] | None = None
    ) -> None:
        value_shape = value_shape or query_shape
        channels = check_channels("VectorAttention", query_shape, rank=3)
        check_channels("VectorAttention", value_shape, rank=3)
        key_dim = self.key_dim or channels
        value_dim = self.value_dim or key_dim
        if self.gamma is False and key_dim != value_dim:
            raise ValueError(
                "VectorAttention: `gamma` must be None or True if `value_dim` differs from "
                f"`key_dim`. Received: gamma=False, key_dim={key_dim}, value_dim={value_dim}"
            )
        self.query_dense = self._dense(key_dim, query_shape, "query")
        self.key_dense = self._dense(key_dim, value_shape, "key")
        self.value_dense = self._dense(value_dim, value_shape, "value")
        self.gamma_kernel = None
        if self.gamma or key_dim != value_dim:
            self.gamma_kernel = self.add_weight(
                shape=(key_dim, value_dim), initializer="glorot_uniform", name="gamma"
            )

    def _dense(self, units: int, shape: tuple[int | None, ...], name: str) -> layers.Dense:
        dense = layers.Dense(units, use_bias=self.use_bias, dtype=self.dtype_policy, name=name)
        dense.build(shape)
        return dense

    def call(
        self,
        query: keras.KerasTensor,
        value: keras.KerasTensor | None = None,
        attention_mask: keras.KerasTensor | None = None,
    ) -> keras.KerasTensor:
        value = query if value is None else value
        q, k, v = self.query_dense(query), self.key_dense(value), self.value_dense(value)
        if self.gamma_kernel is None and attention_mask is None:
            return channel_attention(q, k, v)
        return self._in_chunks(q, k, v, attention_mask)

    def _in_chunks(
        self,
        q: keras.KerasTensor,
        k: keras.KerasTensor,
        v: keras.KerasTensor,
        attention_mask: keras.KerasTensor | None,
    ) -> keras.KerasTensor:
        batch, length = ops.shape(q)[:2]
        chunks, shared = {"q": _split(q)}, {"k": k, "v": v}
        if attention_mask is not None:
            shape = (batch, length, ops.shape(k)[1])
            mask = ops.cast(ops.cast(attention_mask, "bool"), q.dtype)
            chunks["mask"] = _split(ops.broadcast_to(mask, shape))
        if self.gamma_kernel is not None:
            shared["gamma"] = ops.convert_to_tensor(self.gamma_kernel)
        # On TensorFlow, `remat` needs tensors as floating-point arguments, not as captured values.
        attend = keras.remat(_attend)
        y = ops.map(lambda chunk: attend({**chunk, **shared}), chunks)  # (chunks, B, 8, C)
        padded = length + -length % _QUERIES_AT_ONCE
        y = ops.reshape(ops.moveaxis(y, 0, 1), (batch, padded, v.shape[-1]))
        return y[:, :length]

    def compute_output_shape(
        self, query_shape: tuple[int | None, ...], value_shape: tuple[int | None, ...] | None = None
    ) -> tuple[int | None, ...]:
        return (*query_shape[:-1], self.value_dim or self.key_dim or query_shape[-1])

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "gamma": self.gamma,
            "use_bias": self.use_bias,
        }


def _attend(x: dict[str, keras.KerasTensor]) -> keras.KerasTensor:
    """Compute Eq. 3 directly for a few queries, (B, n, C), and all tokens, (B, M, C).

    This function computes in float32, as `channel_attention` does. The softmax would amplify the
    rounding errors of half-precision products. In float16, these products would also overflow.
    """
    dtype = x["v"].dtype
    x = {name: value if name == "mask" else ops.cast(value, "float32") for name, value in x.items()}
    logits = ops.expand_dims(x["q"], 2) * ops.expand_dims(x["k"], 1)  # (B, n, M, C)
    if "gamma" in x:
        logits = ops.matmul(logits, x["gamma"])
    if "mask" in x:
        logits = ops.where(ops.expand_dims(x["mask"], -1) > 0, logits, -1e9)
    weights = ops.softmax(logits, axis=2)
    return ops.cast(ops.sum(weights * ops.expand_dims(x["v"], 1), axis=2), dtype)


def _split(x: keras.KerasTensor) -> keras.KerasTensor:
    """Cut (B, N, C) into (chunks, B, 8, C), with zeros at the end if 8 does not divide N."""
    batch, length, size = ops.shape(x)
    x = ops.pad(x, [[0, 0], [0, -length % _QUERIES_AT_ONCE], [0, 0]])
    chunks = -(-length // _QUERIES_AT_ONCE)  # with an empty batch, backends cannot infer this size
    return ops.moveaxis(ops.reshape(x, (batch, chunks, _QUERIES_AT_ONCE, size)), 1, 0)
