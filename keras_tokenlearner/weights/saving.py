"""Saves and loads `.weights.h5` files, with checks that Keras lacks."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import keras
import numpy as np

from keras_tokenlearner._checks import check_is
from keras_tokenlearner._errors import listed
from keras_tokenlearner._files import move, write_text
from keras_tokenlearner.models.features import has_head
from keras_tokenlearner.models.names import HEAD, NORM, PARENTS, POSITION_BIAS, TABLE
from keras_tokenlearner.weights.formats.entries import PathLike
from keras_tokenlearner.weights.formats.hdf5 import refuse_chunks
from keras_tokenlearner.weights.formats.parts import KERAS_INDEX, join_parts
from keras_tokenlearner.weights.formats.read import read_checkpoint

# Ends of the names of our own files: one file, or the index of weights in parts.
OWN_FILES = (".weights.h5", KERAS_INDEX)
# The name of a layer in a file: its class and a number. The first layer of a class has no number.
_LAYER = re.compile(r"layers/(\w+?)(?:_(\d{1,9}))?/")
_DENSE = "dense"
_NORMS = ("layer_normalization", "rms_normalization")
# Classes of the layers that a model without top may lack.
_TOP = (_DENSE, "attention_pooling", "conv3d")


def save_weights(model: keras.Model, path: PathLike) -> str:
    """Save the weights of a model to a file, and the file's sha256 for `load_weights` to check.

    The new file replaces the old file in one step. After a kill or a power cut during the call, the
    path has the old file or the new file. `load_weights` accepts either file.

    Args:
        model: A `keras.Model`.
        path: Path that ends in `.weights.h5`. The hash goes to the same path plus `.sha256`, in
            the format of the `sha256sum` command.

    Returns:
        The sha256, as 64 hexadecimal digits.

    Raises:
        ValueError: If `model` is not a built `keras.Model`, or the path does not end in
            `.weights.h5`. Also if a weight is not an array of floats, as in quantized models.

    Example:

    >>> model = create_model("vit_pico8", classes=10)
    >>> len(save_weights(model, "mine.weights.h5"))
    64
    """
    check_is("save_weights", "model", model, keras.Model, "a keras.Model")
    if not model.built:
        raise ValueError(
            "save_weights: `model` must be built; call it on a batch first. "
            f"Received: model={model!r}"
        )
    integers = integer_weights(model)
    if integers:
        raise ValueError(
            "save_weights: `model` must have only float weights; save a quantized model with "
            f"model.save. Received: model {model.name!r} with the weights {listed(integers)}"
        )
    path = _checked_name("save_weights", path)
    hashes = path.with_name(path.name + ".sha256")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        new = Path(folder) / path.name
        model.save_weights(new)
        digest = sha256(new)
        lines = [f"{digest}  {path.name}\n"]
        # Until the new file replaces the old file, `load_weights` must accept either hash.
        old = [f"{sha256(path)}  {path.name}\n"] if path.is_file() else []
        write_text(hashes, "".join(lines + old))
        move(new, path)
        if old:
            write_text(hashes, "".join(lines))
    return digest


def integer_weights(model: keras.Model) -> list[str]:
    """Return the paths of a model's weights that are not floats, as in quantized models."""
    return [weight.path for weight in model.weights if "float" not in str(weight.dtype)]


