"""Reads the `.msgpack` and `checkpoint` files of Flax."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from keras_tokenlearner._extras import require
from keras_tokenlearner.weights.formats.entries import (
    BFLOAT16,
    MOST_ENTRIES,
    Entry,
    Nested,
    flat_entries,
)

# Flax stores arrays as extension types: (shape, name of the type, bytes).
_FLAX_ARRAY, _FLAX_SCALAR = 1, 3
_FLAX_CHUNKED = "__msgpack_chunked_array__"


def msgpack_entries(owner: str, path: Path) -> dict[str, Entry]:
    """Return the arrays of a Flax msgpack file by name."""
    msgpack = require("msgpack", "weights")
    size = path.stat().st_size
    count = 0

    def counted(value: object) -> object:
        # A byte of a file may become an empty dictionary of 64 bytes: limit the dictionaries.
        nonlocal count
        count += 1
        if count > MOST_ENTRIES:
            raise ValueError(f"a file must have at most {MOST_ENTRIES} dictionaries and lists")
        return value

    def unpack(content: bytes, extension: Callable[[int, bytes], object]) -> object:
        return msgpack.unpackb(
            content,
            raw=False,
            strict_map_key=False,
            ext_hook=extension,
            object_hook=counted,
            list_hook=counted,
            max_map_len=MOST_ENTRIES,
            max_array_len=MOST_ENTRIES,
            max_str_len=1 << 16,
            max_bin_len=size,
            max_ext_len=size,
        )

    def inner(code: int, content: bytes) -> object:
        # Each level of nesting would copy the rest of the file.
        raise ValueError("an array must not contain another array")

    def extension(code: int, content: bytes) -> object:
        if code not in (_FLAX_ARRAY, _FLAX_SCALAR):
            return None  # a complex number, or a type that Flax does not write
        shape, kind, data = cast("tuple[tuple[int, ...], object, bytes]", unpack(content, inner))
        dtype = BFLOAT16 if kind == "bfloat16" else np.dtype(str(kind))
        expected = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise ValueError(f"an array must contain numbers, not type {dtype}")
        if expected != len(data):
            raise ValueError(
                f"an array of shape {shape} and type {dtype} must have {expected} bytes; "
                f"got {len(data)} bytes"
            )
        return np.frombuffer(data, dtype).reshape(shape)

    try:
        tree = unpack(path.read_bytes(), extension)
        if not isinstance(tree, dict):
            raise ValueError(f"the file must contain a dictionary, not a {type(tree).__name__}")
        return flat_entries(owner, cast("Mapping[str, Nested]", _joined(tree)))
    except Exception as error:  # a damaged file raises errors of any type
        raise ValueError(
            f"{owner}: {path} is damaged or not a Flax checkpoint; download or save it again. "
            f"Reason: {error}"
        ) from error


def _joined(tree: dict[str, Any]) -> Nested:
    """Join the stored pieces of large arrays in a tree, and return the tree."""
    if _FLAX_CHUNKED in tree:
        shape = [tree["shape"][str(axis)] for axis in range(len(tree["shape"]))]
        pieces = [tree["chunks"][str(number)] for number in range(len(tree["chunks"]))]
        return np.concatenate([piece.ravel() for piece in pieces]).reshape(shape)
    return {
        name: _joined(value) if isinstance(value, dict) else value for name, value in tree.items()
    }
