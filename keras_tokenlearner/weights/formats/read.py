"""Reads checkpoints: files of all supported formats, files in parts, mappings and models."""

from __future__ import annotations

import collections.abc
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Union

import keras
import numpy as np

from keras_tokenlearner._errors import listed
from keras_tokenlearner.layers import TokenLearner
from keras_tokenlearner.models.names import parents_path
from keras_tokenlearner.weights.formats.entries import (
    MOST_ENTRIES,
    Checkpoint,
    Entry,
    Nested,
    PathLike,
    flat_entries,
)
from keras_tokenlearner.weights.formats.hdf5 import h5_entries
from keras_tokenlearner.weights.formats.msgpack import msgpack_entries
from keras_tokenlearner.weights.formats.npz import npz_entries
from keras_tokenlearner.weights.formats.parts import KERAS_INDEX, parts_of
from keras_tokenlearner.weights.formats.pytorch import is_torch, torch_entries
from keras_tokenlearner.weights.formats.safetensors import safetensors_entries

if TYPE_CHECKING:
    import torch

_KINDS = (
    "a .npz, .safetensors, .h5, PyTorch or Flax (.msgpack) file, or the index of a file in parts "
    "(.index.json or .weights.json)"
)

CheckpointLike = Union[PathLike, Checkpoint, Mapping[str, Nested], keras.Model, "torch.nn.Module"]


def read_checkpoint(checkpoint: CheckpointLike, owner: str = "read_checkpoint") -> Checkpoint:
    """Return the names and shapes of a checkpoint's arrays. An array is read when it is requested.

    A Flax file is an exception: all its arrays are read at once.

    Args:
        checkpoint: A file, a mapping, or a model of PyTorch or Keras. Formats of files are `.npz`,
            `.safetensors`, `.h5`, PyTorch (`.pt`, `.pth`, `.bin`) and Flax (`.msgpack`,
            `checkpoint`). The first bytes of a file decide its format. Flax files and indexes have
            no typical first bytes, so their names decide. For a file in several parts, pass its
            `.index.json`, or Keras's `.weights.json`. A mapping from names to arrays may be nested;
            its keys are joined by "/".
        owner: String, the function that the user called, for error messages.

    Returns:
        A `Checkpoint`.

    Raises:
        ValueError: If the file is missing, damaged or of another format. Also if the arrays are
            much larger than the file. An array that this package cannot read raises the error
            when the array is requested.

    Example:

    >>> np.savez("mine.npz", kernel=np.ones((2, 3)))
    >>> read_checkpoint("mine.npz").entries["kernel"].shape
    (2, 3)
    """
    if isinstance(checkpoint, Checkpoint):
        return checkpoint
    if isinstance(checkpoint, collections.abc.Mapping):
        return Checkpoint(flat_entries(owner, checkpoint), "a mapping")
    # This check precedes the check for PyTorch's modules: on torch, a Keras layer is a module too.
    if isinstance(checkpoint, keras.Layer):
        weights = {weight.path: weight for weight in checkpoint.weights}
        weights |= {
            parents_path(layer.bias.path): np.array(layer.parents, "float32")
            for layer in getattr(checkpoint, "layers", [])
            if isinstance(layer, TokenLearner) and layer.position_bias
        }
        return Checkpoint(flat_entries(owner, weights), f"the model {checkpoint.name!r}")
    if hasattr(checkpoint, "state_dict") and not isinstance(checkpoint, type):
        return Checkpoint(flat_entries(owner, checkpoint.state_dict()), "a PyTorch module")
    if not isinstance(checkpoint, (str, os.PathLike)):
        raise ValueError(
            f"{owner}: `checkpoint` must be {_KINDS}, a mapping or a model. "
            f"Received: checkpoint of class {type(checkpoint).__name__}"
        )
    path = Path(os.path.expanduser(checkpoint))
    if not path.is_file():
        raise ValueError(
            f"{owner}: `checkpoint` must be an existing file. Received: checkpoint={str(path)!r}"
        )
    entries = _reader(owner, path)(owner, path)
    if len(entries) > MOST_ENTRIES:
        raise ValueError(
            f"{owner}: a checkpoint must have at most {MOST_ENTRIES} entries. "
            f"Received: {path} with {len(entries)} entries"
        )
    return Checkpoint(entries, str(path))


def _reader(owner: str, path: Path) -> Callable[[str, Path], dict[str, Entry]]:
    """Return the function that reads a file. Its first bytes, or else its name, decide."""
    with path.open("rb") as stream:
        start = stream.read(10)
    if path.suffix == ".keras":
        raise ValueError(
            f"{owner}: {path} contains a whole model; load it with keras.saving.load_model, or "
            "save its weights with model.save_weights"
        )
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return torch_entries if is_torch(owner, path) else npz_entries
    if start[:8] == b"\x89HDF\r\n\x1a\n":
        return h5_entries
    if path.suffix == ".json":
        return _read_parts
    if path.suffix == ".safetensors" or (len(start) > 8 and start[8:9] == b"{" and start[7] == 0):
        return safetensors_entries
    if path.suffix == ".msgpack" or path.name.startswith("checkpoint"):
        return msgpack_entries
    if path.suffix in (".pt", ".pth", ".bin"):
        raise ValueError(
            f"{owner}: {path} is damaged, or is a pickle of a PyTorch release before 1.6; save it "
            "again with torch.save"
        )
    if path.suffix in (".npz", ".h5"):
        kind = {".npz": "npz", ".h5": "HDF5"}[path.suffix]
        raise ValueError(
            f"{owner}: {path} is damaged or not an {kind} file; download or save it again"
        )
    raise ValueError(f"{owner}: `checkpoint` must be {_KINDS}. Received: checkpoint={str(path)!r}")


def _read_parts(owner: str, path: Path) -> dict[str, Entry]:
    """Read all files of a checkpoint in parts. Its index, `path`, names the file of each entry."""
    lists_groups = path.name.endswith(KERAS_INDEX)
    entries: dict[str, Entry] = {}
    for file, names in parts_of(owner, path).items():
        part = read_checkpoint(path.with_name(file), owner).entries
        found = {f"/{name.rpartition('/')[0]}" if lists_groups else name for name in part}
        if found != names:
            wrong = listed(sorted(names.symmetric_difference(found)))
            raise ValueError(
                f"{owner}: {path} and {file} must list the same entries; download both again. "
                f"Entries in only one of them: {wrong}"
            )
        twice = entries.keys() & part.keys()
        if twice:
            raise ValueError(
                f"{owner}: the files of {path} must not have the same entry twice; download them "
                f"again. Received: {listed(sorted(twice))}"
            )
        entries |= part
    return entries
