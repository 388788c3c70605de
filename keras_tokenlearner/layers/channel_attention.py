"""Exact attention with separate weights per channel, in memory linear in the number of tokens."""

from collections.abc import Callable, Sequence

import keras
from keras import ops

_ROWS = 16  # queries (keys in the gradient) at once: the largest tensor has shape (B, C, 16, N)


def channel_attention(
    q: keras.KerasTensor, k: keras.KerasTensor, v: keras.KerasTensor
) -> keras.KerasTensor:
    """Return `y_ic = sum_j softmax_j(q_ic * k_jc) * v_jc`, of shape (B, N, C).

    This is multi-head attention with one channel per head and without scaling. With PyTorch on a
    CPU, a fused kernel computes the result. Elsewhere, this function computes a few rows of the
    N x M weights at a time. The gradient computes the weights again from the stored denominators of
    the softmax. Output and gradient each need one exponential per weight.

    Args:
        q: Queries, a tensor of shape (B, N, C).
        k: Keys, a tensor of shape (B, M, C).
        v: Values, a tensor of shape (B, M, C).
    """
    dtype = v.dtype
    q, k, v = (ops.cast(x, "float32") for x in (q, k, v))
    attend = _fused if _has_fused_kernel(q) else _attend
    return ops.cast(attend(q, k, v), dtype)


def _has_fused_kernel(q: keras.KerasTensor) -> bool:
    return keras.backend.backend() == "torch" and q.device.type == "cpu"


def _fused(q: keras.KerasTensor, k: keras.KerasTensor, v: keras.KerasTensor) -> keras.KerasTensor:
    heads = (ops.expand_dims(x, -1) for x in (q, k, v))  # (B, N, C, 1): one channel per head
    return ops.dot_product_attention(*heads, scale=1.0)[..., 0]


@ops.custom_gradient
def _attend(
    q: keras.KerasTensor, k: keras.KerasTensor, v: keras.KerasTensor
) -> tuple[keras.KerasTensor, Callable[..., tuple[keras.KerasTensor, ...]]]:
    q, k, v = (_swap(x) for x in (q, k, v))  # (B, C, N)
    # A positive query has its largest logit at the largest key. A negative query has its largest
    # logit at the smallest key.
    largest = ops.max(k, axis=-1, keepdims=True)
    top = ops.maximum(q * largest, q * ops.min(k, axis=-1, keepdims=True))
    keys = ops.expand_dims(k, 2)

    def weighted_sums(x: tuple[keras.KerasTensor, ...]) -> keras.KerasTensor:
        query, top = x
        return ops.matmul(ops.exp(query * keys - top), sums_of)

    sums_of = ops.stack([ops.ones_like(v), v, k, v * k], axis=-1)  # (B, C, M, 4)
    total, y, mean_k, mean_vk = _by_rows(weighted_sums, (q, top))
    y, mean_k, mean_vk = y / total, mean_k / total, mean_vk / total
    log_total = top + ops.log(total)

    def gradient(
        *args: keras.KerasTensor, upstream: keras.KerasTensor | None = None
    ) -> tuple[keras.KerasTensor, ...]:
        dy = _swap(args[0] if upstream is None else upstream)
        queries, log_totals = ops.expand_dims(q, 2), ops.expand_dims(log_total, 2)
        sums_of = ops.stack([dy, dy * q, dy * q * y], axis=-1)  # (B, C, N, 3)

        def weighted_sums(x: tuple[keras.KerasTensor, ...]) -> keras.KerasTensor:
            (key,) = x
            return ops.matmul(ops.exp(key * queries - log_totals), sums_of)

        dv, sum_dyq, sum_dyqy = _by_rows(weighted_sums, (k,))
        dq, dk = dy * (mean_vk - y * mean_k), v * sum_dyq - sum_dyqy
        return _swap(dq), _swap(dk), _swap(dv)

    return _swap(y), gradient


def _swap(x: keras.KerasTensor) -> keras.KerasTensor:
    return ops.transpose(x, (0, 2, 1))


def _by_rows(
    function: Callable[[tuple[keras.KerasTensor, ...]], keras.KerasTensor],
    tensors: Sequence[keras.KerasTensor],
) -> list[keras.KerasTensor]:
    """Call `function` for a few rows at a time. Return each of its sums for all rows, (B, C, N)."""
    batch, channels, length = ops.shape(tensors[0])
    chunks = -(-length // _ROWS)  # with an empty batch, backends cannot infer this size

    def split(x: keras.KerasTensor) -> keras.KerasTensor:
        x = ops.pad(x, [[0, 0], [0, 0], [0, -length % _ROWS]])
        return ops.moveaxis(ops.reshape(x, (batch, channels, chunks, _ROWS, 1)), 2, 0)

    sums = ops.map(function, tuple(split(x) for x in tensors))  # (chunks, B, C, rows, sums)
    count = sums.shape[-1]
    sums = ops.reshape(ops.moveaxis(sums, 0, 2), (batch, channels, chunks * _ROWS, count))
    return [sums[:, :, :length, index] for index in range(count)]
