"""Divides a grid of positions into rectangular cells, from coarse to fine.

A learned token can start as the average of one cell.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_tokenlearner._checks import check_int, check_ints

Box = tuple[tuple[int, int], ...]  # (start, stop) along each axis


@dataclass(frozen=True)
class Cells:
    """The division of a grid into cells. Each cell is split off from an earlier cell, its parent.

    For any `m`, the first `m` cells cover the grid if each later cell is merged into its parent.

    Attributes:
        boxes: `(start, stop)` of each axis, for each cell.
        parents: Index of each cell's parent. The first cell is its own parent.
    """

    boxes: tuple[Box, ...]
    parents: tuple[int, ...]

    def masks(self, grid: tuple[int, ...]) -> np.ndarray:
        """Return a boolean array of shape (*grid, cells), true where a position is in a cell."""
        masks = np.zeros((*grid, len(self.boxes)), bool)
        for index, box in enumerate(self.boxes):
            masks[..., index][tuple(slice(start, stop) for start, stop in box)] = True
        return masks


def grid_cells(grid: tuple[int, ...], num_cells: int) -> Cells:
    """Divide a grid into any number of nearly square cells of nearly the same size.

    The grid is split into boxes, and boxes are split again, until each box is one cell. A box is
    split along its longest axis that has enough positions. Each prime factor `p` of the number of
    cells gives a candidate: `p` parts with equally many cells. An odd number of cells also gives a
    candidate of two parts with about half of the cells each. The function chooses the candidate
    whose cells are closest to squares of equal size. Cells are numbered level by level, so the
    first cells spread over the whole grid.

    Args:
        grid: Positions along each axis, such as `(H, W)` or `(T, H, W)`.
        num_cells: Integer, at most the number of positions of the grid.

    Returns:
        The `Cells`.

    Raises:
        ValueError: If there are more cells than positions.

    Example:

    >>> cells = grid_cells((4, 8), 4)
    >>> cells.boxes
    (((0, 4), (0, 2)), ((0, 4), (4, 6)), ((0, 4), (2, 4)), ((0, 4), (6, 8)))
    >>> cells.parents
    (0, 0, 0, 1)
    """
    grid = check_ints("grid_cells", "grid", grid, lengths=range(1, 4))
    check_int("grid_cells", "num_cells", num_cells)
    if num_cells > math.prod(grid):
        raise ValueError(
            "grid_cells: `num_cells` must be at most the number of positions of the grid, "
            f"{math.prod(grid)}. Received: num_cells={num_cells} for grid={grid}"
        )
    root = _divide(tuple((0, size) for size in grid), num_cells)
    parents, level = [0], [(0, root)]
    leaves = {}
    while level:  # breadth first
        below = []
        for index, node in level:
            if node.box is not None:
                leaves[index] = node.box
                continue
            for part, child in enumerate(node.children):
                if part:
                    parents.append(index)
                    index = len(parents) - 1
                below.append((index, child))
        level = sorted(below, key=lambda pair: pair[0])
    boxes = tuple(leaves[index] for index in range(num_cells))
    return Cells(boxes, tuple(parents))


def check_parents(owner: str, value: Sequence[int], num_cells: int) -> tuple[int, ...]:
    """Return the parents of cells as a tuple, or raise `ValueError`.

    The first parents of a larger tree are valid too: each parent is an earlier cell.
    """
    parents = check_ints(
        owner, "parents", value, (num_cells,), minimum=0, maximum=max(num_cells - 1, 0)
    )
    if any(parent >= max(cell, 1) for cell, parent in enumerate(parents)):
        raise ValueError(
            f"{owner}: `parents` must name an earlier cell for each cell, and 0 for the first. "
            f"Leave `parents` out for the cells of the grid. Received: parents={parents}"
        )
    return parents


def ancestors(parents: tuple[int, ...], num_cells: int) -> list[int]:
    """Return, for each cell, its nearest ancestor among the first `num_cells` cells.

    A cell among the first `num_cells` cells counts as its own ancestor.

    Example:

    >>> ancestors((0, 0, 0, 1), 2)
    [0, 1, 0, 1]
    """
    found = []
    for cell in range(len(parents)):
        while cell >= num_cells:
            cell = parents[cell]
        found.append(cell)
    return found


@dataclass(frozen=True)
class _Node:
    box: Box | None  # `None` if the node has children
    children: tuple["_Node", ...]
    elongation: float  # longest side divided by shortest side of the most elongated cell
    areas: tuple[int, int]  # numbers of positions in the smallest and largest cell

    @property
    def unevenness(self) -> float:
        return round(self.elongation * self.areas[1] / self.areas[0], 6)


@functools.lru_cache(maxsize=4096)
def _divide(box: Box, cells: int) -> _Node:
    """Return the tree that divides a box into `cells` cells."""
    if cells == 1:
        sizes = [stop - start for start, stop in box]
        area = math.prod(sizes)
        return _Node(box, (), max(sizes) / min(sizes), (area, area))
    factors = [p for p in range(2, cells + 1) if cells % p == 0 and _is_prime(p)]
    ways = [(cells // factor,) * factor for factor in factors]
    if cells % 2:
        ways.append((cells // 2, cells - cells // 2))
    found = [node for shares in ways if (node := _split(box, shares)) is not None]
    return min(found, key=lambda node: node.unevenness)


def _is_prime(number: int) -> bool:
    return all(number % p for p in range(2, math.isqrt(number) + 1))


def _split(box: Box, shares: tuple[int, ...]) -> _Node | None:
    """Split a box along its longest axis with enough positions, into a part for each share.

    Two parts always fit. Return `None` if no axis has enough positions for three or more parts.

    Args:
        box: The box to split.
        shares: Number of cells of each part.
    """
    order = sorted(range(len(box)), key=lambda axis: (box[axis][0] - box[axis][1], -axis))
    for axis in order:
        start, stop = box[axis]
        across = math.prod(b - a for i, (a, b) in enumerate(box) if i != axis)
        done, borders = 0, [start]
        for share in shares:
            done += share
            borders.append(start + int((stop - start) * done / sum(shares) + 0.5))
        sizes = [b - a for a, b in zip(borders, borders[1:], strict=False)]
        if all(size * across >= share for size, share in zip(sizes, shares, strict=True)):
            return _node(box, axis, borders, shares)
    if len(shares) > 2:
        return None
    axis = order[0]  # halves too small for their shares: move cells to the half with room
    start, stop = box[axis]
    middle, across = (start + stop) // 2, math.prod(b - a for a, b in box) // (stop - start)
    first = min(max(shares[0], sum(shares) - (stop - middle) * across), (middle - start) * across)
    return _node(box, axis, [start, middle, stop], (first, sum(shares) - first))


def _node(box: Box, axis: int, borders: list[int], shares: tuple[int, ...]) -> _Node:
    children = tuple(
        _divide((*box[:axis], sides, *box[axis + 1 :]), share)
        for sides, share in zip(zip(borders, borders[1:], strict=False), shares, strict=True)
    )
    elongation = max(child.elongation for child in children)
    smallest = min(child.areas[0] for child in children)
    largest = max(child.areas[1] for child in children)
    return _Node(None, children, elongation, (smallest, largest))