def load_weights(model: keras.Model, path: PathLike, expected_sha256: str | None = None) -> None:
    """Load a `.weights.h5` file into a model of the same architecture, completely or not at all.

    Positions of another grid are resized. A model without top can load a file with top.

    Keras raises no error for a file with damaged bytes. This function detects damage if the sha256
    is known: from `expected_sha256`, or from a `.sha256` file next to the weights. Hashing and
    loading read the same private copy of the file.

    Args:
        model: A built `keras.Model`.
        path: Path that ends in `.weights.h5`. For weights in parts, which Keras saves with
            `max_shard_size`, the path of their `.weights.json` file.
        expected_sha256: The sha256 of the file. Defaults to the content of `PATH.sha256`, if that
            file exists. Weights in parts have no sha256.

    Raises:
        ValueError: If the file is missing, damaged, or of another architecture or number of
            classes. Also if an array is compressed or in chunks, or a layer's array has values that
            are not finite floats. The model is then unchanged.

    Example:

    >>> digest = save_weights(create_model("vit_pico8", classes=10), "mine.weights.h5")
    >>> load_weights(create_model("vit_pico8", classes=10), "mine.weights.h5", digest)
    """
    path = _existing("load_weights", path)
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            "load_weights: `model` must be a built keras.Model; call it on a batch first. "
            f"Received: model={model!r}"
        )
    expected = _expected("load_weights", path, expected_sha256)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"{path.stem}.h5"
        if path.name.endswith(KERAS_INDEX):
            _join("load_weights", path, copy, expected)
        elif (digest := _copy(path, copy)) not in (expected or [digest]):
            raise ValueError(
                f"load_weights: {path} is damaged or was changed: its sha256 must be "
                f"{expected[0]}. Download or save the file again. Received: sha256 {digest}"
            )
        check_layout(model, path, _shapes("load_weights", copy, path))
        refuse_chunks("load_weights", copy, path)
        # The file may also have seeds, and the variables of the optimizer.
        optimizer = getattr(model, "optimizer", None)
        variables = [*model.variables, *getattr(optimizer, "variables", ())]
        before = [keras.ops.convert_to_numpy(variable) for variable in variables]
        learners = [layer for layer in model.layers if getattr(layer, "parents", ())]
        trees = [layer.parents for layer in learners]
        try:
            model.load_weights(copy)
            if not all(np.isfinite(array).all() for array in model.get_weights()):
                raise ValueError("the file must not have NaN or infinite values")
        except Exception as error:  # Keras and HDF5 raise errors of any type on a damaged file
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
            for layer, tree in zip(learners, trees, strict=True):
                layer.parents = tree
            reason = str(error).split("value=[")[0]
            raise ValueError(
                f"load_weights: {path} cannot be loaded into the model {model.name!r}. The model "
                "is unchanged. Build the saved architecture, or save the file again. "
                f"Reason: {reason}"
            ) from error


def saved_classes(path: PathLike, owner: str = "saved_classes") -> int | None:
    """Return the units of the last dense layer of a `.weights.h5` file, or `None` without one.

    With a top, this is the number of classes.

    Raises:
        ValueError: If the file does not exist, is damaged, or has quantized weights.

    Example:

    >>> create_model("vit_pico8", classes=10).save_weights("mine.weights.h5")
    >>> saved_classes("mine.weights.h5")
    10
    """
    return classes_of(saved_shapes(path, owner))


