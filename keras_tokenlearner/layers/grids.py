"""Reshaping between sequences (B, N, C), images (B, H, W, C) and videos (B, T, H, W, C).

Tokens are always in row-major order, frame after frame. Token `(t * H + h) * W + w` of a sequence
is at `(t, h, w)` of its grid.
"""

import math
from collections.abc import Iterable, Sequence
from typing import cast

import keras
from keras import ops

from keras_tokenlearner._checks import Shape, check_ints


def check_grid(owner: str, grid: Sequence[int] | None) -> tuple[int, ...] | None:
    """Return `grid` as `(H, W)`, `(T, H, W)` or `None`, or raise `ValueError`."""
    return None if grid is None else check_ints(owner, "grid", grid, lengths=(2, 3))


def resolve_grid(owner: str, shape: Shape, grid: tuple[int, ...] | None) -> tuple[int | None, ...]:
    """Return `(T, H, W)` of a tensor, with `None` for an unknown size.

    Args:
        owner: Name of the caller, for error messages.
        shape: Shape of the tensor: (B, N, C), (B, H, W, C) or (B, T, H, W, C).
        grid: `(H, W)` or `(T, H, W)` of a sequence. With `(H, W)` a sequence may hold any whole
            number of frames. `None` for tensors whose shape contains the grid.

    Raises:
        ValueError: If the rank is not 3, 4 or 5, the channels are unknown, a sequence has no grid,
            or grid and shape disagree.
    """
    rank = len(shape)
    if rank not in (3, 4, 5):
        raise ValueError(
            f"{owner}: inputs must have shape (B, N, C), (B, H, W, C) or (B, T, H, W, C). "
            f"Received: shape={tuple(shape)}"
        )
    if shape[-1] is None:
        raise ValueError(
            f"{owner}: the last axis of the inputs, the channels, must be known. "
            f"Received: shape={tuple(shape)}"
        )
    if rank > 3:
        found = (1, *shape[1:3]) if rank == 4 else tuple(shape[1:4])
        if grid is not None and not _agree(found[-len(grid) :], grid):
            raise ValueError(
                f"{owner}: `grid` disagrees with the inputs; leave out `grid` for inputs of rank "
                f"{rank}. Received: grid={grid} with shape={tuple(shape)}"
            )
        return found
    if grid is None:
        raise ValueError(
            f"{owner}: inputs of shape (B, N, C) need `grid=(H, W)` (or `(T, H, W)`), since a "
            f"sequence does not state its layout. Received: shape={tuple(shape)}, grid=None"
        )
    length, per_grid = shape[1], math.prod(grid)
    if length is not None and (length % per_grid or (len(grid) == 3 and length != per_grid)):
        raise ValueError(
            f"{owner}: `grid` must have one position per token. A grid (H, W) may repeat for each "
            f"frame. Received: grid={grid}, which holds {per_grid} tokens, with "
            f"shape={tuple(shape)}"
        )
    if len(grid) == 3:
        return grid
    return (None if length is None else length // per_grid, *grid)


def check_built(owner: str, built: Shape | None, found: Shape) -> None:
    """Raise `ValueError` if the sizes of the inputs differ from the sizes at the build of a layer.

    Args:
        owner: Name of the layer, for error messages.
        built: Sizes for which the layer was built, or `None` for a layer that takes all sizes.
        found: Sizes of the inputs. An unknown size is `None`.
    """
    if built is not None and (len(found) != len(built) or not _agree(found, built)):
        raise ValueError(
            f"{owner}: inputs must have the sizes for which the layer was built; build a new layer "
            f"for other sizes. Received: sizes {tuple(found)} for a layer built for {tuple(built)}"
        )


def to_volume(x: keras.KerasTensor, grid: Shape) -> keras.KerasTensor:
    """Reshape a tensor to (B, T, H, W, C); `grid` is the result of `resolve_grid` for its shape."""
    if len(x.shape) == 5:
        return x
    if len(x.shape) == 4:
        return ops.expand_dims(x, 1)
    frames, height, width = cast(tuple[int | None, int, int], grid)
    frames = ops.shape(x)[1] // (height * width) if frames is None else frames
    return ops.reshape(x, (-1, frames, height, width, x.shape[-1]))


def to_frames(x: keras.KerasTensor, grid: Shape | None) -> keras.KerasTensor:
    """Reshape a tensor to one image per frame, (B * T, H, W, C).

    `grid` is the result of `resolve_grid` for its shape. Only sequences need `grid`.
    """
    if len(x.shape) == 4:
        return x
    height, width = ops.shape(x)[2:4] if grid is None or len(x.shape) == 5 else grid[1:]
    return ops.reshape(x, (-1, height, width, x.shape[-1]))


def flatten_grid(x: keras.KerasTensor) -> keras.KerasTensor:
    """Reshape (B, ..., C) to (B, N, C)."""
    if len(x.shape) == 3:
        return x
    return ops.reshape(x, (ops.shape(x)[0], _product(ops.shape(x)[1:-1]), x.shape[-1]))


def restore_grid(x: keras.KerasTensor, like: keras.KerasTensor) -> keras.KerasTensor:
    """Reshape a tensor to the shape of `like`, except for the channels."""
    return ops.reshape(x, (*ops.shape(like)[:-1], x.shape[-1]))


def _product(sizes: Iterable[int]) -> int:
    product = 1
    for size in sizes:
        product = product * size
    return product


def _agree(found: Shape, expected: Shape) -> bool:
    return all(size is None or size == wanted for size, wanted in zip(found, expected, strict=True))
