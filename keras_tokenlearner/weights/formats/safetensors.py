"""Reads `.safetensors` files."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from keras_tokenlearner._extras import require
from keras_tokenlearner.weights.formats.entries import BFLOAT16, Entry


def safetensors_entries(owner: str, path: Path) -> dict[str, Entry]:
    """Return the entries of a safetensors file by name, without reading arrays."""
    safetensors = require("safetensors", "weights")
    try:
        file = safetensors.safe_open(path, framework="numpy")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        kinds = {name: part.get_dtype() for name, part in slices.items()}
    except Exception as error:  # any error of the library or the system
        raise ValueError(
            f"{owner}: {path} is damaged or not a safetensors file; download or save it again. "
            f"Reason: {error}"
        ) from error

    def read(name: str) -> np.ndarray:
        try:
            return file.get_tensor(name)
        except Exception as error:
            raise ValueError(
                f"{owner}: the entry {name} of {path} cannot be read; download or save the file "
                f"again. Reason: {error}"
            ) from error

    entries = {}
    for name, shape in shapes.items():
        dtype = _SAFETENSORS.get(kinds[name])
        if dtype is None:
            entries[name] = Entry(shape, problem=f"an array of {kinds[name]}, which numpy lacks")
        else:
            entries[name] = Entry(shape, dtype, functools.partial(read, name))
    return entries


_SAFETENSORS = {
    **{f"F{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    **{
        f"{kind}{bits}": np.dtype(f"<{kind.lower()}{bits // 8}")
        for kind in "IU"
        for bits in (8, 16, 32, 64)
    },
    "BF16": BFLOAT16,
    "BOOL": np.dtype("?"),
}
