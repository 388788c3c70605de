"""Computes the outputs of frozen models once, and stores them."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import numpy as np

from keras_tokenlearner._checks import check_path
from keras_tokenlearner._files import move
from keras_tokenlearner._json import JSON

# Parts of a config that do not change the outputs of a model.
_WITHOUT_EFFECT = ("trainable", "frozen", "compile_config", "shared_object_id")
# Keys of a config with values that contain names of layers.
_REFERENCES = ("input_layers", "output_layers", "keras_history")


def remember(
    model: keras.Model,
    images: np.ndarray,
    dtype: str,
    verbose: str | int = "auto",
    cache: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
) -> np.ndarray:
    """Return the outputs of a model for all images as one array, computed batch by batch.

    Args:
        model: A `keras.Model` with one output.
        images: Array of inputs of the model, (n, ...).
        dtype: Name of the dtype of the result.
        verbose: 0 for no progress bar.
        cache: Folder for a file of the array, or `None`. A later call with the same layers, weights
            and images reads this file. The array may be larger than memory.
        batch_size: Integer, images per batch.

    Returns:
        A numpy array, (n, ...). With a `cache`, the array is a memory map of the file.

    Raises:
        ValueError: With a `cache`, if a layer of the model has no `get_config`.
    """
    if cache is None:
        outputs = np.empty((len(images), *model.output_shape[1:]), dtype)
        _fill([outputs], [model], images, verbose, batch_size)
        return outputs
    (path,) = keep([model], images, dtype, cache, verbose, batch_size)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def keep(
    models: Sequence[keras.Model],
    images: np.ndarray,
    dtype: str,
    cache: str | os.PathLike[str],
    verbose: str | int = "auto",
    batch_size: int = 64,
) -> list[Path]:
    """Compute the outputs of several models at once, and store them in a cache for `remember`.

    Args:
        models: List of models with the same input and one output each.
        images: Argument of `remember`.
        dtype: Argument of `remember`.
        cache: Argument of `remember`.
        verbose: Argument of `remember`.
        batch_size: Argument of `remember`.

    Returns:
        List of the paths of the files, one for each model.

    Raises:
        ValueError: If a layer of a model has no `get_config`.
    """
    folder = check_path("remember", "cache", cache)
    structures = [structure_of("remember", model) for model in models]
    folder.mkdir(parents=True, exist_ok=True)
    of_images = digest([images])
    paths = [
        folder / f"{digest(model.get_weights(), (structure, dtype, of_images))}.npy"
        for model, structure in zip(models, structures, strict=True)
    ]
    found = dict(zip(paths, models, strict=True))  # equal models share a file
    missing = {path: model for path, model in found.items() if not path.is_file()}
    unfinished = {path: path.with_suffix(f".{os.getpid()}.unfinished") for path in missing}
    if not missing:
        return paths
    try:
        outputs = [
            np.lib.format.open_memmap(
                unfinished[path], "w+", dtype, (len(images), *model.output_shape[1:])
            )
            for path, model in missing.items()
        ]
        _fill(outputs, list(missing.values()), images, verbose, batch_size)
        for path, output in zip(missing, outputs, strict=True):
            output.flush()
            move(unfinished[path], path)
    finally:
        for path in unfinished.values():
            path.unlink(missing_ok=True)
    return paths


def _fill(
    outputs: Sequence[np.ndarray],
    models: Sequence[keras.Model],
    images: np.ndarray,
    verbose: str | int,
    batch_size: int,
) -> None:
    model = keras.Model(models[0].input, [model.output for model in models])
    progress = keras.utils.Progbar(len(images), verbose=1 if verbose == "auto" else verbose)
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        # For a single output, Keras returns an array without a list.
        made = keras.tree.flatten(model.predict_on_batch(batch))
        for output, found in zip(outputs, made, strict=True):
            output[start : start + len(batch)] = found
        progress.add(len(batch))


def structure_of(owner: str, model: keras.Model) -> str:
    """Return a text that states a model's layers, settings and connections, without weights.

    The same code gives the same text in every process, although Keras numbers the names of layers
    per process.

    Args:
        owner: Name of the caller, for the error message.
        model: A `keras.Model` with known inputs.

    Raises:
        ValueError: If a layer has no `get_config`.
    """
    try:
        # The config of a `VisionTransformer` or `Sequential` has another form.
        config = keras.Model(model.inputs, model.outputs, name="model").get_config()
        return json.dumps(_without_numbers(config, {}), sort_keys=True)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"{owner}: with `cache` or `backup`, the layers of the model must have `get_config`. "
            f"Received: model {model.name!r}. Reason: {error}"
        ) from error


def _without_numbers(config: JSON, places: dict[str, int]) -> JSON:
    """Return a config without parts that have no effect or that depend on the process.

    Args:
        config: A config, or a part of it.
        places: Dictionary from names to indices of layers, for the model that contains this part.
            In the result, the indices replace the names.
    """
    if isinstance(config, (list, tuple)):
        return [_without_numbers(part, places) for part in config]
    if not isinstance(config, dict):
        return config
    if "input_layers" in config:  # a functional model
        places = {layer["name"]: index for index, layer in enumerate(config["layers"])}
    found: dict[str, JSON] = {}
    for key, value in config.items():
        if key in _REFERENCES:
            found[key] = keras.tree.map_structure(lambda name: places.get(name, name), value)
        elif key == "name" and isinstance(value, str):
            found[key] = re.sub(r"_\d+$", "", value)
        elif key not in _WITHOUT_EFFECT:
            found[key] = _without_numbers(value, places)
    return found


def digest(arrays: Iterable[np.ndarray], asked: Sequence[JSON] | None = None) -> str:
    """Return a hash of arrays and other values, as 24 hexadecimal digits.

    Args:
        arrays: Numpy arrays.
        asked: Other values to hash, by their `repr`.
    """
    found = hashlib.sha256(repr(asked).encode())
    for array in arrays:
        found.update(repr((array.shape, array.dtype)).encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view("uint8").data)
    return found.hexdigest()[:24]
