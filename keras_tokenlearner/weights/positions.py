"""Resizes the positions of a checkpoint to the grid of a model, by the rules of the sources.

Every load of a checkpoint calls `fit_positions`. The function finds the grid, and resizes the
table. It adds the positions of the prefix tokens (class token and registers) to these tokens.
`fit_biases` resizes the position biases of TokenLearners. `trees_of` returns their trees of cells.
For `load_weights`, the layers themselves resize the tables of our own files.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence

import keras
import numpy as np

from keras_tokenlearner._checks import check_choice, check_ints
from keras_tokenlearner.layers.cells import check_parents, grid_cells
from keras_tokenlearner.layers.positions import resize_positions
from keras_tokenlearner.models import names
from keras_tokenlearner.weights.sources.source import Arrays, Named

METHODS = (
    "bilinear",
    "bilinear_half_pixel",
    "bilinear_antialias",
    "bicubic",
    "bicubic_antialias",
    "bicubic_aligned",
    "bicubic_offset",
)
_PREFIX = (names.CLASS_TOKEN, names.REGISTER_TOKENS)


def fit_positions(
    owner: str,
    arrays: Arrays,
    grid: tuple[int, ...],
    method: str,
    file_grid: Sequence[int] | None = None,
) -> tuple[dict[str, str], dict[str, str]]:
    """Resize the table of positions in the dictionary `arrays` to the grid of a model.

    Args:
        owner: String, the function that the user called.
        arrays: Dictionary from paths of our variables to `Named` arrays.
        grid: `(H, W)` or `(T, H, W)` of the model.
        method: One of `METHODS`.
        file_grid: Grid of the file's positions. `None` for a square or the model's grid, if only
            one of them fits.

    Returns:
        Two dictionaries from paths to descriptions: of changed values, and of changed shapes.

    Raises:
        ValueError: If the file's grid is ambiguous, or is not `file_grid`. Also if the tokens and
            positions have different numbers of channels.
    """
    check_choice(owner, "resize", method, METHODS)
    if names.POSITION_TABLE not in arrays:
        return {}, {}
    if file_grid is not None:
        file_grid = check_ints(owner, "grid", file_grid, lengths=(2, 3))
    adapted = _fold(owner, arrays, grid, file_grid)
    table, origin = arrays[names.POSITION_TABLE]
    old = table.shape[:-1]
    if old == grid:
        return adapted, {}
    arrays[names.POSITION_TABLE] = Named(resize_table(table, grid, method), origin)
    return adapted, {names.POSITION_TABLE: _change(old, grid, method)}


def fit_biases(arrays: Arrays, variables: Mapping[str, keras.Variable]) -> dict[str, str]:
    """Resize the position biases of TokenLearners in `arrays` to the grids of a model.

    The biases are always resized as the layer itself resizes them, because other libraries have no
    position biases.

    Args:
        arrays: Dictionary from paths of our variables to `Named` arrays.
        variables: The variables of the model by path.

    Returns:
        Dictionary from paths to descriptions of changed shapes.
    """
    resized = {}
    for path, (bias, origin) in arrays.items():
        if not path.endswith(names.POSITION_BIAS) or path not in variables:
            continue
        old, grid = bias.shape[:-1], tuple(variables[path].shape[:-1])
        # A bias of (T, H, W) cannot become a bias of (H, W): `match` raises an error for the shape.
        if old != grid and 2 <= len(old) <= len(grid):
            arrays[path] = Named(resize_positions(bias, grid), origin)
            resized[path] = _change(old, grid, "bilinear")
    return resized


def trees_of(owner: str, arrays: Arrays, loaded: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Return the `parents` of TokenLearners: the trees of cells of their position biases.

    A bias without a saved tree has the tree of its grid in the file.

    Args:
        owner: String, the function that the user called.
        arrays: Dictionary from paths of our variables to `Named` arrays, before `fit_biases`.
        loaded: Origins of the loaded arrays. The result omits other biases.

    Returns:
        Dictionary from origins of biases to `parents`.

    Raises:
        ValueError: If a saved tree does not fit its bias.
    """
    trees = {}
    for path, (bias, origin) in arrays.items():
        if path.endswith(names.POSITION_BIAS) and origin in loaded:
            saved = arrays.get(names.parents_path(path))
            *grid, tokens = bias.shape
            tree = grid_cells(tuple(grid), tokens).parents if saved is None else saved.array
            trees[origin] = check_parents(owner, np.asarray(tree).astype(int).tolist(), tokens)
    return trees


