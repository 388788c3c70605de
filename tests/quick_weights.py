"""Quick initial weights for tests on JAX, which compiles a program for each shape of a weight.

A third of the time of JAX's tests is spent on these programs, each of which runs once.
`make test-xla` tests with Keras's own initial weights.
"""

import functools
from collections.abc import Callable

import keras
import numpy as np

_DRAWN = ("RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling")


def draw_by_numpy() -> None:
    """On JAX, let Keras's random initializers draw by numpy instead of `jax.random`."""
    if keras.backend.backend() != "jax":
        return
    import jax

    drawing = []
    draws = {"normal": _normal, "truncated_normal": _truncated_normal, "uniform": _uniform}
    for name, draw in draws.items():
        setattr(jax.random, name, _quick(getattr(jax.random, name), draw, drawing))
    for name in _DRAWN:
        kind = getattr(keras.initializers, name)
        kind.__call__ = _marked(kind.__call__, drawing)


def _marked(call: Callable, drawing: list[bool]) -> Callable:
    @functools.wraps(call)
    def initialize(self, shape, dtype=None):
        drawing.append(True)
        try:
            return keras.ops.convert_to_tensor(call(self, shape, dtype))
        finally:
            drawing.pop()

    return initialize


def _quick(original: Callable, draw: Callable, drawing: list[bool]) -> Callable:
    import jax

    @functools.wraps(original)
    def function(key, *args, shape=(), dtype="float32", **kwargs):
        if args or not drawing or isinstance(key, jax.core.Tracer):
            return original(key, *args, shape=shape, dtype=dtype, **kwargs)
        return draw(np.random.default_rng(np.asarray(key)), shape, **kwargs).astype(dtype)

    return function


def _normal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.standard_normal(shape, "float32")


def _truncated_normal(
    random: np.random.Generator, shape: tuple[int, ...], lower: float, upper: float
) -> np.ndarray:
    values = _normal(random, shape)
    while (outside := (values < lower) | (values > upper)).any():
        values = np.where(outside, _normal(random, shape), values)
    return values


def _uniform(
    random: np.random.Generator, shape: tuple[int, ...], minval: float, maxval: float
) -> np.ndarray:
    return random.uniform(minval, maxval, shape)
