import dataclasses
from dataclasses import dataclass
from functools import singledispatch
from math import prod

import keras
from keras import layers

from keras_tokenlearner import layers as own


@dataclass(frozen=True)
class Cost:
    """What one example costs, and what the weights take.

    Attributes:
        macs: Multiply-adds, less the taps of a padded convolution that fall outside its input.
        padding_macs: Those taps.
        elementwise: Cheap operations: 7 an element for LayerNorm, 8 for tanh gelu, 4 for softmax,
            1 for a bias, a residual, a scale and the like.
        params: Weights.
    """

    macs: int = 0
    padding_macs: int = 0
    elementwise: int = 0
    params: int = 0

    def __add__(self, other):
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Cost(*(a + b for a, b in pairs))

    @property
    def paper_flops(self):
        """The count of Tables 1, 2, 4, 6, 7 and 8: multiply-adds and half of the cheap ones."""
        return self.macs + self.elementwise / 2


@dataclass(frozen=True)
class ModelCosts:
    """The costs of a model, layer by layer: `layers` maps names to `Cost`, `total` sums them."""

    name: str
    layers: dict

    @property
    def total(self):
        return sum(self.layers.values(), Cost())

    @property
    def macs(self):
        return self.total.macs

    @property
    def paper_gflops(self):
        return self.total.paper_flops / 1e9

    @property
    def params(self):
        return self.total.params

    def __str__(self):
        width = max(len(name) for name in (*self.layers, "total"))
        lines = [
            f"{self.name}, for one example",
            f"{'layer':{width}}  {'M macs':>10}  {'params':>12}",
        ]
        for name, cost in (*self.layers.items(), ("total", self.total)):
            if cost != Cost():
                lines.append(f"{name:{width}}  {cost.macs / 1e6:10.2f}  {cost.params:12,}")
        return "\n".join([*lines, f"as the paper counts: {self.paper_gflops:.4g} GFLOPs"])


def costs(model):
    """Count the operations and weights of a functional model, without running it.

    The built graph is walked layer by layer; shapes come from its symbolic tensors, so that the
    count is the same on every backend. It is for one example; inference, no dropout.

    Args:
        model: A functional `keras.Model` with known input sizes (but for the batch).

    Returns:
        A `ModelCosts`, with `macs`, `paper_gflops` (the paper's count: multiply-adds plus half of
        the cheap element-wise operations), `params` and the same for every layer in `layers`;
        printing it gives a table.

    Raises:
        ValueError: If a size is not known, or there is no rule for a layer that has weights; rules
            for other layers are added with `count.register`.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> costs(model).macs
    32
    """
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found.update({f"{layer.name}/{k}": v for k, v in costs(layer).layers.items()})
        elif not isinstance(layer, layers.InputLayer):
            shapes = [_known(layer, x.shape) for x in keras.tree.flatten(layer.input)]
            cost = count(layer, *shapes)
            found[layer.name] = dataclasses.replace(cost, params=layer.count_params())
    return ModelCosts(model.name, found)


def _known(layer, shape):
    """Return the shape of one example."""
    if None in shape[1:]:
        raise ValueError(
            f"costs: all sizes but the batch must be known. Received: layer {layer.name!r} "
            f"with inputs of shape {shape}"
        )
    return tuple(shape[1:])


@singledispatch
def count(layer, *shapes):
    """Return the `Cost` of a layer for one example with inputs of `shapes`, without the batch."""
    if layer.weights:
        raise ValueError(
            f"costs: there is no rule for {type(layer).__name__}; add one with "
            f"`@count.register`. Received: layer {layer.name!r}"
        )
    return Cost()


def _each(number, shape):
    return Cost(elementwise=number * prod(shape))


def _activation(function, shape):
    if function in (None, keras.activations.linear):
        return Cost()
    name = getattr(function, "__name__", "")
    return _each(8 if "gelu" in name else 4, shape)


@count.register
def _(layer: layers.Rescaling, shape):
    return _each(2, shape)


@count.register
def _(layer: layers.LayerNormalization, shape):
    return _each(7, shape)


@count.register
def _(layer: layers.Activation, shape):
    return _activation(layer.activation, shape)


@count.register
def _(layer: layers.Dense, shape):
    output = (*shape[:-1], layer.units)
    bias = _each(1, output) if layer.use_bias else Cost()
    return Cost(prod(shape) * layer.units) + bias + _activation(layer.activation, output)


