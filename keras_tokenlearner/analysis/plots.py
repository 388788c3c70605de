import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from keras_tokenlearner._checks import check_path
from keras_tokenlearner.analysis.canvas import (
    FAINT,
    GROUND,
    INK,
    check_figure_path,
    new_figure,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows: TypeAlias = Sequence[Mapping[str, str | float | None]]
Point: TypeAlias = tuple[float, float, str]  # cost, score and name


def draw_token_similarity(
    similarity: np.ndarray, path: str | os.PathLike[str] | None = None
) -> "Figure":
    """Draw the cosine similarity of the tokens, averaged over the images.

    Args:
        similarity: Array of shape (B, S, S) from `token_similarity`.
        path: Path of the figure, or `None` for no file.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If `similarity` has another shape or no images. Also if the folder of `path`
            does not exist.
        ImportError: If matplotlib, the extra `plot`, is not installed.

    Example:

    >>> figure = draw_token_similarity(np.eye(3)[None], path="similarity.png")
    """
    file = None if path is None else check_figure_path("draw_token_similarity", path)
    similarity = np.asarray(similarity)
    if similarity.ndim != 3 or not similarity.size or similarity.shape[1] != similarity.shape[2]:
        raise ValueError(
            "draw_token_similarity: `similarity` must have shape (B, S, S), with B of at least 1. "
            f"Received: similarity of shape {similarity.shape}"
        )
    mean = np.mean(similarity, axis=0)
    count = len(mean)
    side = 0.5 * min(count, 16)
    figure = new_figure(1.1 * side + 1.2, side + 0.8)
    axis = figure.subplots()
    shown = axis.imshow(mean, cmap="inferno", vmin=min(0.0, mean.min()), vmax=1)
    for row, column in np.ndindex(mean.shape) if count <= 16 else ():
        value = mean[row, column]
        ink = GROUND if value > 0.6 else INK
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=8)
    numbers = np.arange(0, count, -(-count // 32))
    axis.set(xticks=numbers, yticks=numbers, xticklabels=numbers + 1, yticklabels=numbers + 1)
    axis.set_title("cosine between tokens", color=INK, fontsize=9)
    _inked(axis)
    figure.colorbar(shown).ax.tick_params(colors=INK, labelsize=8)
    return save(figure, file)


def draw_costs(
    rows: Rows | str | Path,
    path: str | os.PathLike[str] | None = None,
    cost: str = "gmacs",
    score: str = "accuracy",
    label: str = "model",
) -> "Figure":
    """Draw the quality of models against their cost. Models at the upper left are better.

    A line joins the Pareto front: the models that no other model beats in quality and cost.

    Args:
        rows: List of dictionaries from `keras_tokenlearner.evaluation.compare`, or the path of a
            CSV file with a header. Lines that start with `#`, and rows without a cost or without a
            quality, are skipped. NaN means a missing value.
        path: Path of the figure, or `None` for no file.
        cost: The column of the cost.
        score: The column of the quality.
        label: The column of the names.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: If the file cannot be read, a column is missing, or no row has a cost and a
            quality. Also if a cost or a quality is not a finite number, or the folder of `path`
            does not exist.
        ImportError: If matplotlib, the extra `plot`, is not installed.

    Example:

    >>> rows = [{"model": "vit", "accuracy": 0.9, "gmacs": 4.0}]
    >>> rows.append({"model": "vit_8at2", "accuracy": 0.8, "gmacs": 2.0})
    >>> figure = draw_costs(rows, path="costs.png")
    """
    file = None if path is None else check_figure_path("draw_costs", path)
    points = _points(rows, cost, score, label)
    figure = new_figure(6.4, 4)
    axis = figure.subplots()
    front = [one for one in points if not any(_beats(other, one) for other in points)]
    axis.plot(*zip(*(one[:2] for one in front), strict=True), color=FAINT, linewidth=1)
    axis.scatter(*zip(*(one[:2] for one in points), strict=True), color="#ffb454", zorder=2)
    for x, y, name in points:
        axis.annotate(name, (x, y), (6, -10), textcoords="offset points", color=INK, fontsize=8)
    axis.set_xlabel(cost, color=INK, fontsize=9)
    axis.set_ylabel(score, color=INK, fontsize=9)
    axis.margins(0.2, 0.15)
    _inked(axis)
    return save(figure, file)


def _points(rows: Rows | str | Path, cost: str, score: str, label: str) -> list[Point]:
    """Return `(cost, score, name)` of the rows with cost and score, the cheapest first."""
    if isinstance(rows, str | Path):
        try:
            lines = check_path("draw_costs", "rows", rows).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"draw_costs: `rows` must be a readable CSV file. Received: rows={str(rows)!r}: "
                f"{error}"
            ) from error
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    columns = list(rows[0]) if rows else []
    if not {cost, score, label} <= set(columns):
        raise ValueError(
            f"draw_costs: `rows` must have the columns {cost!r}, {score!r} and {label!r}; pass "
            f"other names as `cost`, `score` and `label`. Received: columns {columns}"
        )
    found = []
    for row in rows:
        x, y = _number(row, cost), _number(row, score)
        if x is not None and y is not None:
            found.append((x, y, str(row.get(label))))
    if not found:
        raise ValueError(
            "draw_costs: at least one row must have values in both columns, `cost` and `score`. "
            f"Received: cost={cost!r}, score={score!r}, and no row with both values"
        )
    return sorted(found)


def _number(row: Mapping[str, str | float | None], column: str) -> float | None:
    """Return a value of a row as a number, or `None` if the value is missing: empty or NaN."""
    value = row.get(column)
    try:
        number = math.nan if value in (None, "") else float(cast("str | float", value))
    except (TypeError, ValueError):
        number = math.inf
    if math.isinf(number):
        raise ValueError(
            f"draw_costs: the column {column!r} of `rows` must have finite numbers, or empty cells "
            f"for missing values. Received: {column}={value!r} in the row {dict(row)}"
        )
    return None if math.isnan(number) else number


def _beats(one: Point, other: Point) -> bool:
    """Return whether a model beats another: better in cost or score, and worse in neither."""
    return one[0] <= other[0] and one[1] >= other[1] and one[:2] != other[:2]


def _inked(axis: "Axes") -> None:
    axis.set_facecolor(GROUND)
    axis.tick_params(colors=INK, labelsize=8)
    axis.spines[:].set_color(FAINT)
