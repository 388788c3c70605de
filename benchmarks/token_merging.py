"""Token merging (ToMe), a baseline without training: every block removes some tokens.

Source: Bolya et al., "Token Merging: Your ViT But Faster", 2023. Tokens are merged by bipartite
soft matching on the keys, between attention and MLP. Attention is proportional to the number of
patches of a token. Class token and registers are not merged.
"""

import math

import keras
from keras import ops

from keras_tokenlearner.analysis.costs import Cost, costs, count
from keras_tokenlearner.models.structure import Structure


def token_merging(model, merged, start=0):
    """Return a copy of a plain ViT, with its weights, that merges tokens in every block.

    Args:
        model: A plain ViT that `create_model` or `VisionTransformer` built.
        merged: Integer, tokens that every block merges into other tokens (r); at most half of all.
        start: Integer, the first block that merges.
    """
    prefix = Structure("token_merging", model).num_prefix_tokens
    sizes = None

    def call(layer, *args, **kwargs):
        nonlocal sizes
        if not layer.name.startswith("block_") or int(layer.name.removeprefix("block_")) < start:
            return layer(*args, **kwargs)
        (x,) = args
        if sizes is None:
            sizes = ops.ones_like(x[..., :1])
        x, sizes = MergingBlock(layer, merged, prefix, name=f"merging_{layer.name}")(x, sizes)
        return x

    copy = keras.models.clone_model(model, call_function=call)
    copy.set_weights(model.get_weights())
    return keras.Model(copy.input, copy.output, name=f"{model.name}_merging{merged}")


def merging_of_cost(model, macs, start=0):
    """Return the `token_merging` model with multiply-adds nearest to `macs`."""
    layout, plain = Structure("merging_of_cost", model), costs(model)
    patches, prefix = math.prod(layout.grid), layout.num_prefix_tokens
    blocks = [f"block_{index}" for index in range(start, layout.num_blocks)]

    def distance(merged):
        total, left = plain.macs, patches
        for name in blocks:
            shapes = [(left + prefix, width) for width in (layout.hidden_dim, 1)]
            layer = MergingBlock(model.get_layer(name), merged, prefix)
            total += count(layer, *shapes).macs - plain.layers[name].macs
            left = _left(left, merged)
        return abs(total - macs)

    return token_merging(model, min(range(1, patches // 2 + 1), key=distance), start)


class MergingBlock(keras.layers.Layer):
    """A `TransformerBlock` on tokens (B, N, C) and sizes (B, N, 1) that merges r tokens."""

    def __init__(self, block, merged, prefix, **kwargs):
        super().__init__(**kwargs)
        self.block, self.merged, self.prefix = block, merged, prefix

    def build(self, inputs_shape, sizes_shape):
        self.block.build(inputs_shape)

    def call(self, inputs, sizes):
        block, attention = self.block, self.block.self_attention
        x = block.attention_norm(inputs)
        q, k, v = attention.query_dense(x), attention.key_dense(x), attention.value_dense(x)
        bias = ops.transpose(ops.log(sizes), (0, 2, 1))[:, None]  # (B, 1, 1, N)
        bias = ops.broadcast_to(
            bias, (ops.shape(x)[0], attention.num_heads, x.shape[1], x.shape[1])
        )
        x = attention.output_dense(ops.dot_product_attention(q, k, v, bias=bias))
        for layer in block.self_attention_branch:
            x = layer(x)
        inputs, prefix = inputs + x, self.prefix
        keys = ops.mean(k, axis=2)
        patches, patch_sizes = merge(
            inputs[:, prefix:], sizes[:, prefix:], keys[:, prefix:], self.merged
        )
        inputs = ops.concatenate([inputs[:, :prefix], patches], axis=1)
        sizes = ops.concatenate([sizes[:, :prefix], patch_sizes], axis=1)
        x = block.mlp(block.mlp_norm(inputs))
        for layer in block.mlp_branch:
            x = layer(x)
        return inputs + x, sizes

    def compute_output_shape(self, inputs_shape, sizes_shape):
        left = _left(inputs_shape[1] - self.prefix, self.merged) + self.prefix
        return tuple((shape[0], left, shape[2]) for shape in (inputs_shape, sizes_shape))


def merge(x, sizes, keys, merged):
    """Merge the tokens at even positions that are most similar to a token at an odd position.

    Args:
        x: Tensor of shape (B, N, C).
        sizes: Tensor of shape (B, N, 1), the number of patches of each token.
        keys: Tensor of shape (B, N, d), compared by their cosine.
        merged: Integer, tokens to merge, at most half of the tokens.

    Returns:
        Tokens of shape (B, N - r, C), averages by size, and their sizes (B, N - r, 1).
    """
    merged = x.shape[1] - _left(x.shape[1], merged)
    if not merged:
        return x, sizes
    keys = ops.normalize(keys, axis=-1)
    alike = ops.matmul(keys[:, ::2], ops.transpose(keys[:, 1::2], (0, 2, 1)))
    order = ops.argsort(-ops.max(alike, axis=-1), axis=-1)
    gone, kept = order[:, :merged], ops.sort(order[:, merged:], axis=-1)
    onto = ops.take_along_axis(ops.argmax(alike, axis=-1), gone, axis=1)
    sums = ops.concatenate([x * sizes, sizes], axis=-1)
    even, odd = sums[:, ::2], sums[:, 1::2]
    targets = ops.one_hot(onto, odd.shape[1], axis=1, dtype=x.dtype)  # (B, odd, r)
    odd = odd + ops.matmul(targets, ops.take_along_axis(even, gone[..., None], axis=1))
    sums = ops.concatenate([ops.take_along_axis(even, kept[..., None], axis=1), odd], axis=1)
    return sums[..., :-1] / sums[..., -1:], sums[..., -1:]


def _left(tokens, merged):
    return tokens - min(merged, tokens // 2)


@count.register
def _(layer: MergingBlock, inputs_shape, sizes_shape):
    tokens, channels = inputs_shape
    left = layer.compute_output_shape((None, *inputs_shape), (None, *sizes_shape))[0][1]
    patches, block = tokens - layer.prefix, layer.block
    compared = math.ceil(patches / 2) * (patches // 2) * block.self_attention.key_dim
    total = Cost(macs=compared)
    for child, length in (
        (block.attention_norm, tokens),
        (block.self_attention, tokens),
        *((branch, tokens) for branch in block.self_attention_branch),
        (block.mlp_norm, left),
        (block.mlp, left),
        *((branch, left) for branch in block.mlp_branch),
    ):
        total += count(child, (length, channels))
    return total