def file_grids(arrays: Arrays, given: Sequence[int] | None = None) -> list[tuple[int, ...]]:
    """Return the possible grids of a file's positions, without a model to compare with."""
    if names.POSITION_TABLE not in arrays:
        return []
    table, _ = arrays[names.POSITION_TABLE]
    if table.ndim > 2:
        return [table.shape[:-1]]
    found = _candidates(arrays, None, None if given is None else tuple(given))
    return [grid for _, grid in found]


def resize_table(table: np.ndarray, grid: tuple[int, ...], method: str) -> np.ndarray:
    """Resize a table of positions, (H, W, C) or (T, H, W, C), to a grid.

    * `"bilinear"` aligns the corners of both grids, as the JAX ViT does.
    * `"bilinear_half_pixel"` aligns the edges instead, as timm does for FlexiViT and RADIO.
    * `"bilinear_antialias"` also has a wider filter if the grid shrinks, as in SigLIP 2.
    * `"bicubic"` is PyTorch's interpolation, as in Hugging Face's models.
    * `"bicubic_antialias"` has a wider filter if the grid shrinks, as in timm.
    * `"bicubic_aligned"` aligns the corners of both grids, as torchvision does.
    * `"bicubic_offset"` adds 0.1 to the new size, as Meta does for DINOv2 without registers.

    The table of an image is repeated for every frame of a video. Frames are always resized
    linearly.

    Example:

    >>> resize_table(np.array([[[0.0], [1.0]]]), (1, 3), "bilinear").ravel().tolist()
    [0.0, 0.5, 1.0]
    """
    if method == "bilinear" or table.shape[:-1] == grid:
        return resize_positions(table, grid)
    *_, height, width = table.shape[:-1]
    rows, columns = _matrix(height, grid[-2], method), _matrix(width, grid[-1], method)
    table = np.einsum("yh,...hwc,xw->...yxc", rows, table, columns).astype(table.dtype)
    return resize_positions(table, grid)


