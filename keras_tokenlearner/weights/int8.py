"""Stores the large arrays of a `.weights.h5` file as 8-bit integers, in a quarter of the bytes.

An array `w` becomes the integers `round(w / scale)` in [-127, 127]. Each channel on the last axis
of `w` has its own scale, `max(abs(w)) / 127` within the channel.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import h5py

SUFFIX = ".int8.h5"
_SCALE = "scale"  # attribute of an array of integers
_SMALL = 1 << 16  # smaller arrays stay floats: norms, biases, positions, class token


def to_int8(path: Path, to: Path) -> None:
    """Write a copy of a `.weights.h5` file with the large arrays as 8-bit integers."""
    import h5py  # a dependency of Keras

    with h5py.File(path) as source, h5py.File(to, "w") as target:
        _copy(source, target, _integers)


def from_int8(path: Path, to: Path) -> None:
    """Write a `.weights.h5` file of floats from a file that `to_int8` wrote."""
    import h5py

    with h5py.File(path) as source, h5py.File(to, "w") as target:
        _copy(source, target, _floats)


def _copy(
    source: h5py.Group, target: h5py.Group, change: Callable[[h5py.Dataset, h5py.Group, str], bool]
) -> None:
    """Copy a group. `change` writes a changed array, or returns `False` for a plain copy."""
    target.attrs.update(source.attrs)
    for name, item in source.items():
        if hasattr(item, "items"):  # a group
            _copy(item, target.create_group(name), change)
        elif not change(item, target, name):
            source.copy(item, target, name)


def _integers(array: h5py.Dataset, target: h5py.Group, name: str) -> bool:
    if array.dtype.kind != "f" or array.ndim < 2 or array.size < _SMALL:
        return False
    floats = np.asarray(array[()], "float32")
    largest = np.abs(floats).max(axis=tuple(range(floats.ndim - 1)))
    scale = np.maximum(largest, np.finfo("float32").tiny) / np.float32(127)
    integers = np.rint(floats / scale).astype("int8")
    new = target.create_dataset(name, data=integers, compression="gzip", compression_opts=9)
    new.attrs[_SCALE] = scale
    return True


def _floats(array: h5py.Dataset, target: h5py.Group, name: str) -> bool:
    if _SCALE not in array.attrs:
        return False
    target.create_dataset(name, data=array[()] * np.asarray(array.attrs[_SCALE], "float32"))
    return True
