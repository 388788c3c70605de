"""The state that a saved model keeps besides its config: frozen parts and quantization."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict

import keras

from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers.composite import parts_of, trainable_flags

_MODES = ("int8", "int4", "float8")  # other modes need data to quantize a loaded model again
_LORA = "lora_"  # start of the names of LoRA weights, such as "lora_kernel_a"


def frozen_parts(model: keras.Model) -> dict[str, bool]:
    """Return the frozen parts of a model, and the trainable parts of frozen layers.

    A file has the sum of a kernel and its LoRA weights, and the loaded model has no LoRA. The
    kernel therefore takes the state of its LoRA weights. Otherwise the loaded layer could not
    learn.

    Returns:
        Dictionary from paths of layers, parts and weights to booleans: whether they are trainable.
        Frozen layers of the model are always listed. Parts and weights are listed if their layer
        has the other state.
    """
    found = {layer.name: False for layer in model.layers if not layer.trainable}
    found |= {path: state for path, state in trainable_flags(model).items() if "/" in path}
    lora: dict[str, bool] = {}
    for path, layer, weight in _weights(model):
        if weight.name.startswith(_LORA):
            kernel = weight.name.removeprefix(_LORA).removesuffix("_a").removesuffix("_b")
            lora[f"{path.rpartition('/')[0]}/{kernel}"] = weight.trainable
        elif weight.trainable != layer.trainable:
            found[path] = weight.trainable
    for path, _, weight in _weights(model):
        if path in lora and "float" in weight.dtype:  # quantized kernels have no gradient
            found[path] = lora[path]
    return found


def freeze_parts(model: keras.Model, trainable: bool, frozen: Mapping[str, bool]) -> None:
    """Set `model.trainable`, and the states in `frozen`, a result of `frozen_parts`.

    Other layers become trainable. Unknown paths have no effect.
    """
    model.trainable = trainable
    for layer in model.layers:
        layer.trainable = frozen.get(layer.name, True)
    for path, part, _ in parts_of(model):  # enclosing layers come first
        if path in frozen:
            part.trainable = frozen[path]
    for path, _, weight in _weights(model):
        if path in frozen:
            weight.trainable = frozen[path]


class Quantization(TypedDict):
    """Layers that are quantized in the same way.

    Attributes:
        config: A `keras.quantizers.QuantizationConfig`, serialized.
        layers: Paths of the layers.
    """

    config: dict[str, JSON]
    layers: list[str]


def quantized_parts(owner: str, model: keras.Model) -> list[Quantization]:
    """Return the quantized layers of a model, by their quantization.

    Raises:
        ValueError: If a mode needs data to quantize a loaded model again, or Keras cannot load the
            quantization.
    """
    found: dict[str, Quantization] = {}
    for path, part, mode in _quantized(model):
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


def quantize_parts(model: keras.Model, quantized: Sequence[Quantization]) -> None:
    """Quantize the layers in `quantized`, a result of `quantized_parts`, and no others."""
    parts = {path: id(part) for path, part, _ in parts_of(model)}
    for each in quantized:
        chosen = {parts[path] for path in each["layers"]}
        config = keras.saving.deserialize_keras_object(each["config"])
        model.quantize(config=config, filters=lambda layer, chosen=chosen: id(layer) in chosen)


def quantization_of(model: keras.Model) -> str | None:
    """Return the modes of a model's quantized layers, such as `"int8"`, or `None`."""
    return " and ".join(sorted({mode for _, _, mode in _quantized(model)})) or None


def _quantized(model: keras.Model) -> Iterator[tuple[str, keras.Layer, str]]:
    """Yield `(path, layer, mode)` for every quantized layer of a model."""
    for path, part, _ in parts_of(model):
        mode = getattr(part.dtype_policy, "quantization_mode", None)
        if mode is not None:
            yield path, part, mode


def _weights(model: keras.Model) -> Iterator[tuple[str, keras.Layer, keras.Variable]]:
    """Yield `(path, innermost layer, weight)` for every weight of a model."""
    found = {
        id(weight): (f"{path}/{weight.name}", part, weight)
        for path, part, _ in parts_of(model)
        for weight in part.weights
    }
    return iter(found.values())