def inflate(arrays: Arrays, kernel_shape: tuple[int, ...], method: str) -> dict[str, str]:
    """Replace the kernel for image patches in `arrays` by a kernel for tubelets, if needed."""
    if (
        names.EMBEDDING_KERNEL not in arrays
        or len(kernel_shape) != 5
        or arrays[names.EMBEDDING_KERNEL].array.ndim != 4
    ):
        return {}  # a stem processes the frames of a video as images
    kernel, origin = arrays[names.EMBEDDING_KERNEL]
    frames = kernel_shape[0]
    if method == "inflate":
        kernel = np.repeat(kernel[None] / frames, frames, axis=0)
    else:
        kernel = np.where(np.arange(frames).reshape(-1, 1, 1, 1, 1) == frames // 2, kernel, 0.0)
    arrays[names.EMBEDDING_KERNEL] = Named(kernel.astype(np.float32), origin)
    return {names.EMBEDDING_KERNEL: f"from an image to {frames} frames, {method}"}


def _fold(
    owner: str, arrays: Arrays, grid: tuple[int, ...], given: tuple[int, ...] | None
) -> dict[str, str]:
    """Reshape the table to its grid, and add the positions of prefix tokens to these tokens."""
    table, origin = arrays[names.POSITION_TABLE]
    if table.ndim > 2:  # the table already has a grid
        if given not in (None, table.shape[:-1]):
            raise ValueError(
                f"{owner}: `grid` must be the grid of {origin}, {table.shape[:-1]}; leave `grid` "
                f"out. Received: grid={given}"
            )
        return {}
    tokens = [name for name in _PREFIX if f"{name}/tokens" in arrays]
    counts = [len(arrays[f"{name}/tokens"].array) for name in tokens]
    found = _candidates(arrays, grid, given)
    if len(found) != 1:
        options = _listed(found)
        raise ValueError(
            f"{owner}: {origin}, with {len(table)} positions, must fit exactly one grid; pass "
            f"`grid`, {options}. Received: grid={given}, with {counts} tokens before the patches"
        )
    prefix, file_grid = found[0]
    adapted, start = {}, 0
    for name, count in zip(tokens, counts, strict=True):
        if start < prefix:
            values, token_origin = arrays[f"{name}/tokens"]
            if values.shape[-1] != table.shape[-1]:
                raise ValueError(
                    f"{owner}: {origin} and {token_origin} must have the same number of channels. "
                    "The checkpoint is damaged; download it again. "
                    f"Received: {table.shape[-1]} and {values.shape[-1]} channels"
                )
            values = values + table[start : start + count]
            arrays[f"{name}/tokens"] = Named(values, token_origin)
            adapted[f"{name}/tokens"] = "the sum of token and position in the file"
        start += count
    arrays[names.POSITION_TABLE] = Named(table[prefix:].reshape(*file_grid, -1), origin)
    return adapted


def _change(old: tuple[int, ...], new: tuple[int, ...], method: str) -> str:
    """Return the description of a resize for the report."""
    sizes = ("x".join(str(size) for size in one) for one in (old, new))
    return f"{' to '.join(sizes)}, {method}"


def _listed(found: list[tuple[int, tuple[int, ...]]]) -> str:
    """Return the possible grids as text, for the end of an error message."""
    grids = sorted({grid for _, grid in found})
    return "one of " + " or ".join(map(str, grids)) if grids else "(height, width) in patches"


def _candidates(
    arrays: Arrays, grid: tuple[int, ...] | None, given: tuple[int, ...] | None
) -> list[tuple[int, tuple[int, ...]]]:
    """Return each possible number of prefix positions in a table, with the grid of the others."""
    table, _ = arrays[names.POSITION_TABLE]
    counts = [len(arrays[f"{n}/tokens"].array) for n in _PREFIX if f"{n}/tokens" in arrays]
    # A table has the positions of the patches, and of all or some of the prefix tokens.
    prefixes = [sum(counts[:index]) for index in range(len(counts) + 1)]
    of_video = names.EMBEDDING_KERNEL in arrays and arrays[names.EMBEDDING_KERNEL].array.ndim == 5
    return [
        (prefix, candidate)
        for prefix in prefixes
        for candidate in _grids(len(table) - prefix, grid, given, of_video)
    ]


def _grids(
    count: int, grid: tuple[int, ...] | None, given: tuple[int, ...] | None, of_video: bool
) -> list[tuple[int, ...]]:
    """Return the possible grids for `count` positions: `given`, or else `grid` or a square."""
    if given is not None:
        return [given] if math.prod(given) == count else []
    if count < 1:
        return []
    if of_video:
        return [grid] if grid and math.prod(grid) == count else []
    side = math.isqrt(count)
    found: set[tuple[int, ...]] = {(side, side)} if side * side == count else set()
    if grid and math.prod(grid[-2:]) == count:
        found.add(grid[-2:])
    return sorted(found)


def _matrix(old: int, new: int, method: str) -> np.ndarray:
    """Return the matrix (new, old) of the interpolation along one axis."""
    antialias, aligned = method.endswith("_antialias"), method == "bicubic_aligned"
    scale = old / (new + 0.1) if method == "bicubic_offset" else old / new
    if scale == 1:
        return np.eye(old)
    # Parameter of PyTorch's cubic kernel: -0.5 with antialiasing, as in Pillow, and -0.75 without.
    a, width = (-0.5, max(scale, 1.0)) if antialias else (-0.75, 1.0)
    kernel: Callable[[np.ndarray], np.ndarray]
    kernel = _linear if method.startswith("bilinear") else functools.partial(_cubic, a=a)
    centre = (np.arange(new)[:, None] + 0.5) * scale - 0.5
    if aligned:
        centre = np.arange(new)[:, None] * (old - 1) / max(new - 1, 1)
    if antialias:  # positions outside the table are ignored
        weights = kernel((np.arange(old)[None] - centre) / width)
        return weights / weights.sum(1, keepdims=True)
    place = np.floor(centre) + np.arange(-1, 3)[None]
    matrix = np.zeros((new, old))
    index = np.clip(place, 0, old - 1).astype(int)  # positions outside the table repeat the edge
    np.add.at(matrix, (np.arange(new)[:, None], index), kernel(place - centre))
    return matrix


def _linear(x: np.ndarray) -> np.ndarray:
    """Return the kernel of linear interpolation."""
    return np.maximum(0, 1 - np.abs(x))


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Return the cubic convolution kernel of Keys, 1981, with the parameter `a`."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
