import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, TypeAlias, cast

import keras

from keras_tokenlearner._checks import check_is, check_model
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner.models.features import uncompiled

Shape: TypeAlias = tuple[int, ...]  # of one example, without the batch axis
# Operations of `keras.ops` that multiply and add, by class name. They have no rules.
_PRODUCTS = (
    *("Conv", "ConvTranspose", "DepthwiseConv", "Dot", "DotProductAttention", "Einsum", "Inner"),
    *("Matmul", "SeparableConv", "Tensordot", "Vdot"),
)


@dataclass(frozen=True)
class Cost:
    """The cost of a layer or model for one example, and its number of parameters.

    Attributes:
        macs: Multiply-adds, without products with the padding of a convolution.
        padding_macs: Multiply-adds with the padding of a convolution.
        elementwise: Elementwise operations. An element costs 7 in LayerNorm, 8 in tanh gelu, 4 in
            softmax, and 1 in a bias, residual or scale.
        params: Number of parameters.
        softmax: Number of elements in softmaxes. `elementwise` already counts 4 operations for
            each.

    Example:

    >>> Cost(macs=10, elementwise=4).paper_flops
    12.0
    """

    macs: int = 0
    padding_macs: int = 0
    elementwise: int = 0
    params: int = 0
    softmax: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Cost(*(a + b for a, b in pairs))

    @property
    def paper_flops(self) -> float:
        """Multiply-adds plus half of `elementwise`.

        The paper has this count in Tables 1, 2, 4, 6, 7 and 8.
        """
        return self.macs + self.elementwise / 2

    @property
    def bottleneck_flops(self) -> int:
        """Two operations per multiply-add, with padding: the paper's count in Tables 10 to 12.

        An element of a softmax costs 5 operations. For other operations, see `elementwise`.
        """
        return 2 * (self.macs + self.padding_macs) + self.elementwise + self.softmax


@dataclass(frozen=True)
class ModelCosts:
    """The costs of a model. `layers` maps layer names to `Cost`, and `total` is the sum of all.

    Example:

    >>> costs(create_model("vit_pico8", classes=10)).layers["head"].params
    330
    """

    name: str
    layers: dict[str, Cost]

    @property
    def total(self) -> Cost:
        return sum(self.layers.values(), Cost())

    @property
    def macs(self) -> int:
        return self.total.macs

    @property
    def paper_gflops(self) -> float:
        return self.total.paper_flops / 1e9

    @property
    def bottleneck_gflops(self) -> float:
        return self.total.bottleneck_flops / 1e9

    @property
    def params(self) -> int:
        return self.total.params

    def __str__(self) -> str:
        width = max(len(name) for name in (*self.layers, "total"))
        lines = [
            f"{self.name}, for one example",
            f"{'layer':{width}}  {'M macs':>10}  {'params':>12}",
        ]
        for name, cost in (*self.layers.items(), ("total", self.total)):
            if cost != Cost():
                lines.append(f"{name:{width}}  {cost.macs / 1e6:10.2f}  {cost.params:12,}")
        lines += [
            f"by the paper's count: {self.paper_gflops:.4g} GFLOPs",
            f"by the paper's count for bottleneck modules: {self.bottleneck_gflops:.4g} GFLOPs",
        ]
        return "\n".join(lines)


@own_errors
def costs(model: keras.Model) -> ModelCosts:
    """Count the operations and parameters of a functional model, without running it.

    The layers of the built graph are counted one by one. The operations of a layer are counted at
    each of its calls, its parameters once. Shapes come from symbolic tensors, so the count is the
    same on every backend. The count is for one example, at inference.

    Args:
        model: A functional `keras.Model` with known input sizes, except for the batch size.

    Returns:
        A `ModelCosts` with `macs` and `params`. `paper_gflops` is the paper's count in Tables 1, 2,
        4, 6, 7 and 8: multiply-adds plus half of the elementwise operations. `bottleneck_gflops` is
        the paper's count in Tables 10 to 12, see `Cost.bottleneck_flops`. `layers` has the `Cost`
        of every layer. Print the `ModelCosts` for a table.

    Raises:
        ValueError: If a size is unknown, or a layer with weights has no rule. Also if the graph has
            a matrix product such as `keras.ops.matmul`, or a convolution, outside of a layer. Add
            rules for layers with `count.register`.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> costs(model).macs
    32
    """
    check_model("costs", "model", model)
    return ModelCosts(model.name, _of_graph(uncompiled(model)))


