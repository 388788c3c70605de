import keras
from keras import layers, ops

from keras_tokenlearner.layers.linear import linear

# On JAX so many weights of a head are worth a turn of their own; fewer are faster together.
_MANY_WEIGHTS = 128 * 128
# The weights of so many queries of a head stay in the cache.
_MANY_QUERIES = 1024
# On PyTorch's CPUs more are no slower in its fused attention, which holds less memory.
_MOST_WEIGHTS = 1024 * 1024


class MultiHeadAttention(layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention`, faster without mask and dropout.

    On CPUs, JAX on one device takes many tokens in float32 head by head, and very many piece by
    piece, so that no weights (B, heads, N, N) go through memory, and computes them again for the
    gradient. TensorFlow in float32, and PyTorch in bfloat16, for which its fused attention was not
    made, take two products of stacks of matrices. PyTorch adds biases within the projections and
    copies nothing for its fused attention. All else is Keras's, whose gates and windows it is not
    made for.
    """

    def call(
        self,
        query,
        value,
        key=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
        attention_mask=None,
        return_attention_scores=False,
        training=None,
        use_causal_mask=False,
    ):
        masks = query_mask, value_mask, key_mask, attention_mask
        options = return_attention_scores, training, use_causal_mask
        masked = use_causal_mask or any(mask is not None for mask in masks)
        of_keras = masked or return_attention_scores or self.dropout or len(query.shape) != 3
        if keras.backend.backend() != "torch" or of_keras:
            return super().call(query, value, key, *masks, *options)
        inputs = query, value if key is None else key, value
        projections = self.query_dense, self.key_dense, self.value_dense
        projected = [linear(dense, x) for dense, x in zip(projections, inputs, strict=True)]
        return linear(self.output_dense, _on_torch(*projected))

    def _compute_attention(self, query, key, value, attention_mask=None, training=None, *options):
        def of_keras(query, key, value):
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


def _on_torch(query, key, value):
    """Do as `_all_heads`, by PyTorch's fused attention where that is the faster one."""
    import torch

    few = query.shape[1] * key.shape[1] <= _MOST_WEIGHTS
    if few and query.dtype == torch.bfloat16 and query.device.type == "cpu":
        return _all_heads(query, key, value)
    stacks = (x.transpose(1, 2) for x in (query, key, value))
    return torch.nn.functional.scaled_dot_product_attention(*stacks).transpose(1, 2)


def _all_heads(query, key, value):
    """Attend from (B, N, heads, d) to (B, M, heads, d)."""
    heads = _attend(_matrices(query, key, value))
    return ops.transpose(heads, (0, 2, 1, 3))


def _head_by_head(query, key, value):
    """Do as `_all_heads`, with one head of one example at a time."""
    batch, tokens, heads, size = query.shape
    each = [ops.reshape(x, (-1, *x.shape[2:])) for x in _matrices(query, key, value)]
    output = ops.reshape(ops.map(_piece_by_piece, each), (batch, heads, tokens, size))
    return ops.transpose(output, (0, 2, 1, 3))


def _piece_by_piece(matrices):
    """Do as `_attend` for one head, with as many queries at a time as the cache can hold."""
    query, key, value = matrices
    tokens, size = query.shape
    pieces = -(-tokens // _MANY_QUERIES)
    query = ops.pad(query, ((0, -tokens % pieces), (0, 0)))
    attend = keras.remat(lambda piece: _attend((piece, key, value)))
    output = ops.map(attend, ops.reshape(query, (pieces, -1, size)))
    return ops.reshape(output, (-1, size))[:tokens]


def _matrices(query, key, value):
    """Return stacks of matrices: queries (B, heads, N, d), keys (.., d, M), values (.., M, d)."""
    axes = (0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)
    return [ops.transpose(x, order) for x, order in zip((query, key, value), axes, strict=True)]


def _attend(matrices):
    """Return the values that queries find by their keys: matrices as `_matrices` has them."""
    query, key, value = matrices
    weights = ops.softmax(ops.matmul(query * query.shape[-1] ** -0.5, key), axis=-1)
    return ops.matmul(weights, value)
