"""Names, shapes and arrays of a checkpoint, and the limits of their sizes."""

from __future__ import annotations

import collections.abc
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import keras
import ml_dtypes  # a dependency of Keras
import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import torch

# Limit of the total size of a file's unpacked arrays: 20 times the size of the file, but at least
# 64 MiB. Trained weights hardly compress, so a file that claims more is a decompression bomb.
_RATIO, _FLOOR = 20, 64 << 20
MOST_ENTRIES = 100_000
_DEPTH = 32
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

PathLike: TypeAlias = str | os.PathLike[str]


class Entry:
    """An entry of a checkpoint: the shape and type of an array, and a function that reads it.

    Args:
        shape: Tuple of integers; `None` for a value that is not an array.
        dtype: numpy type; `None` for an unsupported array, or a value that is not an array.
        read: Function that returns the array.
        problem: Reason why the array cannot be read, or `None`.
    """

    __slots__ = ("shape", "dtype", "_read", "problem")

    def __init__(
        self,
        shape: tuple[int, ...] | None = None,
        dtype: np.dtype | None = None,
        read: Callable[[], np.ndarray] | None = None,
        problem: str | None = None,
    ) -> None:
        self.shape, self.dtype, self._read = shape, dtype, read
        self.problem = problem or (None if read else "not an array")

    @classmethod
    def of(cls, array: np.ndarray) -> Entry:
        """Return the entry of an array in memory."""
        return cls(tuple(array.shape), array.dtype, lambda: array)

    @property
    def nbytes(self) -> int:
        if self.shape is None or self.dtype is None:
            return 0
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_float(self) -> bool:
        """Whether the entry is an array of floating-point numbers."""
        if self.problem or self.dtype is None:
            return False
        return self.dtype.kind == "f" or self.dtype in (BFLOAT16, np.dtype("V2"))

    def read(self) -> np.ndarray:
        """Return the array. A bfloat16 array becomes float32, because numpy lacks bfloat16."""
        if self._read is None:
            raise ValueError(
                f"Entry.read: the entry must be a plain array. Received: {self.problem}"
            )
        array = self._read()
        if array.dtype == np.dtype("V2"):  # bfloat16, as numpy and HDF5 store it
            array = array.view(BFLOAT16)
        return array.astype(np.float32) if array.dtype == BFLOAT16 else array


# An array of any library, or a mapping from names to arrays or to further mappings.
Nested: TypeAlias = ArrayLike | Entry | None | Mapping[str, "Nested"]


class Checkpoint(Mapping[str, "np.ndarray | None"]):
    """A mapping from names to the arrays of a file. An array is read when it is requested.

    The value of a name without an array (a number of epochs, training options) is `None`.

    Attributes:
        entries: Dictionary from names to `Entry`. Shapes are known before any array is read.
        origin: Where the entries came from: a path, or a phrase such as "a mapping".
    """

    def __init__(self, entries: Mapping[str, Entry], origin: str) -> None:
        self.entries, self.origin = dict(entries), origin

    def __getitem__(self, name: str) -> np.ndarray | None:
        entry = self.entries[name]
        return None if entry.problem == "not an array" else entry.read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def flat_entries(owner: str, mapping: Mapping[str, Nested]) -> dict[str, Entry]:
    """Return the arrays of a nested mapping as entries, whose names join all keys by "/"."""
    flat: dict[str, Entry] = {}
    counts = itertools.count(1)

    def add(mapping: Mapping[str, Nested], prefix: str, depth: int) -> None:
        if depth > _DEPTH:
            raise ValueError(
                f"{owner}: the nested mappings of a checkpoint must have at most {_DEPTH} levels. "
                f"Received: more levels at {prefix[:40]!r}"
            )
        for name, value in mapping.items():
            # Mappings are counted like arrays. If each level has the next level under two names,
            # the time doubles with each level, even without arrays.
            if next(counts) > MOST_ENTRIES:
                raise ValueError(
                    f"{owner}: a checkpoint must have at most {MOST_ENTRIES} entries. "
                    "Received: a mapping with more entries"
                )
            full = f"{prefix}{name}"
            if isinstance(value, collections.abc.Mapping):
                add(value, f"{full}/", depth + 1)
            else:
                flat[full] = _entry(value)

    add(mapping, "", 0)
    return flat


def _entry(value: ArrayLike | Entry | None) -> Entry:
    """Return a value as an entry. If the value is no plain array, reading raises an error."""
    if isinstance(value, Entry):
        return value
    if isinstance(value, keras.Variable):
        dtype = BFLOAT16 if value.dtype == "bfloat16" else np.dtype(value.dtype)
        return Entry(tuple(value.shape), dtype, lambda: keras.ops.convert_to_numpy(value))
    if hasattr(value, "detach"):
        return _torch_entry(cast("torch.Tensor", value))
    if not hasattr(value, "shape"):
        return Entry()
    try:
        array = np.asarray(value)
    except Exception as error:  # arrays of other libraries raise errors of any type
        return Entry(problem=f"an array that numpy cannot represent ({error})")
    if array.dtype.hasobject:
        return Entry(problem="an array of Python objects, which this package does not read")
    return Entry.of(array)


def _torch_entry(tensor: torch.Tensor) -> Entry:
    try:
        shape = tuple(int(size) for size in tensor.shape)
        kind = str(tensor.dtype).removeprefix("torch.")
        if tensor.is_quantized or str(tensor.layout) != "torch.strided" or tensor.is_nested:
            return Entry(shape, problem="a sparse, nested or quantized tensor, not a plain one")
        if tensor.is_meta:
            return Entry(shape, problem="a tensor on the meta device, without values")
        size = tensor.numel() * tensor.element_size()
        if size > tensor.untyped_storage().nbytes():
            return Entry(problem=f"a tensor whose shape {shape} exceeds its stored values")
    except Exception as error:  # tensors of rare kinds lack attributes of plain tensors
        return Entry(problem=f"a tensor of an unsupported kind ({error})")
    if kind not in _TORCH:
        return Entry(shape, problem=f"a tensor of {kind}, which numpy lacks")
    dtype = BFLOAT16 if kind == "bfloat16" else np.dtype(kind)

    def read() -> np.ndarray:
        plain = tensor.detach().cpu()
        return (plain.float() if kind == "bfloat16" else plain).numpy()

    return Entry(shape, dtype, read)


_TORCH = (
    "bfloat16",
    "bool",
    *(f"float{bits}" for bits in (16, 32, 64)),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
)


def check_total(owner: str, path: Path, total: int, ratio: int = _RATIO) -> None:
    """Raise `ValueError` if the arrays of a file are much larger than the file."""
    limit = max(_FLOOR, ratio * path.stat().st_size)
    if total > limit:
        raise ValueError(
            f"{owner}: {path} is refused as a decompression bomb: it would unpack to {total} "
            f"bytes, more than the limit of {limit} bytes. Save the arrays uncompressed"
        )