def _of_graph(
    model: keras.Model, inputs: Sequence[keras.KerasTensor] | None = None
) -> dict[str, Cost]:
    """Return the cost of each layer of a functional model, for the shapes of some inputs."""
    found: dict[str, Cost] = {}

    def call(layer: keras.Layer, *args: keras.KerasTensor, **kwargs: Any) -> keras.KerasTensor:
        if isinstance(layer, keras.Layer):  # layers ignore `training` if `call` does not take it
            known = inspect.signature(layer.call).parameters
            if all(one.kind is not one.VAR_KEYWORD for one in known.values()):
                kwargs = {name: value for name, value in kwargs.items() if name in known}
        for name, cost in _of_call(layer, args, kwargs).items():
            earlier = dataclasses.replace(found.get(name, Cost()), params=0)
            found[name] = earlier + cost
        return _Call(layer)(*args, **kwargs)

    wanted = keras.tree.flatten(model.input)
    new = [
        keras.Input(batch_shape=x.shape, dtype=x.dtype, name=own.name)
        for x, own in zip(inputs or wanted, wanted, strict=True)
    ]
    # No other public function of Keras passes each call of a graph to a function.
    keras.models.clone_model(
        model,
        input_tensors=keras.tree.pack_sequence_as(model.input, new),
        clone_function=lambda layer: layer,
        call_function=call,
    )
    return found


class _Call(keras.Operation):
    """Replaces a layer in a counted graph. Keras adds a node to a layer at each of its calls."""

    def __init__(self, layer: keras.Layer) -> None:
        super().__init__()
        self.layer = layer

    def compute_output_spec(
        self, *args: keras.KerasTensor, **kwargs: Any
    ) -> keras.KerasTensor | tuple[keras.KerasTensor, ...]:
        return self.layer.compute_output_spec(*args, **kwargs)


def _of_call(
    layer: keras.Layer, args: Sequence[keras.KerasTensor], kwargs: Mapping[str, Any]
) -> dict[str, Cost]:
    """Return the cost of a call by layer name: one layer, or the layers of a nested model."""
    if not isinstance(layer, keras.Layer):
        if type(layer).__name__ in _PRODUCTS:
            raise ValueError(
                "costs: matrix products and convolutions must be in layers; move the operation "
                "into a layer with a rule of `@count.register`. "
                f"Received: operation {layer.name!r} of class {type(layer).__name__}"
            )
        return {}
    given = inspect.signature(layer.call).bind(*args, **kwargs).arguments
    given = {name: value for name, value in given.items() if not name.endswith("mask")}
    rule = count.dispatch(type(layer))
    if isinstance(layer, keras.Model) and rule is count.dispatch(keras.Layer):
        check_model("costs", "model", layer)
        counted = _of_graph(uncompiled(layer), _tensors(list(given.values())))
        return {f"{layer.name}/{name}": cost for name, cost in counted.items()}
    shapes: list[Shape] = []
    named: dict[str, Any] = {}
    _, *parameters = inspect.signature(rule).parameters.values()  # without the layer
    by_name = {
        one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }
    for name, value in given.items():
        found = [_known(layer, x.shape) for x in _tensors(value)]
        is_single = isinstance(value, keras.KerasTensor)
        if name in by_name and (is_single or not found):
            named[name] = found[0] if is_single else value
        else:
            shapes += found
    cost = count(layer, *shapes, **named)
    return {layer.name: dataclasses.replace(cost, params=layer.count_params())}


def _tensors(value: Any) -> list[keras.KerasTensor]:
    """Return the symbolic tensors in a nested structure, in order."""
    return [x for x in keras.tree.flatten(value) if isinstance(x, keras.KerasTensor)]


def _known(layer: keras.layers.Layer, shape: tuple[int | None, ...]) -> Shape:
    """Return an input shape of a layer, without the batch axis. Raise if a size is unknown."""
    if None in shape[1:]:
        raise ValueError(
            "costs: all sizes of `model` except the batch size must be known; build the model with "
            f"a complete input shape. Received: layer {layer.name!r} with inputs of shape {shape}"
        )
    return cast(Shape, tuple(shape[1:]))


@singledispatch
def count(
    layer: keras.layers.Layer, *shapes: Shape, **named: Shape | bool | int | float | str | None
) -> Cost:
    """Return the `Cost` of a layer for one example, by the rule for the class of the layer.

    A rule is a function that `@count.register` decorates. `keras_tokenlearner.analysis.cost_rules`
    has rules for layers of Keras and of this package. `costs` passes the shapes of a call in their
    order. A parameter of a rule may have the name of an argument of the call. `costs` then passes
    the shape or value of this argument by name.

    Args:
        layer: A built `keras.layers.Layer`.
        *shapes: Shapes of the inputs of the layer, without the batch axis. Leave out masks.
        **named: Shapes or values of arguments of the call, by name.

    Raises:
        ValueError: If a layer with weights has no rule.

    Example:

    >>> dense = keras.layers.Dense(10)
    >>> dense.build((None, 32))
    >>> count(dense, (32,)).macs
    320
    """
    check_is("count", "layer", layer, keras.layers.Layer, "a built keras.layers.Layer")
    if layer.weights:
        raise ValueError(
            f"count: there is no rule for the layer class {type(layer).__name__}; add a rule with "
            f"`@count.register`. Received: layer {layer.name!r}"
        )
    return Cost()
