"""Divisions of grids into cells, from coarse to fine, checked at each position."""

import math

import numpy as np
import pytest

from keras_tokenlearner.layers import FixedGrid
from keras_tokenlearner.layers.cells import ancestors, grid_cells
from tests.layers.helpers import refused

pytestmark = pytest.mark.once("torch")

GRIDS = [(4, 4), (8, 8), (14, 14), (3, 5), (1, 7), (4, 9), (2, 3, 5), (4, 4, 4), (6,)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_grid_cells_of_any_number_contain_every_position_once(grid):
    for count in range(1, min(math.prod(grid), 40) + 1):
        masks = grid_cells(grid, count).masks(grid)
        assert masks.shape == (*grid, count)
        assert (masks.sum(-1) == 1).all()
        assert masks.reshape(-1, count).any(0).all()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_grid_cells_merged_into_fewer_cells_contain_every_position_once(grid):
    """Omitted cells merge into their ancestors. Each position is still in exactly one cell."""
    count = min(math.prod(grid), 33)
    cells = grid_cells(grid, count)
    masks = cells.masks(grid).reshape(-1, count)
    for first in range(1, count + 1):
        owners = np.array(ancestors(cells.parents, first))
        assert (owners[:first] == np.arange(first)).all() and (owners < first).all()
        merged = np.stack([masks[:, owners == cell].any(1) for cell in range(first)], 1)
        assert (merged.sum(1) == 1).all()


def test_grid_cells_merged_into_a_power_of_two_equal_grid_cells_of_that_number():
    cells = grid_cells((8, 8), 32)
    masks = cells.masks((8, 8))
    for first in (1, 2, 4, 8, 16):
        owners = np.array(ancestors(cells.parents, first))
        merged = np.stack([masks[..., owners == cell].any(-1) for cell in range(first)], -1)
        np.testing.assert_array_equal(merged, grid_cells((8, 8), first).masks((8, 8)))


@pytest.mark.parametrize(
    ("grid", "count"), [((8, 8), 8), ((8, 8), 16), ((14, 14), 49), ((4, 8), 8), ((6, 9), 6)]
)
def test_grid_cells_of_a_divisible_grid_equal_the_cells_of_fixed_grid(grid, count):
    layer = FixedGrid(count)
    layer.build((None, *grid, 3))
    wanted = {tuple(row) for row in layer.cells > 0}
    found = grid_cells(grid, count).masks(grid).reshape(-1, count)
    assert {tuple(column) for column in found.T} == wanted


@pytest.mark.parametrize("grid", [(14, 14), (7, 14), (16, 10)], ids=str)
def test_grid_cells_have_areas_and_sides_within_a_factor_of_four(grid):
    for count in range(1, 33):
        sizes = np.array([[b - a for a, b in box] for box in grid_cells(grid, count).boxes])
        areas = sizes.prod(1)
        assert areas.max() <= 4 * areas.min(), count
        assert (sizes.max(1) <= 4 * sizes.min(1)).all(), (count, sizes)


def test_grid_cells_with_more_cells_than_positions_raises():
    refused(lambda: grid_cells((2, 3), 7), "num_cells=7", "grid=(2, 3)")
    refused(lambda: grid_cells((2, 3), 0), "num_cells=0")
