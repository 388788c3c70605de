import keras
from keras import layers, ops

# On JAX so many weights of a head are worth a turn of their own; fewer are faster together.
_MANY_WEIGHTS = 128 * 128
# The weights of so many queries of a head stay in the cache.
_MANY_QUERIES = 1024
# On PyTorch more are no slower in its fused attention, which holds less memory.
_MOST_WEIGHTS = 1024 * 1024
# In which our order of operations is faster than Keras's.
_DTYPES = {"jax": "float32", "tensorflow": "float32", "torch": "bfloat16"}


class MultiHeadAttention(layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention`, faster on CPUs, without mask and dropout.

    JAX on one device takes many tokens in float32 head by head, and very many piece by piece, so
    that no weights (B, heads, N, N) go through memory, and computes them again for the gradient.
    TensorFlow in float32, and PyTorch in bfloat16, for which its fused attention was not made, take
    two products of stacks of matrices. All else is Keras's.
    """

    def _compute_attention(self, query, key, value, attention_mask=None, training=None, *options):
        def of_keras(query, key, value):
            given = (attention_mask, training, *options)
            return super(MultiHeadAttention, self)._compute_attention(query, key, value, *given)

        ours = attention_mask is None and not self.dropout and not any(options)
        backend = keras.backend.backend()
        if not ours or self.compute_dtype != _DTYPES.get(backend) or len(query.shape) != 4:
            return of_keras(query, key, value)
        if backend == "jax":
            many = query.shape[1] * key.shape[1] >= _MANY_WEIGHTS
            if not many or keras.distribution.distribution() is not None:
                return of_keras(query, key, value)
            import jax

            inputs, other = (query, key, value), lambda *inputs: of_keras(*inputs)[0]
            return jax.lax.platform_dependent(*inputs, cpu=_head_by_head, default=other), None
        if backend == "torch":
            few = query.shape[1] * key.shape[1] <= _MOST_WEIGHTS
            if not few or query.device.type != "cpu":
                return of_keras(query, key, value)
        return _all_heads(query, key, value), None


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
