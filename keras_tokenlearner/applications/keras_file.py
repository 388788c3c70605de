"""Checks a `.keras` file of unknown origin, before Keras takes memory for its model."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import keras

from keras_tokenlearner.models.weightless import without_weights
from keras_tokenlearner.presets.own import KINDS
from keras_tokenlearner.presets.save import CONFIG, WEIGHTS
from keras_tokenlearner.presets.sizes import MOST_NUMBERS, check_tables
from keras_tokenlearner.weights.formats.entries import check_total
from keras_tokenlearner.weights.formats.hdf5 import h5_entries, refuse_chunks
from keras_tokenlearner.weights.formats.npz import open_zip
from keras_tokenlearner.weights.json_values import Object, read_json


def check_keras_file(owner: str, path: Path) -> None:
    """Raise `ValueError` for a file whose model takes much more memory than its weights.

    Keras unpacks the whole file into memory. It builds the model of config.json before it reads
    the weights. This function therefore compares the sizes of the file, the config and the weights.

    Args:
        owner: Name of the function that the user called.
        path: Path of the file.
    """
    archive, members = open_zip(owner, path)
    with archive, tempfile.TemporaryDirectory() as folder:
        check_total(owner, path, sum(member.file_size for member in members))
        found = {name for name in (CONFIG, WEIGHTS) if name in archive.namelist()}
        files = {name: Path(archive.extract(name, folder)) for name in found}
        if CONFIG not in files:
            return  # Keras raises an error that names the missing file
        said, stored = read_json(owner, files[CONFIG]), 0
        if WEIGHTS in files:
            entries = h5_entries(owner, files[WEIGHTS]).values()
            refuse_chunks(owner, files[WEIGHTS], path / WEIGHTS)
            stored = sum(math.prod(entry.shape or ()) for entry in entries)
    numbers = _numbers(owner, said, stored)
    if numbers > max(MOST_NUMBERS, 2 * stored):
        raise ValueError(
            f"{owner}: `model` must have the sizes of its weights; save the file again. Received: "
            f"{path.name} with a config of {numbers} parameters, and weights of {stored} values"
        )


def _numbers(owner: str, said: Object, stored: int) -> int:
    """Return the number of parameters of a config's model, or 0 if the model cannot be built."""
    kind, own = KINDS.get(str(said.get("registered_name"))), said.get("config")
    if kind is not None and isinstance(own, dict):
        fields = kind.config_class(**cast("Any", own["config"]))
        check_tables(owner, fields, cast("Sequence[int]", own["input_shape"]), stored)
    try:
        plain = _plain(said)
        model = without_weights(
            lambda: keras.saving.deserialize_keras_object(plain, safe_mode=True)
        )
        return sum(math.prod(weight.shape) for weight in model.weights)
    except Exception:  # noqa: BLE001
        # For a damaged config, the load raises the same error. The classes of a
        # `keras.saving.custom_object_scope` are known only in the thread of the load.
        return 0


def _plain(said: Any) -> Any:
    """Return a config without optimizers, and without quantization, which needs the weights."""
    if isinstance(said, list):
        return [_plain(value) for value in said]
    if isinstance(said, dict):
        omitted = ("compile_config", "quantization")
        return {name: _plain(value) for name, value in said.items() if name not in omitted}
    return said
