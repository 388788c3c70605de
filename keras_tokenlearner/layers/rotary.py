import math
from typing import cast

import keras
import numpy as np
from keras import ops

from keras_tokenlearner._checks import (
    check_choice,
    check_heads,
    check_int,
    check_ints,
    check_number,
    check_positive,
)
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers.composite import CompositeLayer
from keras_tokenlearner.layers.grids import check_built

COORDINATES = ("index", "centred")
FREQUENCIES = ("fixed", "learned")
LAYOUTS = ("interleaved", "half", "tiled")
ORDERS = ("height_first", "width_first")


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class RotaryPositions(CompositeLayer):
    """Returns the cosines and sines by which attention rotates queries and keys.

    The channels of a head form pairs. Pair `c` of a token at the coordinates `p` is rotated by the
    angle `a_c = sum_axis p_axis * f_(axis, c)` with frequencies `f`. The product of a query and a
    key then depends only on their relative position, except with the layout `"tiled"`.

    With fixed frequencies, each axis has an equal share of the pairs. Pair k of the K pairs of an
    axis has the frequency `theta^(-k / K)`. Remaining pairs are not rotated. Prefix tokens have no
    position and are not rotated.

    The output of this layer is the rotary table. `rotate(x, table, layout)` rotates queries or keys
    by the table; `MultiHeadAttention` calls this function.

    Args:
        num_heads: Integer, attention heads; must divide the channels of the inputs.
        num_prefix_tokens: Integer, tokens before the patch tokens.
        coordinates: `"index"`, 0, 1, 2, ... on each axis, or `"centred"`, the centres of the
            patches in [-1, 1] on each axis. Centred angles are multiplied by 2 pi, as in DINOv3.
        frequencies: `"fixed"` or `"learned"`. With `"learned"`, every pair of channels of every
            head learns one frequency for each axis.
        theta: Float, base of the frequencies, or of the initial values of learned frequencies.
        layout: The choice of pairs. `"interleaved"` pairs neighbouring channels. `"half"` pairs
            channels of the first half and the second half. `"tiled"` pairs neighbours. Each axis
            then has its own block of channels, and both halves of the block have the same angles.
            `"tiled"` is not a rotation, but V-JEPA 2 was trained with it.
        order: `"height_first"` or `"width_first"`, the order of both axes in the channels, or in
            the learned frequencies. For videos, the channels of the frame axis come first.
        offset: Float, added to each index.
        reference_grid: `(H, W)` or `(T, H, W)`. Indices are scaled to the range of this grid, so
            other resolutions keep the range. `None` for no scaling.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, H, W, C) or (B, T, H, W, C). Only B may be None. The layer uses
            only the shape of `inputs`.
        maps: Tensor of shape (B, N, S) or (B, H, W, S), the maps of S learned tokens. The position
            of a token is the centre of mass of its map.

    Returns:
        Tensor of shape (B, P + N, 1, 2 * C / heads), cosines then sines of each channel, for P
        prefix tokens. For learned frequencies, the third axis has a size of `num_heads`. With maps,
        the second axis has a size of P + S.

    Raises:
        ValueError: If an argument is out of range, or the size of the grid is not known. Also if a
            head has an odd number of channels, or too few for the axes. Also if two arguments, or
            the inputs and an argument, contradict each other. Also if a later call has inputs of
            other sizes or another number of axes.

    Example:

    >>> patches = keras.random.normal((2, 4, 6, 32))
    >>> tuple(RotaryPositions(num_heads=2, num_prefix_tokens=1)(patches).shape)
    (2, 25, 1, 32)

    Source: Su et al., "RoFormer", 2021. Fang et al., "EVA-02", 2023. Learned frequencies: Heo et
    al., "Rotary Position Embedding for Vision Transformer", 2024. Centred coordinates: Siméoni et
    al., "DINOv3", 2025.
    """

    def __init__(
        self,
        num_heads: int,
        num_prefix_tokens: int = 0,
        coordinates: str = "index",
        frequencies: str = "fixed",
        theta: float = 10000.0,
        layout: str = "interleaved",
        order: str = "height_first",
        offset: float = 0.0,
        reference_grid: tuple[int, ...] | None = None,
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(**kwargs)
        owner = "RotaryPositions"
        self.num_heads = check_int(owner, "num_heads", num_heads)
        self.num_prefix_tokens = check_int(owner, "num_prefix_tokens", num_prefix_tokens, minimum=0)
        self.coordinates = check_choice(owner, "coordinates", coordinates, COORDINATES)
        self.frequencies = check_choice(owner, "frequencies", frequencies, FREQUENCIES)
        self.theta = check_positive(owner, "theta", theta)
        self.layout = check_choice(owner, "layout", layout, LAYOUTS)
        self.order = check_choice(owner, "order", order, ORDERS)
        self.offset = check_number(owner, "offset", offset)
        self.reference_grid = reference_grid
        if reference_grid is not None:
            self.reference_grid = check_ints(owner, "reference_grid", reference_grid, (2, 3))
            if coordinates == "centred":
                raise ValueError(
                    f"{owner}: `reference_grid` has no effect with coordinates='centred'; leave it "
                    f"out. Received: coordinates='centred', reference_grid={self.reference_grid}"
                )
        if frequencies == "learned" and layout == "tiled":
            raise ValueError(
                f"{owner}: frequencies='learned' needs layout='half' or 'interleaved'. "
                "Received: frequencies='learned', layout='tiled'"
            )

    def build(
        self,
        inputs_shape: tuple[int | None, ...],
        maps_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        owner = "RotaryPositions"
        if len(inputs_shape) not in (4, 5) or None in inputs_shape[1:]:
            raise ValueError(
                f"{owner}: inputs must have shape (B, H, W, C) or (B, T, H, W, C). All sizes "
                f"except B must be known. Received: shape={tuple(inputs_shape)}"
            )
        *grid, channels = cast(tuple[int, ...], inputs_shape[1:])
        if self.reference_grid is not None and len(self.reference_grid) != len(grid):
            raise ValueError(
                f"{owner}: `reference_grid` must be (H, W) for images and (T, H, W) for videos. "
                f"Received: reference_grid={self.reference_grid} with shape={tuple(inputs_shape)}"
            )
        if self.frequencies == "learned" and len(grid) != 2:
            raise ValueError(
                f"{owner}: frequencies='learned' needs images, (B, H, W, C); pass "
                f"frequencies='fixed' for videos. Received: shape={tuple(inputs_shape)}"
            )
        self._sizes = (*grid, channels)
        self.head_dim = check_heads(owner, self.num_heads, channels)
        if self.head_dim % 2 or self.head_dim < 2 * len(grid):
            raise ValueError(
                f"{owner}: the number of channels per head must be even, and at least "
                f"{2 * len(grid)}; change `num_heads`. Received: {self.head_dim} channels per "
                f"head, with num_heads={self.num_heads} and shape={tuple(inputs_shape)}"
            )
        self._places = grid_coordinates(
            grid, self.coordinates, self.order, self.offset, self.reference_grid
        )
        if self.frequencies == "learned":
            self.learned = self.add_weight(
                shape=(len(grid), self.num_heads, self.head_dim // 2),
                initializer=self._random_directions,
                name="frequencies",
                autocast=False,
            )
            return
        frequencies = _fixed_frequencies(self.head_dim, len(grid), self.theta, self.layout)
        self._frequencies = frequencies[:, None]  # (axes, 1, D)
        angles = self._places @ frequencies
        angles = np.pad(angles, ((self.num_prefix_tokens, 0), (0, 0)))[:, None]
        sines = np.sin(angles) * _signs(self.head_dim, self.layout)
        self._table = np.concatenate([np.cos(angles), sines], axis=-1)  # (P + N, 1, 2 D)

    def _random_directions(
        self, shape: tuple[int, ...], dtype: str | None = None
    ) -> keras.KerasTensor:
        """Return initial frequencies along two perpendicular directions, random for every head."""
        per_axis = -(-self.head_dim // 4)
        sizes = self.theta ** (-np.arange(per_axis, dtype="float32") * 4 / self.head_dim)
        angles = keras.random.uniform((self.num_heads, 1), 0.0, 2 * math.pi)
        turned = [angles, angles + math.pi / 2]
        sizes = ops.convert_to_tensor(sizes)
        x = ops.concatenate([ops.cos(angle) * sizes for angle in turned], axis=-1)
        y = ops.concatenate([ops.sin(angle) * sizes for angle in turned], axis=-1)
        return ops.cast(ops.stack([x, y])[..., : shape[-1]], dtype or "float32")

    def call(
        self, inputs: keras.KerasTensor, maps: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        check_built("RotaryPositions", self._sizes, inputs.shape[1:])
        batch = ops.shape(inputs)[0]
        if maps is None and self.frequencies == "fixed":
            table = ops.expand_dims(ops.cast(self._table, self.compute_dtype), 0)
            return ops.broadcast_to(table, (batch, *table.shape[1:]))
        places = ops.cast(self._places, "float32")
        places = places[None] if maps is None else _centres_of_mass(maps, places)
        angles = ops.einsum("bna,ahd->bnhd", places, self._frequencies_of_channels())
        angles = ops.pad(angles, ((0, 0), (self.num_prefix_tokens, 0), (0, 0), (0, 0)))
        sines = ops.sin(angles) * ops.cast(_signs(self.head_dim, self.layout), "float32")
        table = ops.cast(ops.concatenate([ops.cos(angles), sines], axis=-1), self.compute_dtype)
        return ops.broadcast_to(table, (batch, *ops.shape(table)[1:]))

    def _frequencies_of_channels(self) -> keras.KerasTensor:
        """Return the frequency of each channel, (axes, 1 or heads, D)."""
        if self.frequencies == "fixed":
            return ops.cast(self._frequencies, "float32")
        pairs = ops.convert_to_tensor(self.learned)
        if self.layout == "half":
            return ops.concatenate([pairs, pairs], axis=-1)
        return ops.repeat(pairs, 2, axis=-1)

    def compute_output_shape(
        self,
        inputs_shape: tuple[int | None, ...],
        maps_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[int | None, ...]:
        if self.built:
            check_built("RotaryPositions", self._sizes, inputs_shape[1:])
        *grid, channels = cast(tuple[int, ...], inputs_shape[1:])
        tokens = math.prod(grid) if maps_shape is None else cast(int, maps_shape[-1])
        heads = self.num_heads if self.frequencies == "learned" else 1
        table = 2 * (channels // self.num_heads)
        return (inputs_shape[0], self.num_prefix_tokens + tokens, heads, table)

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_prefix_tokens": self.num_prefix_tokens,
            "coordinates": self.coordinates,
            "frequencies": self.frequencies,
            "theta": self.theta,
            "layout": self.layout,
            "order": self.order,
            "offset": self.offset,
            "reference_grid": self.reference_grid,
        }


def grid_coordinates(
    grid: tuple[int, ...] | list[int],
    coordinates: str,
    order: str = "height_first",
    offset: float = 0.0,
    reference_grid: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Return the coordinates of the tokens of a grid, in the order of the tokens.

    Args:
        grid: `(H, W)` or `(T, H, W)`.
        coordinates: `"index"` or `"centred"`, the argument of `RotaryPositions`.
        order: `"height_first"` or `"width_first"`, the order of height and width.
        offset: Added to each index.
        reference_grid: Size of a grid; indices are scaled to its range.

    Returns:
        Array of shape (N, axes).

    Example:

    >>> grid_coordinates((1, 3), "index", "width_first").tolist()
    [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]
    """
    axes = []
    for axis, size in enumerate(grid):
        if coordinates == "centred":
            places: np.ndarray = 2 * math.pi * (2 * (np.arange(size) + 0.5 + offset) / size - 1)
        else:
            places = np.arange(size) + offset
            if reference_grid is not None:
                places = places / size * reference_grid[axis]
        axes.append(places)
    places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(grid))
    if order == "width_first":
        places[:, [-2, -1]] = places[:, [-1, -2]]
    return places


def rotate(x: keras.KerasTensor, table: keras.KerasTensor, layout: str) -> keras.KerasTensor:
    """Rotate the pairs of channels of (B, N, heads, D) by a table of `RotaryPositions`.

    Args:
        x: Tensor of shape (B, N, heads, D).
        table: Tensor of shape (B, N, 1 or heads, 2 D), cosines then sines.
        layout: Layout of the `RotaryPositions` that computed the table.

    Returns:
        Tensor of the shape of `x`.
    """
    size = x.shape[-1]
    if layout == "half":
        other = ops.concatenate([x[..., size // 2 :], x[..., : size // 2]], axis=-1)
    else:
        pairs = ops.reshape(x, (*ops.shape(x)[:-1], size // 2, 2))
        other = ops.reshape(ops.flip(pairs, axis=-1), ops.shape(x))
    return x * table[..., :size] + other * table[..., size:]


def _fixed_frequencies(channels: int, axes: int, theta: float, layout: str) -> np.ndarray:
    """Return the frequency of every channel on every axis, (axes, D)."""
    count = channels // (2 * axes)  # pairs of each axis
    values = theta ** (-np.arange(count) / count)
    pairs = np.zeros((axes, channels // 2))
    for axis in range(axes):
        pairs[axis, axis * count : (axis + 1) * count] = values
    if layout == "half":
        return np.concatenate([pairs, pairs], axis=1)
    frequencies = np.repeat(pairs, 2, axis=1)
    if layout == "tiled":
        for axis in range(axes):
            frequencies[axis, 2 * axis * count : 2 * (axis + 1) * count] = np.tile(values, 2)
    return frequencies


def _signs(channels: int, layout: str) -> np.ndarray:
    """Return the sign of each channel's sine: -1 for the first channel of a pair, else 1."""
    signs = np.ones((channels // 2, 2)) * [-1.0, 1.0]
    return (signs.T if layout == "half" else signs).reshape(-1)


def _centres_of_mass(maps: keras.KerasTensor, places: keras.KerasTensor) -> keras.KerasTensor:
    """Return the centre of mass of each map, (B, S, axes)."""
    weights = ops.relu(ops.cast(maps, "float32"))  # maps may be negative, masses may not
    weights = ops.reshape(weights, (-1, places.shape[0], maps.shape[-1]))
    mass = ops.maximum(ops.sum(weights, axis=1, keepdims=True), 1e-6)
    return ops.einsum("bns,na->bsa", weights / mass, places)
