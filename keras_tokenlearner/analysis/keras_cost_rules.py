"""Rules that count the cost of Keras's layers, and the costs that several rules have in common."""

from math import prod

import keras
from keras import layers

from keras_tokenlearner.analysis.costs import Cost, Shape, count
from keras_tokenlearner.layers.activations import ActivationFunction


def each(number: int, shape: Shape) -> Cost:
    """Return the cost of `number` elementwise operations on each value of `shape`."""
    return Cost(elementwise=number * prod(shape))


def softmax(shape: Shape) -> Cost:
    """Return the cost of a softmax over values of `shape`."""
    return Cost(elementwise=4 * prod(shape), softmax=prod(shape))


def activation(function: ActivationFunction | None, shape: Shape) -> Cost:
    """Return the cost of an activation function on values of `shape`."""
    if function in (None, keras.activations.linear):
        return Cost()
    name = getattr(function, "__name__", "")
    if name == "softmax":
        return softmax(shape)
    return each({"relu": 1, "quick_gelu": 5}.get(name, 8 if "gelu" in name else 4), shape)


@count.register
def _(layer: layers.Rescaling, shape: Shape) -> Cost:
    return each(2, shape)


@count.register
def _(layer: layers.LayerNormalization, shape: Shape) -> Cost:
    return each(7, shape)


@count.register
def _(layer: layers.RMSNormalization, shape: Shape) -> Cost:
    return each(4, shape)


@count.register
def _(layer: layers.BatchNormalization, shape: Shape) -> Cost:
    return each(2, shape)


@count.register
def _(layer: layers.ReLU, shape: Shape) -> Cost:
    return each(1, shape)


@count.register
def _(layer: layers.Activation, shape: Shape) -> Cost:
    return activation(layer.activation, shape)


@count.register
def _(layer: layers.Add, *shapes: Shape) -> Cost:
    return each(len(shapes) - 1, layer.compute_output_shape([(None, *s) for s in shapes])[1:])


@count.register
def _(layer: layers.Dense, shape: Shape) -> Cost:
    output = (*shape[:-1], layer.units)
    bias = each(1, output) if layer.use_bias else Cost()
    return Cost(prod(shape) * layer.units) + bias + activation(layer.activation, output)


@count.register(layers.Conv2D)
@count.register(layers.Conv3D)
def _(layer: layers.Conv2D | layers.Conv3D, shape: Shape) -> Cost:
    if layer.data_format != "channels_last":
        raise ValueError(
            "count: convolutions must have data_format='channels_last'; build them with this "
            f"format. Received: layer {layer.name!r} with data_format={layer.data_format!r}"
        )
    output = layer.compute_output_shape((None, *shape))[1:]
    per_tap = shape[-1] * layer.filters // layer.groups
    taps = prod(output[:-1]) * prod(layer.kernel_size) * per_tap
    inside = per_tap
    steps = layer.kernel_size, layer.strides, layer.dilation_rate
    for axis in zip(shape[:-1], output[:-1], *steps, strict=True):
        inside *= _taps_inside(*axis)
    bias = each(1, output) if layer.use_bias else Cost()
    return Cost(inside, taps - inside) + bias + activation(layer.activation, output)


def _taps_inside(size: int, positions: int, kernel: int, stride: int, dilation: int) -> int:
    """Count the products of a 1-D convolution, without products with padding."""
    extent = (kernel - 1) * dilation + 1
    padding = max((positions - 1) * stride + extent - size, 0) // 2
    starts = range(-padding, positions * stride - padding, stride)
    taps = range(0, extent, dilation)
    return sum(0 <= start + tap < size for start in starts for tap in taps)


@count.register
def _(layer: layers.Softmax, shape: Shape) -> Cost:
    return softmax(shape)


@count.register
def _(layer: layers.Dot, one: Shape, other: Shape) -> Cost:
    axes = (layer.axes, layer.axes) if isinstance(layer.axes, int) else layer.axes
    output = layer.compute_output_shape([(None, *one), (None, *other)])[1:]
    return Cost(prod(output) * (None, *one)[axes[0]])


@count.register
def _(layer: layers.Attention, query: Shape, value: Shape, key: Shape | None = None) -> Cost:
    """Return the cost of `Attention`, and of `AdditiveAttention`, a subclass."""
    pairs, channels = prod(query[:-1]) * value[-2], query[-1]
    cost = Cost(pairs * value[-1]) + softmax((pairs,))
    scale = 0 if layer.scale is None else 1
    if isinstance(layer, layers.AdditiveAttention) or layer.score_mode == "concat":
        return cost + each(6 + scale, (pairs, channels))  # a sum, tanh, and the sum of channels
    return cost + Cost(pairs * channels) + each(scale, (pairs,))


@count.register
def _(
    layer: layers.MultiHeadAttention,
    query: Shape,
    value: Shape | None = None,
    key: Shape | None = None,
) -> Cost:
    value = value or query
    key = key or value
    width, query_dim, value_dim = (
        query[-1],
        layer.key_dim * layer.num_heads,
        layer.value_dim * layer.num_heads,
    )
    queries, keys = prod(query[:-1]), prod(value[:-1])
    # For more axes than (tokens, channels), the layer may attend over some of the axes only.
    pairs = queries * prod(value[axis - 1] for axis in layer.attention_axes)
    output = layer.compute_output_shape((None, *query), (None, *value))[len(query) :]
    projections = Cost(queries * width * query_dim + keys * key[-1] * query_dim)
    projections += Cost(keys * value[-1] * value_dim + queries * value_dim * prod(output))
    products = Cost(pairs * (query_dim + value_dim))
    cheap = each(1, (queries, query_dim)) + softmax((layer.num_heads, pairs))
    positions = (queries, keys, keys, queries)
    dense = layer.query_dense, layer.key_dense, layer.value_dense, layer.output_dense
    for count_of, part in zip(positions, dense, strict=True):
        if part.bias is not None:
            cheap += each(count_of, part.bias.shape)
    if layer.get_config()["use_gate"]:  # a dense layer with sigmoid, and its product
        projections += Cost(queries * width * value_dim)
        cheap += each(5 + layer.use_bias, (queries, value_dim))
    return projections + products + cheap
