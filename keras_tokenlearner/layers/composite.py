"""Base class of layers with sublayers. Frozen parts stay frozen when layers build or load."""

import functools
from collections.abc import Callable, Iterator
from typing import cast

import keras

BuildConfig = dict[str, "list[int | None] | dict[str, list[int | None]] | dict[str, bool]"]


class CompositeLayer(keras.layers.Layer):
    """Base class of most of this package's layers. Frozen parts stay frozen on build and on load.

    `layer.trainable = False` freezes existing sublayers. In Keras, sublayers that a frozen layer
    creates later, in `build`, are trainable. See tensorflow/tensorflow issue 37541
    (https://github.com/tensorflow/tensorflow/issues/37541). Without this class, the variables of a
    frozen model would be trainable after loading. The saved state of the optimizer would not fit.

    In this class, a frozen layer also freezes its new sublayers. The build config lists the parts
    that are frozen in a trainable layer, or trainable in a frozen layer. A partly frozen layer is
    therefore loaded as it was saved.
    """

    def __init_subclass__(cls, **kwargs: bool) -> None:
        super().__init_subclass__(**kwargs)
        if "build" in vars(cls):
            cls.build = _freezing(vars(cls)["build"])

    def get_build_config(self) -> BuildConfig | None:
        config = super().get_build_config()
        flags = trainable_flags(self)
        return {**config, "trainable_flags": flags} if config and flags else config

    def build_from_config(self, config: BuildConfig) -> None:
        super().build_from_config(config)
        flags = cast(dict[str, bool], (config or {}).get("trainable_flags", {}))
        set_trainable_flags(self, flags)


def trainable_flags(layer: keras.Layer) -> dict[str, bool]:
    """Return the `trainable` flag of each sublayer, if the enclosing layer has the other flag.

    Args:
        layer: A `keras.Layer` or `keras.Model`, built.

    Returns:
        Dictionary from paths of parts, such as `"block_0/mlp"`, to booleans: whether the part is
        trainable. Outer parts come first. Parts with the state of the enclosing layer are
        omitted. The dictionary of a wholly frozen layer is empty.

    Example:

    >>> model = create_model("vit_pico8", classes=10)
    >>> model.get_layer("block_0").mlp.trainable = False
    >>> trainable_flags(model)
    {'block_0/mlp': False}
    """
    return {
        path: part.trainable
        for path, part, parent in parts_of(layer)
        if part.trainable != parent.trainable
    }


def set_trainable_flags(layer: keras.Layer, flags: dict[str, bool]) -> None:
    """Freeze parts of a layer or model, or make them trainable: the inverse of `trainable_flags`.

    Args:
        layer: A `keras.Layer` or `keras.Model`, built.
        flags: Dictionary from paths within the layer to booleans. Other parts get the state of the
            enclosing layer.

    Raises:
        ValueError: If a path is not a part of the layer. Then the layer is unchanged.

    Example:

    >>> model = create_model("vit_pico8", classes=10)
    >>> set_trainable_flags(model, {"block_0/mlp": False})
    >>> model.get_layer("block_0").mlp.trainable, model.get_layer("block_1").mlp.trainable
    (False, True)
    """
    parts = list(parts_of(layer))
    unknown = flags.keys() - {path for path, _, _ in parts}
    if unknown:
        raise ValueError(
            f"set_trainable_flags: `flags` must name parts of {layer.name!r}, such as "
            f"{[path for path, _, _ in parts[:3]]}. Received: flags for {sorted(unknown)}"
        )
    for path, part, parent in parts:  # enclosing layers come first
        trainable = flags.get(path, parent.trainable)
        if part.trainable != trainable or path in flags:
            part.trainable = trainable


def _freezing(build: Callable[..., None]) -> Callable[..., None]:
    """Wrap `build` so that a frozen layer also freezes the sublayers that `build` creates."""

    @functools.wraps(build)
    def build_and_freeze(
        self: CompositeLayer, *args: tuple[int | None, ...], **kwargs: tuple[int | None, ...]
    ) -> None:
        build(self, *args, **kwargs)
        if not self.trainable:
            self.trainable = False  # also freezes the new sublayers

    return build_and_freeze


def parts_of(
    layer: keras.Layer, prefix: str = ""
) -> Iterator[tuple[str, keras.Layer, keras.Layer]]:
    """Yield `(path, sublayer, enclosing layer)` for every sublayer at any depth."""
    for part in _children(layer):
        path = f"{prefix}{part.name}"
        yield path, part, layer
        yield from parts_of(part, f"{path}/")


def _children(layer: keras.Layer) -> list[keras.Layer]:
    """Return the direct sublayers of a layer: in its attributes, lists and dictionaries."""
    if isinstance(layer, keras.Model):
        # Functional models ignore the flag `trainable` of their input layers.
        return [part for part in layer.layers if not isinstance(part, keras.layers.InputLayer)]
    found: dict[int, keras.Layer] = {}

    def visit(value: object) -> None:
        if isinstance(value, keras.Layer):
            found.setdefault(id(value), value)
        elif isinstance(value, (list, tuple)):
            for item in value:
                visit(item)
        elif isinstance(value, dict):
            for item in value.values():
                visit(item)

    for value in vars(layer).values():
        visit(value)
    found.pop(id(layer), None)
    return list(found.values())
