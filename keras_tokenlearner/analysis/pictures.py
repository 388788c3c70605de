import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_tokenlearner._checks import check_choice, check_names
from keras_tokenlearner.analysis.canvas import INK, SMALL, check_figure_path, new_panels, save
from keras_tokenlearner.analysis.maps import position_entropy
from keras_tokenlearner.analysis.panels import (
    are_pixels,
    as_arrays,
    coloured,
    enlarge,
    overlay,
    token_heads,
    token_panels,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_token_maps(
    images: np.ndarray,
    maps: np.ndarray,
    titles: Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    tokens: Sequence[int] | None = None,
) -> "Figure":
    """Draw the attention map of each learned token: rows are images, columns are tokens.

    Each map is scaled to its own range and drawn over the image. The last column has the colour of
    the strongest token at each position. The strongest token has the largest ratio of its map to
    the mean of its map over the image.

    Args:
        images: Array of shape (B, height, width, 1 or 3), pixels in [0, 255].
        maps: Array of shape (B, H, W, S) from `token_maps`.
        titles: A text for each image.
        path: Path of the figure, or `None` for no file.
        tokens: Indices of the tokens that get a column, from 0. The titles count from 1. Defaults
            to all tokens.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If `images` or `maps` have another shape or no images, or differ in the number
            of images. Also if a token does not exist, or `titles` is not one text for each image.
            Also if the folder of `path` does not exist.
        ImportError: If matplotlib, the extra `plot`, is not installed.

    Example:

    >>> images = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3))
    >>> maps = np.random.default_rng(1).random((2, 4, 6, 3))
    >>> figure = draw_token_maps(images, maps, ["cat", "dog"], path="maps.png")
    >>> len(figure.axes)  # two images, each with three tokens and the strongest
    10
    """
    file = None if path is None else check_figure_path("draw_token_maps", path)
    images, maps = _checked("draw_token_maps", images, maps, titles)
    count = maps.shape[-1]
    tokens = range(count) if tokens is None else tokens
    for token in tokens:
        check_choice("draw_token_maps", "tokens", token, range(count), whole=tokens)
    maps = np.maximum(enlarge(maps, images), 0)
    rows = [token_panels(*both, tokens) for both in zip(images, maps, strict=True)]
    heads, inks = token_heads("image", count, tokens)
    return save(_grid(rows, heads, inks, titles), file)


def draw_token_entropy(
    images: np.ndarray,
    maps: np.ndarray,
    titles: Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> "Figure":
    """Draw the sum of the attention maps and their entropy: rows are images.

    The second column is the sum of all maps, divided by its maximum in each image. The third column
    is `position_entropy`, scaled to its range over all images. The title of the third column states
    this range. In the third column, a bright position has similar weights in all maps.

    Args:
        images: Array of shape (B, height, width, 1 or 3), pixels in [0, 255].
        maps: Array of shape (B, H, W, S) from `token_maps`.
        titles: A text for each image.
        path: Path of the figure, or `None` for no file.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If `images` or `maps` have another shape or no images, or differ in the number
            of images. Also if `titles` is not one text for each image, or the folder of `path`
            does not exist.
        ImportError: If matplotlib, the extra `plot`, is not installed.

    Example:

    >>> images = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3))
    >>> maps = np.random.default_rng(1).random((2, 4, 6, 3))
    >>> len(draw_token_entropy(images, maps).axes)
    6
    """
    file = None if path is None else check_figure_path("draw_token_entropy", path)
    images, maps = _checked("draw_token_entropy", images, maps, titles)
    together = maps.sum(-1, keepdims=True)
    together = together / np.maximum(together.max((1, 2), keepdims=True), 1e-9)
    entropy = position_entropy(maps)[..., None]
    low, high = entropy.min(), entropy.max()
    entropy = (entropy - low) / max(high - low, 1e-9)
    both = np.clip(enlarge(np.concatenate([together, entropy], axis=-1), images), 0, 1)
    rows = [
        [coloured(image), *(overlay(image, stack[..., index]) for index in (0, 1))]
        for image, stack in zip(images, both, strict=True)
    ]
    heads = ["image", "all tokens", f"entropy\n{low:.2f} to {high:.2f}"]
    return save(_grid(rows, heads, [INK] * 3, titles), file)


def _checked(
    owner: str, images: np.ndarray, maps: np.ndarray, titles: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    images, maps = as_arrays(owner, "images", images, maps)
    if not are_pixels(images) or maps.ndim != 4 or not maps.size or len(images) != len(maps):
        raise ValueError(
            f"{owner}: `images` must have shape (B, height, width, 1 or 3). `maps` must have shape "
            "(B, H, W, S), with B of at least 1. "
            f"Received: shapes {images.shape} and {maps.shape}"
        )
    if titles is not None:
        check_names(owner, "titles", titles, len(images), "a text for each image")
    return images, maps


def _grid(
    rows: Sequence[Sequence[np.ndarray]],
    heads: Sequence[str],
    inks: Sequence[str | np.ndarray],
    titles: Sequence[str] | None,
) -> "Figure":
    """Return a figure of panels in rows, with a coloured title over each column."""
    lines = max(head.count("\n") + 1 for head in heads)
    figure, axes = new_panels(len(rows), len(heads), rows[0][0].shape, lines)
    for place, panels in enumerate(rows):
        for axis, panel in zip(axes[place], panels, strict=True):
            axis.imshow(np.clip(panel, 0, 1))
    if titles is not None:
        for axis, title in zip(axes[:, 0], titles, strict=True):
            axis.set_ylabel(title, color=INK, fontsize=SMALL)
    for axis, head, ink in zip(axes[0], heads, inks, strict=True):
        axis.set_title(head, color=ink, fontsize=SMALL)
    return figure
