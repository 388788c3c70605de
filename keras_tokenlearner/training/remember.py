"""Outputs of a model that does not change, computed once."""

import hashlib
import os
from pathlib import Path

import keras
import numpy as np


def remember(model, images, dtype, verbose="auto", cache=None, batch_size=64):
    """Return the outputs of a model for all images as one array, made batch by batch.

    Args:
        model: A `keras.Model` with one output.
        images: Array of what it takes, (n, ...).
        dtype: Name of the type of the array.
        verbose: 0 for no progress bar.
        cache: Folder to keep the array in, or `None`. There it is found again for the same weights
            and images, and read from as it is needed, so that it may be larger than memory.
        batch_size: Integer.

    Returns:
        A numpy array, (n, ...), mapped from a file where there is a `cache`.
    """
    shape = (len(images), *model.output_shape[1:])
    if cache is None:
        outputs = np.empty(shape, dtype)
        _fill(outputs, model, images, verbose, batch_size)
        return outputs
    folder = Path(cache)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_digest(model, images, dtype)}.npy"
    if not path.is_file():
        unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
        outputs = np.lib.format.open_memmap(unfinished, "w+", dtype, shape)
        try:
            _fill(outputs, model, images, verbose, batch_size)
            outputs.flush()
            unfinished.rename(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _fill(outputs, model, images, verbose, batch_size):
    progress = keras.utils.Progbar(len(images), verbose=1 if verbose == "auto" else verbose)
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        outputs[start : start + len(batch)] = model.predict_on_batch(batch)
        progress.add(len(batch))


def _digest(model, images, dtype):
    """Return a name for what decides the outputs: weights, images, and what is asked for."""
    found = hashlib.sha256(repr((model.output_shape, dtype, len(model.layers))).encode())
    for array in (*model.get_weights(), images):
        found.update(repr((array.shape, array.dtype)).encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()[:24]
