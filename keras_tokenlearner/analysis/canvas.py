import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_tokenlearner._checks import check_path
from keras_tokenlearner._extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Figures have a dark background, so that they look alike on light and on dark pages.
GROUND, INK, FAINT = "#101218", "#f2f2f2", "#5a6070"
DPI = 150
SMALL = 10  # points, for the labels next to panels


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty `matplotlib.figure.Figure`; `width` and `height` are in inches.

    Raises:
        ImportError: If matplotlib, the extra `plot`, is not installed.
    """
    figures = require("matplotlib.figure", "plot")
    return figures.Figure(figsize=(width, height), facecolor=GROUND, layout="constrained")


def new_panels(
    rows: int, columns: int, size: Sequence[int], lines: int = 1
) -> "tuple[Figure, np.ndarray]":
    """Return a figure with a grid of panels, and the axes of the panels, without frames.

    Args:
        rows: Integer, rows of the grid.
        columns: Integer, columns of the grid.
        size: `(height, width)` of a panel, in any unit.
        lines: Integer, lines of text above the panels. The figure has room for these lines.
    """
    height = 1.15 * rows * size[0] / size[1] + 0.25 * lines + 0.1
    figure = new_figure(1.15 * columns + 0.3, height)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], facecolor=GROUND)
        axis.spines[:].set_visible(False)
    return figure, axes


def check_figure_path(owner: str, path: str | os.PathLike[str]) -> Path:
    """Return the path of a new figure. Raise `ValueError` if its folder does not exist."""
    found = check_path(owner, "path", path)
    if not found.parent.is_dir():
        raise ValueError(
            f"{owner}: the folder of `path` must exist; create it first. Received: path={path!r}"
        )
    return found


def save(figure: "Figure", path: Path | None) -> "Figure":
    """Save a figure if `path` is not `None`, and return the figure."""
    if path is not None:
        figure.savefig(path, dpi=DPI, facecolor=GROUND)
    return figure


def pixels(figure: "Figure") -> np.ndarray:
    """Return a figure as an array of type uint8 and shape (height, width, 3)."""
    canvas = require("matplotlib.backends.backend_agg", "plot").FigureCanvasAgg(figure)
    figure.set_dpi(DPI)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
