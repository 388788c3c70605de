"""Base class of layers with sublayers. A loaded layer has the same frozen and quantized parts."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

import keras

from keras_tokenlearner._json import JSON
from keras_tokenlearner._precision import check_float, dtype_policy

_MODES = ("int8", "int4", "float8")  # other modes need data to quantize a loaded layer again
LORA = "lora_"  # start of the names of LoRA weights, such as "lora_kernel_a"


class CompositeLayer(keras.layers.Layer):
    """Base class of most layers of this package. Loading restores frozen and quantized parts.

    `layer.trainable = False` freezes existing sublayers. In Keras, sublayers that a frozen layer
    creates later, in `build`, are trainable. See tensorflow/tensorflow issue 37541
    (https://github.com/tensorflow/tensorflow/issues/37541). Without this class, the variables of a
    frozen model would be trainable after loading. The saved state of the optimizer would not fit.

    In this class, a frozen layer also freezes its new sublayers. The build config lists parts and
    weights whose state differs from the state of the enclosing layer. A partly frozen layer is
    therefore loaded as it was saved.

    The build config also lists the quantized sublayers. Keras saves the quantization only of layers
    with a config of their own. LoRA weights are saved as part of their kernels.
    """

    def __init__(self, **kwargs: str | bool | keras.DTypePolicy | None) -> None:
        super().__init__(**kwargs)
        check_float(type(self).__name__, self.dtype_policy)

    def __init_subclass__(cls, **kwargs: bool) -> None:
        super().__init_subclass__(**kwargs)
        if "build" in vars(cls):
            cls.build = _freezing(vars(cls)["build"])

    def get_build_config(self) -> dict[str, Any] | None:
        config = super().get_build_config()
        if not config:
            return config
        state = {
            "quantization": quantized_parts(f"{type(self).__name__}.get_build_config", self),
            "trainable_flags": {**trainable_flags(self), **weight_flags(self)},
        }
        return {**config, **{name: value for name, value in state.items() if value}}

    def build_from_config(self, config: dict[str, Any]) -> None:
        super().build_from_config(config)
        config = config or {}
        quantize_parts(self, config.get("quantization", []))
        set_trainable_flags(self, config.get("trainable_flags", {}))


def trainable_flags(layer: keras.Layer) -> dict[str, bool]:
    """Return the `trainable` flag of each sublayer, if the enclosing layer has the other flag.

    Args:
        layer: A `keras.Layer` or `keras.Model`, built.

    Returns:
        Dictionary from paths of parts, such as `"block_0/mlp"`, to booleans: whether the part is
        trainable. Outer parts come first. Parts without weights, and parts with the state of the
        enclosing layer, are omitted. The dictionary of a wholly frozen layer is empty.

    Example:

    >>> model = create_model("vit_pico8", classes=10)
    >>> model.get_layer("block_0").mlp.trainable = False
    >>> trainable_flags(model)
    {'block_0/mlp': False}
    """
    return {
        path: part.trainable
        for path, part, parent in parts_of(layer)
        # The names of some parts without weights, such as "softmax_12", differ after loading.
        if part.weights and part.trainable != parent.trainable
    }


def weight_flags(layer: keras.Layer) -> dict[str, bool]:
    """Return the `trainable` flag of each weight, if the innermost layer has the other flag.

    A file has the sum of a kernel and its LoRA weights, and the loaded layer has no LoRA. The
    kernel therefore takes the state of its LoRA weights. Otherwise the loaded layer could not
    learn.

    Returns:
        Dictionary from paths of weights, such as `"block_0/mlp/hidden/kernel"`, to booleans.
    """
    found: dict[str, bool] = {}
    lora: dict[str, bool] = {}
    for path, part, weight in _weights(layer):
        if weight.name.startswith(LORA):
            kernel = weight.name.removeprefix(LORA).removesuffix("_a").removesuffix("_b")
            lora[f"{path.removesuffix(weight.name)}{kernel}"] = weight.trainable
        elif weight.trainable != part.trainable:
            found[path] = weight.trainable
    for path, _, weight in _weights(layer):
        if path in lora and "float" in weight.dtype:  # quantized kernels have no gradient
            found[path] = lora[path]
    return found


def set_trainable_flags(layer: keras.Layer, flags: Mapping[str, bool]) -> None:
    """Freeze parts and weights of a layer or model, or make them trainable.

    This function is the inverse of `trainable_flags` and `weight_flags`.

    Args:
        layer: A `keras.Layer` or `keras.Model`, built.
        flags: Dictionary from paths within the layer to booleans. Other parts get the state of the
            enclosing layer. Unknown paths have no effect.

    Example:

    >>> model = create_model("vit_pico8", classes=10)
    >>> set_trainable_flags(model, {"block_0/mlp": False})
    >>> model.get_layer("block_0").mlp.trainable, model.get_layer("block_1").mlp.trainable
    (False, True)
    """
    for path, part, parent in parts_of(layer):  # enclosing layers come first
        trainable = flags.get(path, parent.trainable)
        if part.trainable != trainable or path in flags:
            part.trainable = trainable
    set_weight_flags(layer, flags)


def set_weight_flags(layer: keras.Layer, flags: Mapping[str, bool]) -> None:
    """Set the state of the weights in `flags`, a result of `weight_flags`."""
    for path, _, weight in _weights(layer):
        if path in flags:
            weight.trainable = flags[path]


class Quantization(TypedDict):
    """Layers that are quantized in the same way.

    Attributes:
        config: A `keras.quantizers.QuantizationConfig`, serialized.
        layers: Paths of the layers.
    """

    config: dict[str, JSON]
    layers: list[str]


def quantized_parts(owner: str, layer: keras.Layer) -> list[Quantization]:
    """Return the quantized layers of a layer or model, grouped by quantization config.

    Raises:
        ValueError: If a quantization mode is not int8, int4 or float8. Other modes need calibration
            data to quantize a loaded layer again. Also if Keras cannot load the config from JSON.
    """
    found: dict[str, Quantization] = {}
    for path, part, mode in quantized(layer):
        if mode not in _MODES:
            raise ValueError(
                f"{owner}: a saved model must have float weights, or weights quantized to one of "
                f"{_MODES}; save the float model. Received: {path} quantized by {mode}"
            )
        config = keras.saving.serialize_keras_object(part.quantization_config)
        key = json.dumps(config, sort_keys=True)
        if key not in found:
            _check_loads(owner, path, key)
        found.setdefault(key, {"config": config, "layers": []})["layers"].append(path)
    return list(found.values())


def _check_loads(owner: str, path: str, config: str) -> None:
    """Raise `ValueError` if Keras cannot load a quantization from JSON."""
    try:
        keras.saving.deserialize_keras_object(json.loads(config))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{owner}: Keras cannot load the quantization of {path} from a file ({error}); save "
            f"the float model. Received: {config}"
        ) from error


def quantize_parts(layer: keras.Layer, quantization: Sequence[Quantization]) -> None:
    """Quantize the parts in `quantization`, a result of `quantized_parts`, and no others."""
    if not quantization:
        return
    parts = {path: id(part) for path, part, _ in parts_of(layer)}
    model = layer
    if not isinstance(layer, keras.Model):
        # Only `quantize` of a model removes the float kernels from the parameters of PyTorch.
        with dtype_policy(layer.dtype_policy):
            model = keras.Sequential([layer], name="quantized")
        model.built = True
    for each in quantization:
        chosen = {parts[path] for path in each["layers"]}
        config = keras.saving.deserialize_keras_object(each["config"])
        model.quantize(config=config, filters=lambda part, chosen=chosen: id(part) in chosen)


def quantized(layer: keras.Layer) -> Iterator[tuple[str, keras.Layer, str]]:
    """Yield `(path, part, mode)` for every quantized part of a layer or model."""
    for path, part, _ in parts_of(layer):
        mode = getattr(part.dtype_policy, "quantization_mode", None)
        if mode is not None:
            yield path, part, mode


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
    layer: keras.Layer, prefix: str = "", enclosing: tuple[keras.Layer, ...] = ()
) -> Iterator[tuple[str, keras.Layer, keras.Layer]]:
    """Yield `(path, sublayer, enclosing layer)` for every sublayer at any depth."""
    enclosing = (*enclosing, layer)
    for part in _children(layer):
        if any(part is each for each in enclosing):  # a layer may keep the model that it is part of
            continue
        path = f"{prefix}{part.name}"
        yield path, part, layer
        yield from parts_of(part, f"{path}/", enclosing)


def _weights(layer: keras.Layer) -> Iterator[tuple[str, keras.Layer, keras.Variable]]:
    """Yield `(path, innermost layer, weight)` for every weight of a layer or model."""
    found = {id(weight): (weight.name, layer, weight) for weight in layer.weights}
    for path, part, _ in parts_of(layer):
        found |= {id(weight): (f"{path}/{weight.name}", part, weight) for weight in part.weights}
    return iter(found.values())


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
    return list(found.values())
