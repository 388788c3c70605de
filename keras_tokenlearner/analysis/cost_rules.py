"""Rules that count the cost of this package's layers.

The import also registers the rules of `keras_cost_rules`.
"""

from math import prod
from typing import cast

from keras import layers

from keras_tokenlearner import layers as own
from keras_tokenlearner.analysis.costs import Cost, Shape, count
from keras_tokenlearner.analysis.keras_cost_rules import activation, each, softmax
from keras_tokenlearner.layers.multi_head_attention import MultiHeadAttention
from keras_tokenlearner.layers.token_alternatives import FrameTokenizer

__all__: list[str] = []  # `count` finds the rules


@count.register
def _(
    layer: MultiHeadAttention,
    query: Shape,
    value: Shape | None = None,
    key: Shape | None = None,
    rotation: Shape | None = None,
    key_bias: Shape | None = None,
) -> Cost:
    # The cost of Keras's layer. The next lines add the costs of our options.
    cost = count.dispatch(layers.MultiHeadAttention)(layer, query, value, key)
    length, others = prod(query[:-1]), prod((value or query)[:-1])
    if key_bias is not None:
        cost += each(layer.num_heads, (length, others))
    queries, keys = (
        (length, layer.num_heads, layer.key_dim),
        (others, layer.num_heads, layer.key_dim),
    )
    if layer.qk_norm:
        cost += count(layer.query_norm, queries) + count(layer.key_norm, keys)
    if rotation is not None:
        cost += each(3, queries) + each(3, keys)
    if layer.inner_norm:
        cost += count(layer.output_norm, (length, layer.num_heads * layer.value_dim))
    return cost


@count.register
def _(layer: own.AttentionPooling, shape: Shape) -> Cost:
    pooled = (1, shape[-1])
    cost = count(layer.attention, pooled, shape)
    if layer.mlp_dim == 0:
        return cost
    return cost + count(layer.mlp_norm, pooled) + count(layer.mlp, pooled) + each(1, pooled)


@count.register
def _(layer: own.RotaryPositions, shape: Shape, maps: Shape | None = None) -> Cost:
    """Return no cost for a constant table, else the cost of angles, cosines, sines and centres."""
    if maps is None and layer.frequencies == "fixed":
        return Cost()
    table = layer.compute_output_shape((None, *shape), maps and (None, *maps))
    tokens, heads, channels = cast(tuple[int, int, int], table[1:])
    axes, channels = len(shape) - 1, channels // 2
    angles = Cost(tokens * heads * channels * axes) + each(8, (tokens, heads, channels))
    centres = Cost() if maps is None else Cost(prod(shape[:-1]) * axes * maps[-1])
    return angles + centres


@count.register(own.PositionEmbedding)
@count.register(own.SequencePositions)
def _(layer: own.PositionEmbedding | own.SequencePositions, shape: Shape) -> Cost:
    return each(1, shape)


@count.register
def _(layer: own.PrefixTokens, shape: Shape) -> Cost:
    return Cost()


@count.register
def _(layer: own.LayerScale, shape: Shape) -> Cost:
    return each(1, shape)


@count.register
def _(layer: own.PatchEmbedding, shape: Shape) -> Cost:
    return count(layer.projection, shape)


@count.register
def _(layer: own.ConvStem, shape: Shape) -> Cost:
    *frames, height, width, channels = shape
    total, shape = Cost(), (height, width, channels)
    for conv, norm in zip(layer.conv_layers, layer.norm_layers, strict=True):
        total += count(conv, shape)
        shape = conv.compute_output_shape((None, *shape))[1:]
        total += count(norm, shape) + activation(layer.activation, shape)
    total += count(layer.projection, shape)
    return sum([total] * prod(frames), Cost())


@count.register
def _(layer: own.MLP, shape: Shape) -> Cost:
    hidden = (*shape[:-1], layer.mlp_dim)
    gate = count(layer.gate, shape) + each(1, hidden) if layer.gated else Cost()
    return (
        count(layer.hidden, shape)
        + gate
        + activation(layer.activation, hidden)
        + (count(layer.norm, hidden) if layer.inner_norm else Cost())
        + count(layer.output_dense, hidden)
    )


@count.register
def _(layer: own.VectorAttention, query: Shape, value: Shape | None = None) -> Cost:
    value = value or query
    pairs, channels = query[0] * value[0], layer.value_dense.units
    logits = each(1, (pairs, layer.key_dense.units))
    if layer.gamma_kernel is not None:
        logits += Cost(pairs * layer.key_dense.units * channels)
    return (
        count(layer.query_dense, query)
        + count(layer.key_dense, value)
        + count(layer.value_dense, value)
        + logits
        + softmax((pairs, channels))
        + Cost(pairs * channels)
    )


@count.register
def _(layer: own.SelfAttention, shape: Shape) -> Cost:
    length, pairs = shape[0], shape[0] ** 2
    queries, values = layer.query_dense, layer.value_dense
    dense = (queries, layer.key_dense, values)
    return (
        sum((count(part, shape) for part in dense), Cost())
        + each(1, (length, queries.units))
        + Cost(pairs * (queries.units + values.units))
        + softmax((layer.num_heads, pairs))
    )


