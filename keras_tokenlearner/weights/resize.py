"""Tables of positions from one grid to another, in the ways of the sources."""

import numpy as np

from keras_tokenlearner._checks import check_choice
from keras_tokenlearner.layers.positions import resize_positions

METHODS = ("bilinear", "bicubic", "bicubic_antialias")


def resize_table(table, grid, method):
    """Resize a table of positions, (H, W, C) or (T, H, W, C), to a grid.

    `"bilinear"` lets the corners of both grids coincide, as the JAX ViT does. `"bicubic"` is the
    interpolation of PyTorch, as Hugging Face's models do it, `"bicubic_antialias"` the one with a
    wider filter where the grid shrinks, as timm and DINOv2 do. A table of an image that goes to
    a video is repeated for every frame; frames are always resized linearly.

    Example:

    >>> resize_table(np.array([[[0.0], [1.0]]]), (1, 3), "bilinear").ravel().tolist()
    [0.0, 0.5, 1.0]
    """
    check_choice("load", "resize", method, METHODS)
    if method == "bilinear":
        return resize_positions(table, grid)
    *frames, height, width = table.shape[:-1]
    rows = _bicubic(height, grid[-2], method == "bicubic_antialias")
    columns = _bicubic(width, grid[-1], method == "bicubic_antialias")
    table = np.einsum("yh,...hwc,xw->...yxc", rows, table, columns).astype(table.dtype)
    return resize_positions(table, grid)


def _bicubic(old, new, antialias):
    """Return the matrix (new, old) of the interpolation along one axis."""
    if old == new:
        return np.eye(old)
    scale = old / new
    # PyTorch's constants: -0.5 with antialias, as Pillow has it, -0.75 without.
    a, width = (-0.5, max(scale, 1.0)) if antialias else (-0.75, 1.0)
    centre = (np.arange(new)[:, None] + 0.5) * scale - 0.5
    if antialias:  # samples outside the edge are left out
        place = np.arange(old)[None]
        weights = _cubic((place - centre) / width, a)
        return weights / weights.sum(1, keepdims=True)
    place = np.floor(centre) + np.arange(-1, 3)[None]
    matrix = np.zeros((new, old))
    index = np.clip(place, 0, old - 1).astype(int)  # samples outside repeat the edge
    np.add.at(matrix, (np.arange(new)[:, None], index), _cubic(place - centre, a))
    return matrix


def _cubic(x, a):
    """The cubic convolution kernel of Keys, 1981."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