def saved_shapes(path: PathLike, owner: str = "saved_shapes") -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays of all layers in a `.weights.h5` file, by name.

    The arrays themselves are not read.

    Raises:
        ValueError: If the file does not exist or is damaged, or an array has other values than
            floats.

    Example:

    >>> create_model("vit_pico8", classes=10).save_weights("mine.weights.h5")
    >>> saved_shapes("mine.weights.h5")["layers/dense/vars/0"]
    (32, 10)
    """
    path = _existing(owner, path)
    return _shapes(owner, path, path)


def sha256(path: PathLike) -> str:
    """Return the sha256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _copy(path: Path, to: Path) -> str:
    """Copy a file and return the sha256 of the copy."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream, open(to, "wb") as target:
        while content := stream.read(1 << 20):
            digest.update(content)
            target.write(content)
    return digest.hexdigest()


def _join(owner: str, path: Path, to: Path, expected: list[str]) -> None:
    """Check weights in parts, and write them to one file."""
    if expected:
        raise ValueError(
            f"{owner}: `expected_sha256` must be None for {path}, because the hash of an index "
            "does not cover its parts. Leave out `expected_sha256`, and delete the .sha256 file "
            f"of the index. Received: sha256 {expected[0]}"
        )
    read_checkpoint(path, owner)
    join_parts(owner, path, to)


def _expected(owner: str, path: Path, given: str | None) -> list[str]:
    """Return the valid hashes of a file: the given hash, or all hashes in the `.sha256` file."""
    hashes = path.with_name(path.name + ".sha256")
    if given is not None:
        lines, origin = [str(given)], "`expected_sha256`"
    elif hashes.is_file():
        lines, origin = hashes.read_text(errors="replace").splitlines(), str(hashes)
    else:
        return []
    found = [line.split()[0].lower() for line in lines if line.strip()]
    if not found or any(len(x) != 64 or set(x) - set("0123456789abcdef") for x in found):
        raise ValueError(
            f"{owner}: {origin} must contain a SHA-256 hash of 64 hexadecimal digits. Copy the "
            "hash again, or save the weights again with save_weights. "
            f"Received: {lines[:2]}"
        )
    return found


def _checked_name(owner: str, path: PathLike, ends: tuple[str, ...] = (".weights.h5",)) -> Path:
    if not str(path).endswith(ends):
        raise ValueError(
            f"{owner}: `path` must end in {' or '.join(map(repr, ends))}. For a '.keras' file, "
            f"call model.save or keras.models.load_model. Received: path={str(path)!r}"
        )
    return Path(os.path.expanduser(path))


def _existing(owner: str, path: PathLike) -> Path:
    path = _checked_name(owner, path, OWN_FILES)
    if not path.is_file():
        raise ValueError(f"{owner}: `path` must be an existing file. Received: path={str(path)!r}")
    return path


def _shapes(owner: str, path: Path, shown: Path) -> dict[str, tuple[int, ...]]:
    """Check that the arrays of all layers in a file are floats. Return their shapes by name."""
    try:
        entries = read_checkpoint(path, owner).entries
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), str(shown))) from error
    # A file may also have the optimizer's variables and the seeds of dropout. Files of subclassed
    # models name layers by attributes, so entries need not start with "layers". Trees of cells are
    # no weights.
    entries = {
        name: entry
        for name, entry in entries.items()
        if not name.startswith("optimizer/")
        and "seed_generator" not in name
        and not name.endswith(PARENTS)
    }
    wrong = [name for name, entry in entries.items() if not entry.is_float]
    if wrong:
        raise ValueError(
            f"{owner}: all entries of {shown} must be arrays of floats. Save float weights with "
            "save_weights, or a quantized model with model.save. "
            f"Received other entries: {listed(wrong)}"
        )
    return {name: cast("tuple[int, ...]", entry.shape) for name, entry in entries.items()}


def classes_of(shapes: dict[str, tuple[int, ...]]) -> int | None:
    """Return the number of classes: the units of the last dense layer in a file, or `None`."""
    kernels = {
        int(found[2] or 0): shape
        for name, shape in shapes.items()
        if (found := _LAYER.match(name)) and found[1] == _DENSE and name.endswith("/vars/0")
    }
    kernel = kernels[max(kernels)] if kernels else None
    return kernel[-1] if kernel else None


def check_layout(model: keras.Model, path: PathLike, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise `ValueError` if the weights of a model have other shapes than the arrays of a file.

    A model without top may lack the arrays of the file's top.

    Args:
        model: A `keras.Model`. Its weights may be unallocated, because only their shapes are used.
        path: Path of the file, for the error message.
        shapes: The result of `saved_shapes`.
    """
    head, classes = has_head(model), classes_of(shapes)
    units = getattr(model.get_layer(HEAD), "units", None) if head else None
    ours = Counter(_fixed(weight.path, weight.shape) for weight in model.weights)
    theirs = {name: _fixed(name, shape) for name, shape in shapes.items()}
    top = [] if head else [theirs[name] for name in _of_the_top(model, shapes)]
    found = Counter(theirs.values())
    missing, unknown = sorted(ours - found), sorted(found - ours)
    if missing or found - ours - Counter(top):
        if None not in (classes, units) and classes != units:
            raise ValueError(
                f"load_weights: {path} has {classes} classes, but `model` has {units}; build "
                f"the model with classes={classes} or include_top=False"
            )
        raise ValueError(
            f"load_weights: `model` must have the architecture of {path}; build the saved "
            f"architecture. Received: a file with {len(shapes)} arrays, and model {model.name!r} "
            f"with {len(model.weights)} weights. Shapes only in the model: {missing[:3]}. Shapes "
            f"only in the file: {unknown[:3]}"
        )


def _of_the_top(model: keras.Model, names: Iterable[str]) -> list[str]:
    """Return the names that belong to the top of a model, from the names of a file's arrays."""
    layers = [(name, found) for name in names if (found := _LAYER.match(name))]
    top = [name for name, found in layers if found[1] in _TOP]
    pools = getattr(getattr(model, "config", None), "final_norm", None) == "pooled"
    if pools and not any(layer.name == NORM for layer in model.layers):
        # The norm after the pooling is the last norm outside the blocks.
        norms = {int(found[2] or 0): found[0] for _, found in layers if found[1] in _NORMS}
        top += [name for name, found in layers if norms and found[0] == norms[max(norms)]]
    return top


def _fixed(path: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the part of an array's shape that loading does not resize."""
    return tuple(shape)[-1:] if path.endswith((TABLE, POSITION_BIAS)) else tuple(shape)
