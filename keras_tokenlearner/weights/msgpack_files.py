"""Checkpoints as Flax writes them: msgpack, with arrays as an extension type of their own."""

import math

import numpy as np

from keras_tokenlearner._extras import require

_ARRAY, _SCALAR = 1, 3
_CHUNKED = "__msgpack_chunked_array__"


def read_msgpack(path):
    """Return the tree of a Flax checkpoint, nested dictionaries of arrays, or raise `ValueError`.

    Arrays are bytes with a shape and the name of a type; nothing in such a file is executed.
    """
    msgpack = require("msgpack", "weights")

    def extension(code, content):
        if code not in (_ARRAY, _SCALAR):
            return None  # a complex number, or what Flax does not write
        shape, dtype, data = msgpack.unpackb(content, raw=False)
        return _array(shape, dtype, data)

    try:
        tree = msgpack.unpackb(
            path.read_bytes(), ext_hook=extension, raw=False, strict_map_key=False
        )
        if not isinstance(tree, dict):
            raise ValueError(f"it holds a {type(tree).__name__}, not a tree")
        return _joined(tree)
    except Exception as error:  # what a damaged file raises has no bounds
        raise ValueError(f"read: {path} is damaged or no Flax checkpoint: {error}") from error


def _array(shape, dtype, data):
    dtype = np.dtype("V2" if dtype == "bfloat16" else str(dtype))
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"it has an array of shape {shape} of {dtype} in {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape)


def _joined(tree):
    """Return a tree whose large arrays, stored in pieces, are whole."""
    if _CHUNKED in tree:
        shape = [tree["shape"][str(axis)] for axis in range(len(tree["shape"]))]
        pieces = [tree["chunks"][str(number)] for number in range(len(tree["chunks"]))]
        return np.concatenate([piece.ravel() for piece in pieces]).reshape(shape)
    return {
        name: _joined(value) if isinstance(value, dict) else value for name, value in tree.items()
    }
