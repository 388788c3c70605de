"""Converts layers of PyTorch to Keras and back: names by a table, kernels by transposition."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from keras_tokenlearner.models import names
from keras_tokenlearner.weights.sources.source import BOTH, ZEROS, Arrays, Entries, Named

# A row has a kind, then alternative names in the checkpoints of a source. `from_torch` uses the
# first name that exists. "{i}" is a block's number. Kinds: "conv", "linear", "heads", "patches" and
# "norm" have weight and bias. "heads" is the output projection of an attention. "patches" is a
# linear layer of flattened patches. "raw" is an unchanged array. "rows" is an array to reshape to
# (tokens, channels).
Table = Mapping[str, tuple[str, ...]]
BLOCK = "block_{i}"
_PARTS = ("query", "key", "value")


def from_torch(entries: Entries, table: Table) -> Arrays:
    """Convert the weights whose names are in a table to our names and shapes.

    A layer without bias gets an equivalent bias of zeros, except the head and `pre_logits`. The
    first layer of a gated MLP may include the gate, before the hidden units.

    Args:
        entries: `Entries`.
        table: Dictionary from names of this package to tuples of kind and names of the source.

    Returns:
        Dictionary from paths of variables to `Named` arrays.
    """
    arrays: Arrays = {}
    for ours, (kind, *candidates) in numbered(table, count_blocks(entries, table)).items():
        single = kind in ("raw", "rows")
        found = [name for name in candidates if (name if single else f"{name}.weight") in entries]
        if not found:
            continue
        # transformers writes a table for zero register tokens.
        if ours == names.REGISTERS and entries.skip_empty(found[0]):
            continue
        if single:
            array, origin = entries.take(found[0]), entries.full_name(found[0])
            arrays[ours] = Named(array if kind == "raw" else _rows(array), origin)
            continue
        weight, bias = f"{found[0]}.weight", f"{found[0]}.bias"
        full = entries.full_name(weight)
        kernel = _to_keras(entries.owner, kind, full, entries.take(weight))
        scale, shift = ("gamma", "beta") if kind == "norm" else ("kernel", "bias")
        arrays[f"{ours}/{scale}"] = Named(kernel, full)
        if bias in entries:
            arrays[f"{ours}/{shift}"] = Named(entries.take(bias), entries.full_name(bias))
        elif ours not in (names.HEAD, names.PRE_LOGITS):
            arrays[f"{ours}/{shift}"] = Named(np.zeros(kernel.shape[-1:], np.float32), ZEROS)
    _split_gates(arrays)
    return arrays


def split_qkv(entries: Entries, theirs: str, ours: str, bias: str | None = None) -> Arrays:
    """Split a linear layer that computes query, key and value at once. Its weight is (3 C, C).

    Args:
        entries: `Entries`.
        theirs: Name of the weight.
        ours: Name of the attention.
        bias: Name of the joint bias of query, key and value, or `None`. Entries `q_bias`, `k_bias`
            and `v_bias` next to the weight are read too. A missing bias is zero.
    """
    if theirs not in entries:
        return {}
    weight, origin = entries.take(theirs), entries.full_name(theirs)
    if weight.ndim != 2 or weight.shape[0] % 3:
        raise ValueError(
            f"{entries.owner}: {origin} must have 3 C rows, for query, key and value. "
            f"Received: shape {weight.shape}"
        )
    size, arrays = weight.shape[0] // 3, {}
    biases = [Named(np.zeros(size, np.float32), ZEROS)] * 3
    start = theirs.rpartition("qkv")[0]
    if bias is not None and bias in entries:
        whole, bias_origin = entries.take(bias), entries.full_name(bias)
        if whole.size != weight.shape[0]:
            raise ValueError(
                f"{entries.owner}: {bias_origin} must have one value for each row of {origin}. "
                f"Received: shapes {whole.shape} and {weight.shape}"
            )
        biases = [Named(part, bias_origin) for part in np.split(whole.reshape(-1), 3)]
    for index, name in enumerate(f"{start}{part}_bias" for part in "qkv"):
        if name in entries:  # in BEiT and EVA, only query and value have biases
            biases[index] = Named(entries.take(name), entries.full_name(name))
    for part, kernel, shift in zip(_PARTS, np.split(weight, 3), biases, strict=True):
        arrays[f"{ours}/{part}/kernel"] = Named(kernel.T, origin)
        arrays[f"{ours}/{part}/bias"] = shift
    return arrays


def average_heads(entries: Entries, heads: Iterable[str]) -> Arrays:
    """Join several heads to one head, which reads their tokens and averages their logits.

    Args:
        entries: `Entries`.
        heads: Names of linear layers, in the order of the tokens that they read.

    Returns:
        Dictionary from paths of variables to `Named` arrays, empty if a head is missing.
    """
    heads = tuple(heads)
    weights, biases = ([f"{head}.{leaf}" for head in heads] for leaf in ("weight", "bias"))
    if not heads or not all(name in entries for name in (*weights, *biases)):
        return {}
    kernels, shifts = ([entries.take(name) for name in group] for group in (weights, biases))
    shapes = [array.shape for array in (*kernels, *shifts)]
    if len(set(shapes[: len(heads)])) > 1 or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(
            f"{entries.owner}: {' and '.join(weights)} must have equal shapes, (classes, "
            "channels), and biases of shape (classes,); download the file again. Received: "
            f"weights of shapes {shapes[: len(heads)]}, biases of shapes {shapes[len(heads) :]}"
        )
    kernel = np.concatenate([kernel.T for kernel in kernels]) / len(heads)
    shift = np.asarray(sum(shifts) / len(heads))
    return {
        names.HEAD_KERNEL: Named(kernel, BOTH.join(map(entries.full_name, weights))),
        names.HEAD_BIAS: Named(shift, BOTH.join(map(entries.full_name, biases))),
    }


def to_torch(
    arrays: Mapping[str, np.ndarray], table: Table, num_blocks: int
) -> dict[str, np.ndarray]:
    """Convert arrays of Keras layers to the layouts of PyTorch.

    Each key of the result starts with the first PyTorch name in its row of `table`.
    """
    entries, arrays = {}, _with_gates(arrays)
    for ours, (kind, theirs, *_) in numbered(table, num_blocks).items():
        if kind in ("raw", "rows"):
            if ours in arrays:
                entries[theirs] = arrays[ours] if kind == "raw" else _rows(arrays[ours])[None]
            continue
        scale, shift = ("gamma", "beta") if kind == "norm" else ("kernel", "bias")
        if f"{ours}/{scale}" in arrays:
            entries[f"{theirs}.weight"] = _to_torch(kind, arrays[f"{ours}/{scale}"])
            entries[f"{theirs}.bias"] = arrays[f"{ours}/{shift}"].reshape(-1)
    return entries


def numbered(table: Table, count: int) -> dict[str, tuple[str, ...]]:
    """Return a table in which each row with "{i}" is repeated for every block."""
    rows = {}
    for ours, row in table.items():
        for i in range(count) if "{i}" in ours else range(1):
            rows[ours.replace("{i}", str(i))] = tuple(name.replace("{i}", str(i)) for name in row)
    return rows


def count_blocks(entries: Iterable[str], table: Table) -> int:
    """Return the number of blocks in a checkpoint. Block numbers count from 0 without a gap."""
    starts = {name.partition("{i}")[0] for row in table.values() for name in row if "{i}" in name}
    found = {name[len(start) :].partition(".")[0] for name in entries for start in starts
             if name.startswith(start)}  # fmt: skip
    count = 0
    while str(count) in found:
        count += 1
    return count


def _to_keras(owner: str, kind: str, name: str, weight: np.ndarray) -> np.ndarray:
    rank = {"conv": (4, 5), "norm": (1,)}.get(kind, (2,))
    if weight.ndim not in rank:
        layer = {"conv": "convolution", "norm": "norm"}.get(kind, "linear layer")
        raise ValueError(
            f"{owner}: {name} must have {' or '.join(map(str, rank))} axes, because it is the "
            f"weight of a {layer}. Received: shape {weight.shape}"
        )
    if kind == "conv":
        return np.moveaxis(weight, (1, 0), (-2, -1))
    if kind == "patches":
        side = math.isqrt(weight.shape[1] // 3)
        if 3 * side * side != weight.shape[1]:
            raise ValueError(
                f"{owner}: {name} must have 3 * P * P columns, for square patches of P pixels "
                f"along each side and three channels. Received: shape {weight.shape}"
            )
        return weight.T.reshape(side, side, 3, -1)
    return weight if kind == "norm" else weight.T


def _to_torch(kind: str, kernel: np.ndarray) -> np.ndarray:
    if kind == "conv":
        return np.moveaxis(kernel, (-2, -1), (1, 0))
    if kind == "heads":  # output projection, (H, D, C)
        return kernel.reshape(-1, kernel.shape[-1]).T
    return kernel if kind == "norm" else kernel.T


def _rows(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, array.shape[-1])


def _with_gates(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Join the gates of MLPs with their hidden units into one layer, gates first."""
    gates = {path.replace("gate", "hidden"): path for path in arrays if "/mlp/gate/" in path}
    return {**arrays} | {
        hidden: np.concatenate([arrays[gate], arrays[hidden]], axis=-1)
        for hidden, gate in gates.items()
    }


def _split_gates(arrays: Arrays) -> None:
    """Split the first layer of gated MLPs, which is twice as wide as the second layer's input."""
    for path in [path for path in arrays if "/mlp/hidden/" in path]:
        array, origin = arrays[path]
        output = arrays.get(path.rpartition("hidden")[0] + "output/kernel")
        if output and array.shape[-1] == 2 * len(output.array):
            gate, hidden = np.split(array, 2, axis=-1)
            arrays[path.replace("hidden", "gate")] = Named(gate, origin)
            arrays[path] = Named(hidden, origin)
