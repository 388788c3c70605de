"""Files of strangers as flat dictionaries of arrays. They are data: nothing in them is executed."""

import collections.abc
import json
from pathlib import Path

import keras
import numpy as np

from keras_tokenlearner._extras import require
from keras_tokenlearner.weights.archives import check_torch_zip, read_npz
from keras_tokenlearner.weights.entries import listed
from keras_tokenlearner.weights.msgpack_files import read_msgpack

_READERS = {}
_DEPTH = 32
_SAFETENSORS = {
    **{f"F{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    **{f"{kind}{bits}": f"<{kind.lower()}{bits // 8}" for kind in "IU" for bits in (8, 16, 32, 64)},
    "BF16": "V2",
    "BOOL": "?",
}


class Checkpoint(dict):
    """Names to arrays, as a file or a mapping has them, and `origin`, where they came from.

    What is no array (a number of epochs, the options of a training) has `None` in its place.
    bfloat16, which numpy lacks and stores as two bytes of no type, has become float32.
    """

    def __init__(self, entries, origin):
        super().__init__({name: _widened(array) for name, array in entries.items()})
        self.origin = origin


def read(path_or_mapping):
    """Return the arrays of a checkpoint as a `Checkpoint`.

    Args:
        path_or_mapping: Path of a `.npz`, `.safetensors`, `.h5`, PyTorch (`.pt`, `.pth`, `.bin`) or
            Flax (`.msgpack`) file, or of the `.index.json` of one in several parts; a mapping of
            names to arrays, nested or flat (the levels are joined by "/"); or a model, of PyTorch
            or Keras.

    Raises:
        ValueError: If the file is missing, damaged or of another kind, or holds anything but plain
            arrays, or much more than its size on disk allows.
    """
    if isinstance(path_or_mapping, Checkpoint):
        return path_or_mapping
    if isinstance(path_or_mapping, collections.abc.Mapping):
        return Checkpoint(_flatten(path_or_mapping), "a mapping")
    if isinstance(path_or_mapping, keras.Layer):  # before modules, which it is too on PyTorch
        entries = {weight.path: weight for weight in path_or_mapping.weights}
        return Checkpoint(_flatten(entries), f"the model {path_or_mapping.name!r}")
    if hasattr(path_or_mapping, "state_dict"):
        return Checkpoint(_flatten(path_or_mapping.state_dict()), "a PyTorch module")
    path = Path(path_or_mapping)
    if not path.is_file():
        raise ValueError(f"read: there is no such file. Received: {str(path)!r}")
    if path.suffix not in _READERS:
        raise ValueError(
            f"read: a checkpoint must end in one of {sorted(_READERS)}. Received: {str(path)!r}"
        )
    return Checkpoint(_READERS[path.suffix](path), str(path))


def _widened(array):
    if array is None or (array.dtype != np.dtype("V2") and array.dtype.name != "bfloat16"):
        return array
    return (array.view("<u2").astype(np.uint32) << 16).view(np.float32)  # its upper half


def _flatten(mapping, prefix="", depth=0):
    if depth > _DEPTH:
        raise ValueError(f"read: mappings are nested more than {_DEPTH} deep, at {prefix[:40]}")
    flat = {}
    for name, value in mapping.items():
        if isinstance(value, collections.abc.Mapping):
            flat.update(_flatten(value, f"{prefix}{name}/", depth + 1))
        else:
            flat[f"{prefix}{name}"] = _array(f"{prefix}{name}", value)
    return flat


def _array(name, value):
    """Return a value as a numpy array, or `None` if it is none."""
    if isinstance(value, keras.Variable):
        return keras.ops.convert_to_numpy(value)
    if hasattr(value, "detach"):
        return _from_torch(name, value.detach().cpu())
    if not hasattr(value, "shape"):
        return None
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise ValueError(f"read: {name} is an array of Python objects, which are refused")
    return array


def _from_torch(name, tensor):
    if str(tensor.layout) != "torch.strided" or tensor.is_quantized:
        raise ValueError(f"read: {name} is a sparse or quantised tensor, which are refused")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"read: {name} claims shape {tuple(tensor.shape)}, more than it stores")
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    return tensor.numpy()


def _read_safetensors(path):
    safetensors = require("safetensors", "weights")
    try:
        entries = dict(safetensors.deserialize(path.read_bytes()))
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"read: {path} is damaged or no safetensors file: {error}") from error
    kinds = {entry["dtype"] for entry in entries.values()} - set(_SAFETENSORS)
    if kinds:
        raise ValueError(f"read: {path} is refused: it holds {sorted(kinds)}, which numpy lacks")
    return {
        name: np.frombuffer(entry["data"], _SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in entries.items()
    }


def _read_torch(path):
    check_torch_zip(path)
    torch = require("torch", "torch")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged or hostile pickle raises has no bounds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"read: {path} is damaged or holds more than tensors, and is not unpickled: {reason}"
        ) from error
    if not isinstance(content, collections.abc.Mapping):
        raise ValueError(f"read: {path} holds a {type(content).__name__}, not a state dict")
    return _flatten(content)


def _read_parts(path):
    """Read the files beside an index, which has the file of each entry."""
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        parts = {str(file): set() for file in files.values()}
        for name, file in files.items():
            parts[str(file)].add(name)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"read: {path} is damaged or no index of parts: {error!r}") from error
    entries = {}
    for file, names in sorted(parts.items()):
        if Path(file).name != file or file in ("", "..") or file.endswith(".json"):
            raise ValueError(f"read: {path} is refused: {file!r} is no file beside it")
        part = read(path.with_name(file))
        if set(part) != names:
            wrong = listed(sorted(names.symmetric_difference(part)))
            raise ValueError(
                f"read: {path} and {file} do not belong together: only one of them has {wrong}"
            )
        entries |= part
    return entries


def _read_h5(path):
    import h5py  # a dependency of Keras, which writes these files with it

    entries, total = {}, 0
    limit = max(64 << 20, 20 * path.stat().st_size)

    def visit(name, item):
        nonlocal total
        if not isinstance(item, h5py.Dataset):
            return
        total += item.nbytes
        if item.external is not None or item.is_virtual or item.dtype.hasobject:
            raise ValueError(f"{name} is no plain array")
        if total > limit:
            raise ValueError(f"it claims more than {limit} bytes of arrays")
        entries[name] = item[()]

    try:
        with h5py.File(path) as file:
            file.visititems(visit)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"read: {path} is damaged or no HDF5 file: {error}") from error
    return entries


_READERS.update(
    {
        ".npz": read_npz,
        ".safetensors": _read_safetensors,
        ".h5": _read_h5,
        ".json": _read_parts,
        ".msgpack": lambda path: _flatten(read_msgpack(path)),
    }
    | dict.fromkeys((".pt", ".pth", ".bin"), _read_torch)
)
