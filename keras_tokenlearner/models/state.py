"""The state of a model besides its config: weights, frozen parts and quantization."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_tokenlearner.layers.composite import (
    LORA,
    parts_of,
    quantized,
    set_weight_flags,
    trainable_flags,
    weight_flags,
)


def set_weights(layer: keras.Layer, weights: Sequence[np.ndarray]) -> None:
    """Set the weights of a layer or model, and the constants that Keras computes from weights.

    Args:
        layer: A `keras.Layer` or `keras.Model`, built.
        weights: Arrays in the order of `layer.weights`.
    """
    layer.set_weights(weights)
    update_constants(layer)


def update_constants(layer: keras.Layer) -> None:
    """Set the constants that Keras computes from the weights of a layer or model.

    An adapted `keras.layers.Normalization` normalises by constants, not by its weights. Keras
    computes the constants in `adapt` and on loading, but not in `set_weights`.
    """
    for part in (layer, *(part for _, part, _ in parts_of(layer))):
        if isinstance(part, keras.layers.Normalization):
            part.finalize_state()


def frozen_parts(model: keras.Model) -> dict[str, bool]:
    """Return the frozen parts of a model, and the trainable parts of frozen layers.

    A kernel has the state of its LoRA weights, as in `weight_flags`.

    Returns:
        Dictionary from paths of layers, parts and weights to booleans: whether they are trainable.
        Frozen layers of the model are always listed. Parts and weights are listed if their layer
        has the other state.
    """
    found = {layer.name: False for layer in model.layers if not layer.trainable}
    found |= {path: state for path, state in trainable_flags(model).items() if "/" in path}
    return found | weight_flags(model)


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
    set_weight_flags(model, frozen)


def quantization_of(model: keras.Model) -> str | None:
    """Return the modes of a model's quantized layers, such as `"int8"`, or `None`."""
    return " and ".join(sorted({mode for _, _, mode in quantized(model)})) or None


def has_lora(model: keras.Model) -> bool:
    """Return whether a layer of a model has LoRA weights."""
    return any(weight.name.startswith(LORA) for weight in model.weights)
