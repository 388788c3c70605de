"""Layers of PyTorch as layers of Keras, and back: names by table, kernels by transposition."""

import numpy as np

from keras_tokenlearner.weights.source import BOTH, ZEROS, Named

# Kinds: "conv", "linear" and "norm" have weight and bias; "heads_in" and "heads_out" are linear
# layers into and out of the heads of an attention; "raw" is one array as it is, "rows" one as a
# table. The names of a source follow, the first that a checkpoint has; "{i}" is a block's number.


def from_torch(entries, names, heads):
    """Convert the entries that a table names.

    The embedding and the attention's way in, which some models build without bias, get zeros. A
    gated MLP's first layer may hold its gate too, before the hidden units.

    Args:
        entries: `Entries`.
        names: A dictionary of our names to tuples of kind and the source's names.
        heads: Integer, heads of the attentions.

    Returns:
        Paths of our variables to `Named` arrays.
    """
    arrays = {}
    for ours, (kind, *candidates) in numbered(names, count_blocks(entries, names)).items():
        single = kind in ("raw", "rows")
        found = [name for name in candidates if (name if single else f"{name}.weight") in entries]
        if not found:
            continue
        if single:
            array, origin = entries.take(found[0]), entries.full_name(found[0])
            arrays[ours] = Named(array if kind == "raw" else _rows(array), origin)
            continue
        weight, bias = f"{found[0]}.weight", f"{found[0]}.bias"
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
            shifts = _split(entries.owner, bias, shifts, heads)
        arrays[f"{ours}/{shift}"] = Named(shifts, origin)
    _split_gates(arrays)
    return arrays


def average_heads(entries, heads):
    """Return one head, on their tokens side by side, whose logits are the average of the heads'.

    Args:
        entries: `Entries`.
        heads: Names of linear layers, in the order of the tokens that they read.

    Returns:
        Paths of our variables to `Named` arrays; none, unless the entries have all of the heads.
    """
    weights, biases = ([f"{head}.{leaf}" for head in heads] for leaf in ("weight", "bias"))
    if not all(name in entries for name in (*weights, *biases)):
        return {}
    kernels, shifts = ([entries.take(name) for name in names] for names in (weights, biases))
    shapes = [array.shape for array in (*kernels, *shifts)]
    if len(set(shapes[: len(heads)])) > 1 or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(
            f"{entries.owner}: {' and '.join(weights)} with their biases have shapes {shapes}, "
            "which do not fit heads for the same classes"
        )
    kernel = np.concatenate([kernel.T for kernel in kernels]) / len(heads)
    return {
        "head/kernel": Named(kernel, BOTH.join(map(entries.full_name, weights))),
        "head/bias": Named(sum(shifts) / len(heads), BOTH.join(map(entries.full_name, biases))),
    }


def to_torch(arrays, names, num_blocks):
    """Convert back: our paths to arrays, to the first of the source's names to arrays."""
    entries, arrays = {}, _with_gates(arrays)
    for ours, (kind, theirs, *_) in numbered(names, num_blocks).items():
        if kind in ("raw", "rows"):
            if ours in arrays:
                entries[theirs] = arrays[ours] if kind == "raw" else _rows(arrays[ours])[None]
            continue
        scale, shift = ("gamma", "beta") if kind == "norm" else ("kernel", "bias")
        if f"{ours}/{scale}" in arrays:
            entries[f"{theirs}.weight"] = _to_torch(kind, arrays[f"{ours}/{scale}"])
            entries[f"{theirs}.bias"] = arrays[f"{ours}/{shift}"].reshape(-1)
    return entries


def numbered(names, count):
    """Return a table with a row for every block in place of its rows with "{i}"."""
    rows = {}
    for ours, row in names.items():
        for i in range(count) if "{i}" in ours else range(1):
            rows[ours.replace("{i}", str(i))] = tuple(name.replace("{i}", str(i)) for name in row)
    return rows


def count_blocks(entries, names):
    """Return how many blocks the entries of a table have, counted from 0 without a gap."""
    starts = {name.partition("{i}")[0] for row in names.values() for name in row if "{i}" in name}
    count = 0
    while any(name.startswith(tuple(f"{start}{count}." for start in starts)) for name in entries):
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


def _rows(array):
    return array.reshape(-1, array.shape[-1])


def _with_gates(arrays):
    """Return the arrays with the gates of MLPs before their hidden units, as one layer."""
    gates = {path.replace("gate", "hidden"): path for path in arrays if "/mlp/gate/" in path}
    return arrays | {
        hidden: np.concatenate([arrays[gate], arrays[hidden]], axis=-1)
        for hidden, gate in gates.items()
    }


def _split_gates(arrays):
    """Split the MLPs' first layers that are twice as wide as the inputs of the second ones."""
    for path in [path for path in arrays if "/mlp/hidden/" in path]:
        array, origin = arrays[path]
        output = arrays.get(path.rpartition("hidden")[0] + "output/kernel")
        if output and array.shape[-1] == 2 * len(output.array):
            gate, hidden = np.split(array, 2, axis=-1)
            arrays[path.replace("hidden", "gate")] = Named(gate, origin)
            arrays[path] = Named(hidden, origin)
