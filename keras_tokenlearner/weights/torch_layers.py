"""Layers of PyTorch as layers of Keras, and back: names by table, kernels by transposition."""

import numpy as np

from keras_tokenlearner.weights.source import ZEROS, Named

# Kinds: "conv", "linear" and "norm" have weight and bias; "heads_in" and "heads_out" are linear
# layers into and out of the heads of an attention; "raw" is one array as it is.


def from_torch(entries, names, block, heads):
    """Convert the entries that a table names.

    The embedding and the attention's way in, which some models build without bias, get zeros.

    Args:
        entries: `Entries`.
        names: A dictionary of our names to pairs of kind and the source's name. "{i}" in both is
            the number of a block.
        block: What the names of a block start with, with "{i}".
        heads: Integer, heads of the attentions.

    Returns:
        Paths of our variables to `Named` arrays.
    """
    arrays = {}
    for ours, (kind, theirs) in numbered(names, count_blocks(entries, block)).items():
        if kind == "raw":
            if theirs in entries:
                arrays[ours] = Named(entries.take(theirs), entries.full_name(theirs))
            continue
        weight, bias = f"{theirs}.weight", f"{theirs}.bias"
        if weight not in entries:
            continue
        full = entries.full_name(weight)
        kernel = _to_keras(entries.owner, kind, full, entries.take(weight), heads)
        scale, shift = ("gamma", "beta") if kind == "norm" else ("kernel", "bias")
        arrays[f"{ours}/{scale}"] = Named(kernel, full)
        if bias in entries:
            shifts, origin = entries.take(bias), entries.full_name(bias)
        elif kind not in ("conv", "heads_in"):
            continue
        else:
            size = kernel.shape[-2:] if kind == "heads_in" else kernel.shape[-1:]
            shifts, origin = np.zeros(size, np.float32), ZEROS
        if kind == "heads_in" and shifts.ndim == 1:
            shifts = _split(entries.owner, f"{theirs}.bias", shifts, heads)
        arrays[f"{ours}/{shift}"] = Named(shifts, origin)
    return arrays


def to_torch(arrays, names, num_blocks):
    """Convert back: our paths to arrays, by the same table, to the source's names to arrays."""
    entries = {}
    for ours, (kind, theirs) in numbered(names, num_blocks).items():
        if kind == "raw":
            if ours in arrays:
                entries[theirs] = arrays[ours]
            continue
        scale, shift = ("gamma", "beta") if kind == "norm" else ("kernel", "bias")
        if f"{ours}/{scale}" in arrays:
            entries[f"{theirs}.weight"] = _to_torch(kind, arrays[f"{ours}/{scale}"])
            entries[f"{theirs}.bias"] = arrays[f"{ours}/{shift}"].reshape(-1)
    return entries


def numbered(names, count):
    """Return a table with a row for every block in place of its rows with "{i}"."""
    rows = {}
    for ours, (kind, theirs) in names.items():
        for i in range(count) if "{i}" in ours else range(1):
            rows[ours.replace("{i}", str(i))] = (kind, theirs.replace("{i}", str(i)))
    return rows


def count_blocks(entries, block):
    """Return how many blocks there are, counted from 0 without a gap."""
    count = 0
    while any(name.startswith(block.replace("{i}", str(count))) for name in entries):
        count += 1
    return count


def _to_keras(owner, kind, name, weight, heads):
    rank = {"conv": (4, 5), "norm": (1,)}.get(kind, (2,))
    if weight.ndim not in rank:
        raise ValueError(f"{owner}: {name} has shape {weight.shape}, which fits no {kind} layer")
    if kind == "conv":
        return np.moveaxis(weight, (1, 0), (-2, -1))
    if kind == "heads_in":
        return _split(owner, name, weight.T, heads)
    if kind == "heads_out":
        parts = _split(owner, name, weight, heads)  # (C, H, D)
        return np.moveaxis(parts, 0, -1)
    return weight if kind == "norm" else weight.T


def _to_torch(kind, kernel):
    if kind == "conv":
        return np.moveaxis(kernel, (-2, -1), (1, 0))
    if kind == "heads_in":
        return kernel.reshape(kernel.shape[0], -1).T
    if kind == "heads_out":
        return kernel.reshape(-1, kernel.shape[-1]).T
    return kernel if kind == "norm" else kernel.T


def _split(owner, name, array, heads):
    """Split the last axis by heads."""
    if array.shape[-1] % heads:
        raise ValueError(
            f"{owner}: {name} gives shape {array.shape}, which does not divide into the {heads} "
            "heads of the model"
        )
    return array.reshape(*array.shape[:-1], heads, -1)
