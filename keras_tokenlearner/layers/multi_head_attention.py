import math
from collections.abc import Sequence

import keras
from keras import layers, ops

from keras_tokenlearner._checks import check_bool, check_choice, check_positive
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers.layer_normalization import NORMS, norm_layer
from keras_tokenlearner.layers.linear import linear, linear_each
from keras_tokenlearner.layers.rotary import LAYOUTS, rotate
from keras_tokenlearner.layers.sublayers import call_sublayer

QKV_BIASES = ("all", "query_value", "none")

# From this number of attention weights per head on, JAX is faster with one head at a time.
_MANY_WEIGHTS = 128 * 128
# Number of queries whose attention weights fit in the CPU's cache.
_MANY_QUERIES = 1024
# Attention weights per head. Above this number, PyTorch's fused attention on CPUs is as fast as
# matrix products and needs less memory.
_MOST_WEIGHTS = 1024 * 1024


class MultiHeadAttention(layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention` with faster code for calls without mask and dropout.

    The faster paths:

    * JAX on one CPU device, in float32: for many tokens, computes one head at a time. For very many
      tokens, also splits the queries. The weights (B, heads, N, N) are never stored. The gradient
      computes the weights again.
    * TensorFlow in float32, and PyTorch on a CPU in bfloat16: two batched matrix products. On
      CPUs, PyTorch's fused attention is not optimized for bfloat16.
    * All other cases on PyTorch: the fused attention, which reads queries, keys and values without
      copies. This includes bfloat16 on a CPU for more than 1024 x 1024 attention weights per head.

    On PyTorch, the matrix products of the projections also add the biases.

    Other cases use Keras's code. Keras's arguments for gates and windows are not supported.

    Every path supports the options of ViTs. These are biases of some projections, norms of queries
    and keys, rotary positions, and a norm before the output projection.

    Args:
        *args: Arguments of `keras.layers.MultiHeadAttention`.
        qkv_bias: `"all"`, `"query_value"` (BEiT, EVA) or `"none"`, the projections with a bias.
        output_bias: Boolean, whether the output projection has a bias.
        qk_norm: `None`, or the norm of queries and keys: `"layer_norm"` or `"rms_norm"`.
        inner_norm: `None`, or the norm before the output projection, named as for `qk_norm`.
        layer_norm_epsilon: Float, the epsilon of these norms.
        rotary: `None`, or a layout of `RotaryPositions`. With a layout, the call takes the table of
            `RotaryPositions` as `rotation`. Without a table nothing is rotated.
        **kwargs: Arguments of `keras.layers.MultiHeadAttention`.

    Call arguments besides Keras's own:
        rotation: Table of `RotaryPositions`.
        key_bias: Tensor of shape (M,), or `None`. One number for each key, added to the logits of
            all queries.

    Raises:
        ValueError: If an argument is unknown or out of range. Also if a layer without `rotary` is
            called with a `rotation`.
    """

    def __init__(
        self,
        *args: int,
        qkv_bias: str = "all",
        output_bias: bool = True,
        qk_norm: str | None = None,
        inner_norm: str | None = None,
        layer_norm_epsilon: float = 1e-6,
        rotary: str | None = None,
        **kwargs: int | float | str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(*args, **kwargs)
        owner = "MultiHeadAttention"
        self.qkv_bias = check_choice(owner, "qkv_bias", qkv_bias, QKV_BIASES)
        self.output_bias = check_bool(owner, "output_bias", output_bias)
        self.qk_norm = check_choice(owner, "qk_norm", qk_norm, (None, *NORMS))
        self.inner_norm = check_choice(owner, "inner_norm", inner_norm, (None, *NORMS))
        self.layer_norm_epsilon = check_positive(owner, "layer_norm_epsilon", layer_norm_epsilon)
        self.rotary = check_choice(owner, "rotary", rotary, (None, *LAYOUTS))

    def build(
        self,
        query_shape: tuple[int | None, ...],
        value_shape: tuple[int | None, ...],
        key_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        if self.qkv_bias == "all" and self.output_bias:
            super().build(query_shape, value_shape, key_shape)
        else:
            self._build_projections(query_shape, value_shape, key_shape or value_shape)
        if self.qk_norm:
            self.query_norm = self._norm(self.qk_norm, self.key_dim, "query_norm")
            self.key_norm = self._norm(self.qk_norm, self.key_dim, "key_norm")
        if self.inner_norm:
            channels = self.num_heads * self.value_dim
            self.output_norm = self._norm(self.inner_norm, channels, "output_norm")

    def _build_projections(
        self,
        query_shape: tuple[int | None, ...],
        value_shape: tuple[int | None, ...],
        key_shape: tuple[int | None, ...],
    ) -> None:
        """Create the projections under Keras's names, with the biases that the arguments choose."""
        heads = self.num_heads
        some, all_of_them = self.qkv_bias != "none", self.qkv_bias == "all"
        self._query_dense = self._dense("query", query_shape, (heads, self.key_dim), some)
        self._key_dense = self._dense("key", key_shape, (heads, self.key_dim), all_of_them)
        self._value_dense = self._dense("value", value_shape, (heads, self.value_dim), some)
        self._build_attention(4)
        joined = (*query_shape[:-1], heads, self.value_dim)
        output = query_shape[-1:]
        self._output_dense = self._dense("attention_output", joined, output, self.output_bias)

    def _dense(
        self,
        name: str,
        shape: tuple[int | None, ...],
        output: tuple[int | None, ...],
        use_bias: bool,
    ) -> layers.EinsumDense:
        split = len(output) == 2
        dense = layers.EinsumDense(
            "abc,cde->abde" if split else "abcd,cde->abe",
            output_shape=(None, *output),
            bias_axes=("de" if split else "e") if use_bias and self.use_bias else None,
            name=name,
            **self._get_common_kwargs_for_sublayer(),
        )
        dense.build(shape)
        return dense

    def _norm(self, norm: str, channels: int, name: str) -> keras.Layer:
        layer = norm_layer(
            "MultiHeadAttention", norm, self.layer_norm_epsilon, name, self.dtype_policy
        )
        layer.build((None, None, channels))
        return layer

    def call(
        self,
        query: keras.KerasTensor,
        value: keras.KerasTensor,
        key: keras.KerasTensor | None = None,
        query_mask: keras.KerasTensor | None = None,
        value_mask: keras.KerasTensor | None = None,
        key_mask: keras.KerasTensor | None = None,
        attention_mask: keras.KerasTensor | None = None,
        rotation: keras.KerasTensor | None = None,
        key_bias: keras.KerasTensor | None = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
    ) -> keras.KerasTensor | tuple[keras.KerasTensor, keras.KerasTensor]:
        if rotation is not None and self.rotary is None:
            raise ValueError(
                "MultiHeadAttention: `rotation` needs a layer with `rotary`; create the layer with "
                f"the layout of the rotary table, one of {LAYOUTS}. Received: rotary=None"
            )
        masks = query_mask, value_mask, key_mask, attention_mask
        options = return_attention_scores, training, use_causal_mask
        masked = use_causal_mask or any(mask is not None for mask in masks)
        of_keras = masked or return_attention_scores or self.dropout or len(query.shape) != 3
        on_torch = keras.backend.backend() == "torch" and not of_keras
        plain = rotation is None and key_bias is None and not self.qk_norm and not self.inner_norm
        if plain and not on_torch:
            return super().call(query, value, key, *masks, *options)
        inputs = query, value if key is None else key, value
        projections = self.query_dense, self.key_dense, self.value_dense
        query, key, value = linear_each(projections, inputs)
        if self.qk_norm:
            query = call_sublayer(self, self.query_norm, query, training=training)
            key = call_sublayer(self, self.key_norm, key, training=training)
        if rotation is not None and self.rotary is not None:
            query, key = (rotate(x, rotation, self.rotary) for x in (query, key))
        scores = None
        bias = None if key_bias is None else ops.cast(key_bias, self.compute_dtype)
        if on_torch:
            heads = _on_torch(query, key, value, bias)
        elif bias is not None and not of_keras:
            heads = self._attend_with_bias(query, key, value, bias)
        else:
            mask = self._mask(inputs, masks, use_causal_mask) if masked else None
            if bias is not None:
                query, key = self._with_bias_channel(query, key, bias)
            explicit = return_attention_scores or bias is not None
            heads, scores = self._compute_attention(query, key, value, mask, training, explicit)
        if self.inner_norm:
            # The norm needs known channels: a -1 here would hide them in TensorFlow's graphs.
            joined = ops.reshape(heads, (*ops.shape(heads)[:2], math.prod(heads.shape[2:])))
            joined = call_sublayer(self, self.output_norm, joined, training=training)
            heads = ops.reshape(joined, ops.shape(heads))
        output = linear(self.output_dense, heads)
        return (output, scores) if return_attention_scores else output

    def _with_bias_channel(
        self, query: keras.KerasTensor, key: keras.KerasTensor, bias: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Return queries and keys with an extra channel that adds the bias to their product.

        The result is exact, and Keras's code for masks, dropout and weights is used unchanged.
        """
        ones = ops.full_like(query[..., :1], self.key_dim**0.5)
        biases = ops.broadcast_to(bias[:, None, None], ops.shape(key[..., :1]))
        return ops.concatenate([query, ones], axis=-1), ops.concatenate([key, biases], axis=-1)

    def _attend_with_bias(
        self,
        query: keras.KerasTensor,
        key: keras.KerasTensor,
        value: keras.KerasTensor,
        bias: keras.KerasTensor,
    ) -> keras.KerasTensor:
        """Compute attention with a bias per key, without mask or dropout, on JAX or TensorFlow."""

        def of_keras(
            query: keras.KerasTensor, key: keras.KerasTensor, value: keras.KerasTensor
        ) -> keras.KerasTensor:
            return ops.dot_product_attention(
                query,
                key,
                value,
                bias=ops.reshape(bias, (1, 1, 1, -1)),
                scale=self.key_dim**-0.5,
                flash_attention=False,  # flash attention supports no bias
            )

        if self.compute_dtype != "float32":
            return of_keras(query, key, value)
        if keras.backend.backend() == "tensorflow":
            return _all_heads(query, key, value, bias)
        many = query.shape[1] * key.shape[1] >= _MANY_WEIGHTS
        if not many or keras.distribution.distribution() is not None:
            return of_keras(query, key, value)
        import jax

        def by_heads(
            query: keras.KerasTensor, key: keras.KerasTensor, value: keras.KerasTensor
        ) -> keras.KerasTensor:
            return _head_by_head(query, key, value, bias)

        return jax.lax.platform_dependent(query, key, value, cpu=by_heads, default=of_keras)

    def _mask(
        self,
        inputs: tuple[keras.KerasTensor, ...],
        masks: tuple[keras.KerasTensor | None, ...],
        use_causal_mask: bool,
    ) -> keras.KerasTensor:
        query, _, value = inputs
        names = "query_mask", "value_mask", "key_mask", "attention_mask"
        given = dict(zip(names, masks, strict=True))
        return self._compute_attention_mask(query, value, **given, use_causal_mask=use_causal_mask)

    def _compute_attention(
        self,
        query: keras.KerasTensor,
        key: keras.KerasTensor,
        value: keras.KerasTensor,
        attention_mask: keras.KerasTensor | None = None,
        training: bool | None = None,
        *options: bool,
    ) -> tuple[keras.KerasTensor, keras.KerasTensor | None]:
        def of_keras(
            query: keras.KerasTensor, key: keras.KerasTensor, value: keras.KerasTensor
        ) -> tuple[keras.KerasTensor, keras.KerasTensor | None]:
            given = (attention_mask, training, *options)
            return super(MultiHeadAttention, self)._compute_attention(query, key, value, *given)

        ours = attention_mask is None and not self.dropout and not any(options)
        on_torch = keras.backend.backend() == "torch"
        if not ours or on_torch or self.compute_dtype != "float32" or len(query.shape) != 4:
            return of_keras(query, key, value)
        if keras.backend.backend() == "tensorflow":
            return _all_heads(query, key, value), None
        many = query.shape[1] * key.shape[1] >= _MANY_WEIGHTS
        if not many or keras.distribution.distribution() is not None:
            return of_keras(query, key, value)
        import jax

        inputs, other = (query, key, value), lambda *inputs: of_keras(*inputs)[0]
        return jax.lax.platform_dependent(*inputs, cpu=_head_by_head, default=other), None

    def compute_output_spec(
        self,
        *args: keras.KerasTensor,
        rotation: keras.KerasTensor | None = None,
        key_bias: keras.KerasTensor | None = None,
        **kwargs: keras.KerasTensor | bool | None,
    ) -> keras.KerasTensor | tuple[keras.KerasTensor, keras.KerasTensor]:
        return super().compute_output_spec(*args, **kwargs)

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "qkv_bias": self.qkv_bias,
            "output_bias": self.output_bias,
            "qk_norm": self.qk_norm,
            "inner_norm": self.inner_norm,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "rotary": self.rotary,
        }


def _on_torch(
    query: keras.KerasTensor,
    key: keras.KerasTensor,
    value: keras.KerasTensor,
    bias: keras.KerasTensor | None = None,
) -> keras.KerasTensor:
    """Return the result of `_all_heads`, by PyTorch's fused attention where it is faster."""
    import torch

    few = query.shape[1] * key.shape[1] <= _MOST_WEIGHTS
    if few and query.dtype == torch.bfloat16 and query.device.type == "cpu":
        return _all_heads(query, key, value, bias)
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    mask = None if bias is None else bias.reshape(1, 1, 1, -1)
    fused = torch.nn.functional.scaled_dot_product_attention
    return fused(query, key, value, attn_mask=mask).transpose(1, 2)


def _all_heads(
    query: keras.KerasTensor,
    key: keras.KerasTensor,
    value: keras.KerasTensor,
    bias: keras.KerasTensor | None = None,
) -> keras.KerasTensor:
    """Attend from queries (B, N, heads, d) to keys (B, M, heads, d) with a bias per key, (M,)."""
    heads = _attend(_matrices(query, key, value), bias)
    return ops.transpose(heads, (0, 2, 1, 3))


def _head_by_head(
    query: keras.KerasTensor,
    key: keras.KerasTensor,
    value: keras.KerasTensor,
    bias: keras.KerasTensor | None = None,
) -> keras.KerasTensor:
    """Return the result of `_all_heads`, computed one head of one example at a time."""
    batch, tokens, heads, size = query.shape
    each = [ops.reshape(x, (-1, *x.shape[2:])) for x in _matrices(query, key, value)]
    output = ops.map(lambda matrices: _piece_by_piece(matrices, bias), each)
    return ops.transpose(ops.reshape(output, (batch, heads, tokens, size)), (0, 2, 1, 3))


def _piece_by_piece(
    matrices: Sequence[keras.KerasTensor], bias: keras.KerasTensor | None
) -> keras.KerasTensor:
    """Return the result of `_attend` for one head, computed for a group of queries at a time."""
    query, key, value = matrices
    tokens, size = query.shape
    pieces = -(-tokens // _MANY_QUERIES)
    query = ops.pad(query, ((0, -tokens % pieces), (0, 0)))
    attend = keras.remat(lambda piece: _attend((piece, key, value), bias))
    output = ops.map(attend, ops.reshape(query, (pieces, -1, size)))
    return ops.reshape(output, (-1, size))[:tokens]


def _matrices(
    query: keras.KerasTensor, key: keras.KerasTensor, value: keras.KerasTensor
) -> list[keras.KerasTensor]:
    """Return batches of matrices: queries (B, heads, N, d), keys (.., d, M), values (.., M, d)."""
    axes = (0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)
    return [ops.transpose(x, order) for x, order in zip((query, key, value), axes, strict=True)]


def _attend(
    matrices: Sequence[keras.KerasTensor], bias: keras.KerasTensor | None = None
) -> keras.KerasTensor:
    """Return the attention output for the matrices of `_matrices`."""
    query, key, value = matrices
    logits = ops.matmul(query * query.shape[-1] ** -0.5, key)
    weights = ops.softmax(logits if bias is None else logits + bias, axis=-1)
    return ops.matmul(weights, value)