@count.register(layers.Conv2D)
@count.register(layers.Conv3D)
def _(layer, shape):
    output = layer.compute_output_shape((None, *shape))[1:]
    per_tap = shape[-1] * layer.filters // layer.groups
    taps = prod(output[:-1]) * prod(layer.kernel_size) * per_tap
    inside = per_tap
    sizes = zip(shape[:-1], output[:-1], layer.kernel_size, layer.strides, strict=True)
    for size, positions, kernel, stride in sizes:
        inside *= _taps_inside(size, positions, kernel, stride)
    bias = _each(1, output) if layer.use_bias else Cost()
    return Cost(inside, taps - inside) + bias + _activation(layer.activation, output)


def _taps_inside(size, positions, kernel, stride):
    """Count the taps of a 1-D convolution that fall inside the input."""
    padding = max((positions - 1) * stride + kernel - size, 0) // 2
    starts = range(-padding, positions * stride - padding, stride)
    return sum(min(start + kernel, size) - max(start, 0) for start in starts)


@count.register
def _(layer: layers.MultiHeadAttention, query, value=None, key=None):
    value = value or query
    (length, width), (others, _) = query, value
    query_dim, value_dim = layer.key_dim * layer.num_heads, layer.value_dim * layer.num_heads
    projections = Cost(length * width * query_dim + others * value[-1] * (query_dim + value_dim))
    products = Cost(length * others * (query_dim + value_dim))
    output = Cost(length * value_dim * width)
    cheap = _each(1, (length, query_dim)) + _each(4, (layer.num_heads, length, others))
    if layer.use_bias:
        cheap += Cost(elementwise=length * (query_dim + width) + others * (query_dim + value_dim))
    return projections + products + output + cheap


@count.register
def _(layer: own.PositionEmbedding, shape):
    return _each(1, shape)


@count.register
def _(layer: own.PrefixTokens, shape):
    return Cost()


@count.register
def _(layer: own.LayerScale, shape):
    return _each(1, shape)


@count.register
def _(layer: own.PatchEmbedding, shape):
    return count(layer.projection, shape)


@count.register
def _(layer: own.MLP, shape):
    hidden = (*shape[:-1], layer.hidden_dim)
    return (
        count(layer.hidden, shape)
        + _activation(layer.activation, hidden)
        + count(layer.output_dense, hidden)
    )


@count.register
def _(layer: own.VectorAttention, query, value=None):
    value = value or query
    pairs, channels = query[0] * value[0], layer.value_dense.units
    logits = _each(1, (pairs, layer.key_dense.units))
    if layer.gamma_dense is not None:
        logits += count(layer.gamma_dense, (pairs, layer.key_dense.units))
    return (
        count(layer.query_dense, query)
        + count(layer.key_dense, value)
        + count(layer.value_dense, value)
        + logits
        + _each(4, (pairs, channels))
        + Cost(pairs * channels)
    )


@count.register
def _(layer: own.TransformerBlock, shape):
    branches = [*layer.mixer_branch, *layer.mlp_branch]
    return (
        count(layer.attention_norm, shape)
        + count(layer.mixer, shape)
        + count(layer.mlp_norm, shape)
        + count(layer.mlp, shape)
        + sum((count(part, shape) for part in branches), Cost())
        + _each(2, shape)
    )


@count.register
def _(layer: own.TokenLearner, shape):
    frames, height, width = _grid(layer, shape)
    channels, count_tokens = shape[-1], layer.num_tokens
    if layer.over == "frame":
        pixels, repeats = (height, width), frames
    else:
        pixels, repeats = (frames, height, width), 1
    maps = (*pixels, count_tokens)
    if layer.attention == "mlp":
        attend = count(layer.mlp, (*pixels, channels)) + _each(4, maps)
    else:
        attend = Cost()
        for index, conv in enumerate(layer.convs):
            attend += count(conv, (*pixels, count_tokens if index else channels))
    one = count(layer.norm, (*pixels, channels)) + attend + Cost(prod(maps) * channels)
    return sum([one] * repeats, Cost())


@count.register
def _(layer: own.TokenFuser, tokens, inputs):
    frames, height, width = _grid(layer, inputs)
    channels, per_frame = inputs[-1], tokens[0] // frames
    mixed = per_frame if layer.mixing == "frame" else tokens[0]
    total = count(layer.mix, (tokens[0] // mixed, channels, mixed))
    if layer.use_norm:
        total += count(layer.norm_before, tokens) + count(layer.norm_after, tokens)
        total += count(layer.norm_inputs, inputs)
    positions = frames * height * width
    weights = (positions, per_frame)
    total += count(layer.blend, (positions, channels)) + _each(4, weights)
    return total + Cost(positions * per_frame * channels) + _each(1, inputs)


def _grid(layer, shape):
    """Return (T, H, W) of one example."""
    if layer.grid is not None and len(layer.grid) == 3:
        return layer.grid
    if len(shape) == 2:
        return (shape[0] // prod(layer.grid), *layer.grid)
    return shape[:-1] if len(shape) == 4 else (1, *shape[:-1])
