"""Compares the sizes of a model with its weights file, before the model takes memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from keras_tokenlearner._json import JSON
from keras_tokenlearner.models.vision_model import BuildArguments, Config, VisionModel
from keras_tokenlearner.models.weightless import without_weights
from keras_tokenlearner.models.x2plus1d_config import X2Plus1DConfig

MOST_PARTS = 512  # blocks or units of a model; each takes about 10 ms to build
MOST_NUMBERS = 2**24  # in a table with a row per token; more if the weights have more numbers


def check_own_sizes(
    owner: str,
    kind: type[VisionModel],
    config: Mapping[str, JSON],
    weights: str,
    shapes: Iterable[tuple[int, ...]],
) -> None:
    """Raise `ValueError` if a saved config and its weights file differ in the shapes of weights.

    The weights of the model that the config describes are not allocated.

    Args:
        owner: Name of the function that the user called, for error messages.
        kind: `VisionTransformer` or `X2Plus1D`.
        config: The result of `get_config` of a model of this class.
        weights: Name of the `.weights.h5` file.
        shapes: Shapes of the arrays of all layers in the file.
    """
    found = Counter(shapes)
    numbers = sum(math.prod(shape) * count for shape, count in found.items())
    fields = kind.config_class(**cast("Any", config["config"]))
    check_tables(owner, fields, cast("Sequence[int]", config["input_shape"]), numbers)
    plain = {**config, "quantization": None}
    model = without_weights(lambda: kind.from_config(plain))
    stated = Counter(tuple(weight.shape) for weight in model.weights)
    if stated != found:
        more, less = sorted(stated - found)[:3], sorted(found - stated)[:3]
        raise ValueError(
            f"{owner}: the model of config.json must have the shapes of {weights}; save both again "
            f"with save_to_preset. Received: first shapes only in the model: {more}; only in the "
            f"weights: {less}"
        )


def build_without_weights(
    kind: Callable[..., VisionModel], config: Config, classes: int, arguments: BuildArguments
) -> VisionModel:
    """Return a model to compare with a checkpoint. Its weights have shapes, but take no memory.

    Args:
        kind: `VisionTransformer` or `X2Plus1D`.
        config: Config of the model.
        classes: Number of classes.
        arguments: Other arguments of the class.
    """
    tensor = arguments.get("input_tensor")
    plain: BuildArguments = {**arguments, "input_tensor": None, "class_names": None}
    if tensor is not None:  # the tensor would keep the layers of this model in memory
        plain["input_shape"] = tensor.shape[1:]
    return without_weights(lambda: kind(config, classes=classes, **plain))


def check_tables(owner: str, config: Config, input_shape: Sequence[int], numbers: int) -> None:
    """Raise `ValueError` if building a model takes far more time or memory than its weights need.

    Most sizes in a config must match the shapes of the weights in the checkpoint. These sizes
    cannot be too large. The weights show neither the size of the images nor the size of computed
    tables, such as rotary positions.

    Args:
        owner: Name of the function that the user called, for error messages.
        config: Config of the model.
        input_shape: Shape of the input of the model.
        numbers: Number of values in all arrays of the checkpoint.
    """
    if isinstance(config, X2Plus1DConfig):
        parts = {
            "stage_units": (sum(config.stage_units), "units"),
            "unit": (len(config.replaced_units) * len(config.parts), "layers"),
        }
    else:
        parts = {
            "num_layers": (config.num_layers, "blocks"),
            "stem": (len(config.stem or ()), "convolutions"),
        }
    for name, (count, kind) in parts.items():
        if count > MOST_PARTS:
            raise ValueError(
                f"{owner}: `{name}` must give at most {MOST_PARTS} {kind}. Received: {count} {kind}"
            )
    if isinstance(config, X2Plus1DConfig):
        return  # it has no tables besides its weights
    tokens = config.num_prefix_tokens + math.prod(
        size // patch for size, patch in zip(input_shape, config.patch_size, strict=False)
    )
    size = tokens * max(config.hidden_dim, config.num_tokens if config.reducer else 0)
    most = max(MOST_NUMBERS, numbers)
    if size > most:
        raise ValueError(
            f"{owner}: a table with a row for each patch must have at most {most} numbers; use a "
            f"smaller `input_shape`. Received: {size} numbers, for input_shape="
            f"{tuple(input_shape)}, hidden_dim={config.hidden_dim}, num_tokens={config.num_tokens}"
        )
