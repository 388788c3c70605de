"""Adaptations that depend on both model and file: positions, frames, pixels."""

import math

import numpy as np

from keras_tokenlearner._checks import check_choice, check_ints
from keras_tokenlearner.weights.resize import resize_table
from keras_tokenlearner.weights.source import HALF, NORMALIZATIONS, ZEROS, Named

POSITIONS = "positions/table"


def name_added(arrays, layout):
    """Give the file's TokenLearners and TokenFusers, numbered from 0, the names of the model's."""
    renamed = {}
    for kind in ("token_learner", "token_fuser"):
        for index, name in enumerate(layout.numbered(kind)):
            start = f"{kind}_{index}/"
            for path in [path for path in arrays if path.startswith(start)]:
                renamed[f"{name}/{path.removeprefix(start)}"] = arrays.pop(path)
    arrays |= renamed


def zeros(arrays):
    """Return the paths of variables that the file lacks and that load as zero."""
    what = "zeros, since the file's layer has no bias"
    return {path: what for path, (_, origin) in arrays.items() if origin == ZEROS}


def normalize(owner, arrays, normalization):
    """Let the embedding take pixels in [-1, 1] where the file's takes `(p - mean) / std`.

    With x = 2 p - 1 it is `(x / 2 + 1 / 2 - mean) / std`, and linear like the embedding itself.
    """
    if isinstance(normalization, str):
        check_choice(owner, "normalization", normalization, list(NORMALIZATIONS))
        normalization = NORMALIZATIONS[normalization]
    if len(normalization) != 2:
        raise ValueError(
            f"{owner}: `normalization` must be one of {list(NORMALIZATIONS)}, or a pair of mean "
            f"and standard deviation. Received: normalization={normalization}"
        )
    mean, std = (np.asarray(value, np.float64) for value in normalization)
    path = "embedding/projection"
    if f"{path}/kernel" not in arrays or (np.all(mean == HALF[0]) and np.all(std == HALF[1])):
        return {}
    kernel, origin = arrays[f"{path}/kernel"]
    channels = kernel.shape[-2] if kernel.ndim > 2 else 0
    if mean.size not in (1, channels) or mean.size != std.size or not np.all(std > 0):
        raise ValueError(
            f"{owner}: `normalization` must be the means and positive standard deviations of the "
            f"{channels} channels of {origin}. Received: normalization={normalization}"
        )
    shift = ((0.5 - mean) / std).reshape(-1, 1) * kernel.astype(np.float64)
    scaled = kernel * (0.5 / std).reshape(-1, 1)
    bias, bias_origin = arrays[f"{path}/bias"]
    bias = bias + shift.reshape(-1, kernel.shape[-1]).sum(0)
    arrays[f"{path}/kernel"] = Named(scaled.astype(np.float32), origin)
    arrays[f"{path}/bias"] = Named(bias.astype(np.float32), bias_origin)
    means, stds = (", ".join(f"{x:.3f}" for x in value.reshape(-1)) for value in (mean, std))
    what = f"takes pixels in [-1, 1] in place of mean {means} and std {stds}"
    return {f"{path}/kernel": what, f"{path}/bias": what}


def inflate(arrays, layout, method):
    """Turn patches of an image into tubelets, if the model takes videos."""
    path = "embedding/projection/kernel"
    wanted = layout.variables.get(path)
    if wanted is None or len(wanted.shape) != 5 or arrays[path].array.ndim != 4:
        return {}  # a stem takes the frames of a video as images
    kernel, origin = arrays[path]
    frames = wanted.shape[0]
    if method == "inflate":
        kernel = np.repeat(kernel[None] / frames, frames, axis=0)
    else:
        kernel = np.where(np.arange(frames).reshape(-1, 1, 1, 1, 1) == frames // 2, kernel, 0.0)
    arrays[path] = Named(kernel.astype(np.float32), origin)
    return {path: f"an image's to {frames} frames, {method}"}


def fold_positions(owner, arrays, layout, grid):
    """Give the table of positions its grid, and prefix tokens the positions that they have."""
    if POSITIONS not in arrays:
        return {}
    table, origin = arrays[POSITIONS]
    if table.ndim > 2:  # it has its grid
        return {}
    grid = None if grid is None else check_ints(owner, "grid", grid, lengths=(2, 3))
    tokens = [name for name in ("class_token", "register_tokens") if f"{name}/tokens" in arrays]
    counts = [len(arrays[f"{name}/tokens"].array) for name in tokens]
    # Positions may cover the patches alone, or also some or all of the tokens before them.
    prefixes = [sum(counts[:index]) for index in range(len(counts) + 1)]
    of_video = arrays["embedding/projection/kernel"].array.ndim == 5
    found = [
        (prefix, candidate)
        for prefix in prefixes
        for candidate in _grids(len(table) - prefix, layout.grid, grid, of_video)
    ]
    if len(found) != 1:
        raise ValueError(
            f"{owner}: {origin} has {len(table)} positions, and their grid is ambiguous; pass "
            f"it as `grid`. Received: grid={grid}, with {counts} tokens before the patches"
        )
    prefix, source_grid = found[0]
    adapted, start = {}, 0
    for name, count in zip(tokens, counts, strict=True):
        if start < prefix:
            values, token_origin = arrays[f"{name}/tokens"]
            if values.shape[-1] != table.shape[-1]:
                raise ValueError(
                    f"{owner}: {origin} has {table.shape[-1]} channels and {token_origin} "
                    f"{values.shape[-1]}, which do not belong together"
                )
            values = values + table[start : start + count]
            arrays[f"{name}/tokens"] = Named(values, token_origin)
            adapted[f"{name}/tokens"] = "its position is added to it"
        start += count
    arrays[POSITIONS] = Named(table[prefix:].reshape(*source_grid, -1), origin)
    return adapted


def resize(arrays, layout, method):
    """Resize the positions to the grid of the model."""
    if POSITIONS not in arrays:
        return {}
    table, origin = arrays[POSITIONS]
    old, new = table.shape[:-1], layout.grid
    if old == new:
        return {}
    arrays[POSITIONS] = Named(resize_table(table, new, method), origin)
    sizes = ("x".join(str(size) for size in grid) for grid in (old, new))
    return {POSITIONS: f"{' to '.join(sizes)}, {method}"}


def _grids(count, model_grid, given, of_video):
    """Return the possible grids for a number of positions: the model's, or a square."""
    if given is not None:
        return [given] if math.prod(given) == count else []
    if count < 1:
        return []
    if of_video:
        return [model_grid] if math.prod(model_grid) == count else []
    side, model_grid = math.isqrt(count), model_grid[-2:]
    grids = {(side, side)} if side * side == count else set()
    return sorted(grids | ({model_grid} if math.prod(model_grid) == count else set()))