@count.register
def _(layer: own.SpaceTimeAttention, shape: Shape) -> Cost:
    frames, height, width, channels = shape
    positions = height * width
    repeats, length = {
        "spatial": (frames, positions),
        "temporal": (positions, frames),
        "joint": (1, frames * positions),
    }[layer.over]
    return sum([count(layer.attend, (length, channels))] * repeats, Cost())


@count.register
def _(layer: own.PriorAttention, shape: Shape) -> Cost:
    length, channels = shape
    return count(layer.value_dense, shape) + Cost(length**2 * channels) + softmax((length, length))


@count.register
def _(layer: own.MixerBlock, shape: Shape) -> Cost:
    return (
        count(layer.token_norm, shape)
        + count(layer.token_mlp, shape[::-1])
        + count(layer.channel_norm, shape)
        + count(layer.channel_mlp, shape)
        + each(2, shape)
    )


@count.register
def _(layer: own.TransformerBlock, shape: Shape, rotation: Shape | None = None) -> Cost:
    branches = [*layer.self_attention_branch, *layer.mlp_branch]
    rotated = {} if rotation is None else {"rotation": rotation}
    return (
        count(layer.attention_norm, shape)
        + count(layer.self_attention, shape, **rotated)
        + count(layer.mlp_norm, shape)
        + count(layer.mlp, shape)
        + sum((count(part, shape) for part in branches), Cost())
        + each(2, shape)
        + (Cost() if layer.patch_bias is None else each(layer.num_heads, (shape[0], shape[0])))
    )


@count.register
def _(layer: own.TokenLearner, shape: Shape, num_tokens: int | None = None) -> Cost:
    frames, height, width = _grid(layer, shape)
    channels, count_tokens = shape[-1], num_tokens or layer.num_tokens
    volume = layer.over == "space_time"
    pixels = (frames, height, width) if volume else (height, width)
    repeats = 1 if volume else frames
    maps = (*pixels, count_tokens)
    if layer.attention == "mlp":
        attend = count(layer.mlp, (*pixels, channels)) + softmax(maps)
        attend += each(1, maps) if layer.position_bias else Cost()
    else:
        attend = Cost()
        for index, conv in enumerate(layer.convs):
            attend += count(conv, (*pixels, count_tokens if index else channels))
    if layer.use_norm:
        attend += count(layer.norm, (*pixels, channels))
    return sum([attend + Cost(prod(maps) * channels)] * repeats, Cost())


@count.register
def _(layer: own.TokenFuser, tokens: Shape, inputs: Shape) -> Cost:
    frames, height, width = _grid(layer, inputs)
    channels, per_frame = inputs[-1], tokens[0] // frames
    mixed = per_frame if layer.mixing == "frame" else tokens[0]
    total = count(layer.mix, (tokens[0] // mixed, channels, mixed))
    if layer.norm == "all":
        total += count(layer.norm_before, tokens) + count(layer.norm_after, tokens)
    if layer.norm != "none":
        total += count(layer.norm_inputs, inputs)
    positions = frames * height * width
    weights = (positions, per_frame)
    total += count(layer.blend, (positions, channels)) + each(4, weights)
    return total + Cost(positions * per_frame * channels) + each(1, inputs)


@count.register
def _(layer: own.Unpool, tokens: Shape, maps: Shape, inputs: Shape) -> Cost:
    return Cost(prod(maps) * inputs[-1]) + each(1, inputs)


@count.register
def _(layer: own.Reproject, tokens: Shape, inputs: Shape) -> Cost:
    pixels = (prod(inputs[:-1]), inputs[-1])
    return (
        count(layer.tokens_norm, tokens)
        + count(layer.inputs_norm, pixels)
        + count(layer.attention, pixels, tokens)
        + count(layer.mlp_norm, pixels)
        + count(layer.mlp, pixels)
        + each(2, pixels)
    )


@count.register
def _(layer: own.DirectTokens, shape: Shape) -> Cost:
    frames, height, width = _grid(layer, shape)
    return sum([count(layer.dense, (height * width * shape[-1],))] * frames, Cost())


@count.register
def _(layer: own.PooledTokens, shape: Shape) -> Cost:
    frames, *_ = _grid(layer, shape)
    return sum([count(layer.mlp, shape[-1:])] * frames, each(1, shape))


@count.register
def _(layer: own.FixedGrid, shape: Shape) -> Cost:
    """Return the cost of the product of all cells with all positions, as the layer computes it."""
    frames, height, width = _grid(layer, shape)
    return Cost(frames * layer.num_tokens * height * width * shape[-1])


@count.register
def _(layer: own.SpatialPooling, shape: Shape) -> Cost:
    frames, height, width = _grid(layer, shape)
    tokens = frames * layer.tokens_per_frame(height, width)
    return each(prod(layer.pool_size), (tokens, shape[-1]))


def _grid(layer: own.TokenLearner | own.TokenFuser | FrameTokenizer, shape: Shape) -> Shape:
    """Return (T, H, W) of one example."""
    grid = layer.grid
    if grid is not None and len(grid) == 3:
        return grid
    if grid is not None and len(shape) == 2:
        return (shape[0] // prod(grid), *grid)
    return shape[:-1] if len(shape) == 4 else (1, *shape[:-1])
