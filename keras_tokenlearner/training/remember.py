"""Computes the outputs of frozen models once, and stores them."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import numpy as np

from keras_tokenlearner._files import move
from keras_tokenlearner._json import JSON


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
        dtype: Name of the type of the array.
        verbose: 0 for no progress bar.
        cache: Folder for a file of the array, or `None`. A later call with the same weights and
            images reads this file. The array may be larger than memory.
        batch_size: Integer, images per batch.

    Returns:
        A numpy array, (n, ...). With a `cache`, the array is a memory map of the file.
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
    """Compute several outputs at once, and store them in a cache for `remember`.

    Args:
        models: List of models with the same input and one output each.
        images: Argument of `remember`.
        dtype: Argument of `remember`.
        cache: Argument of `remember`.
        verbose: Argument of `remember`.
        batch_size: Argument of `remember`.

    Returns:
        List of the paths of the files, one for each model.
    """
    folder = Path(cache)
    folder.mkdir(parents=True, exist_ok=True)
    of_images = digest([images])
    paths = {folder / _name(model, dtype, of_images): model for model in models}
    missing = {path: model for path, model in paths.items() if not path.is_file()}
    unfinished = {path: path.with_suffix(f".{os.getpid()}.unfinished") for path in missing}
    if not missing:
        return list(paths)
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
    return list(paths)


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
        # A single output comes without a list.
        made = keras.tree.flatten(model.predict_on_batch(batch))
        for output, found in zip(outputs, made, strict=True):
            output[start : start + len(batch)] = found
        progress.add(len(batch))


def _name(model: keras.Model, dtype: str, of_images: str) -> str:
    """Return the name of the file for some outputs: a hash of weights, images and dtype."""
    asked = (model.output_shape, dtype, len(model.layers), of_images)
    return f"{digest(model.get_weights(), asked)}.npy"


def digest(arrays: Iterable[np.ndarray], asked: Sequence[JSON] | None = None) -> str:
    """Return a hash of arrays and other values, as 24 hexadecimal digits.

    Args:
        arrays: Numpy arrays.
        asked: Other values. Their `repr` enters the hash.
    """
    found = hashlib.sha256(repr(asked).encode())
    for array in arrays:
        found.update(repr((array.shape, array.dtype)).encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view("uint8").data)
    return found.hexdigest()[:24]
