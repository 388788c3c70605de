from collections.abc import Mapping, MutableMapping

import keras
import numpy as np

from keras_tokenlearner._checks import check_channels_last, check_choice
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers.composite import CompositeLayer
from keras_tokenlearner.layers.grids import check_built


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class PositionEmbedding(CompositeLayer):
    """Adds a learned vector to each position of a grid. Loading resizes the table of vectors.

    `y[b, h, w] = x[b, h, w] + table[h, w]`, likewise with a frame axis. The table has one vector
    for each position of the inputs. Loading resizes a table that was saved for another grid. A
    model can therefore load weights of another resolution.

    Args:
        initializer: Initial values of the table: `"normal"`, N(0, 0.02) as in ViT, or `"sincos"`,
            sines and cosines along each axis. Small models learn faster from `"sincos"`.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, H, W, C) or (B, T, H, W, C). Only B may be None.

    Returns:
        Tensor of the shape of the inputs.

    Raises:
        ValueError: If `initializer` is unknown, or the size of the grid is not known when the
            layer is built. Also if the channels are too few for `"sincos"`. Also if a later call
            has inputs of other sizes or another number of axes.

    Example:

    >>> x = keras.random.normal((2, 4, 6, 32))
    >>> tuple(PositionEmbedding()(x).shape)
    (2, 4, 6, 32)

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021; sines and cosines in two
    dimensions: Beyer et al., "Better plain ViT baselines for ImageNet-1k", 2022.
    """

    def __init__(
        self, initializer: str = "normal", **kwargs: str | bool | keras.DTypePolicy | None
    ) -> None:
        super().__init__(**kwargs)
        self.initializer = check_choice(
            "PositionEmbedding", "initializer", initializer, ("normal", "sincos")
        )

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        check_channels_last("PositionEmbedding")
        if len(inputs_shape) not in (4, 5) or None in inputs_shape[1:]:
            raise ValueError(
                "PositionEmbedding: inputs must have shape (B, H, W, C) or (B, T, H, W, C). All "
                f"sizes except B must be known. Received: shape={tuple(inputs_shape)}"
            )
        if self.initializer == "normal":
            initializer = keras.initializers.RandomNormal(stddev=0.02)
        else:
            initializer = sincos_positions
        self.table = self.add_weight(shape=inputs_shape[1:], initializer=initializer, name="table")

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        check_built("PositionEmbedding", self.table.shape, inputs.shape[1:])
        return inputs + self.table

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        if self.built:
            check_built("PositionEmbedding", self.table.shape, inputs_shape[1:])
        return inputs_shape

    def save_own_variables(self, store: MutableMapping[str, np.ndarray]) -> None:
        store["table"] = keras.ops.convert_to_numpy(self.table)

    def load_own_variables(self, store: Mapping[str, np.ndarray]) -> None:
        self.table.assign(resize_positions(np.array(store["table"]), self.table.shape[:-1]))

    def get_config(self) -> dict[str, JSON]:
        return {**super().get_config(), "initializer": self.initializer}


def sincos_positions(shape: tuple[int, ...], dtype: str | None = None) -> keras.KerasTensor:
    """Return a table of sines and cosines of a position's index on each axis of a grid.

    Args:
        shape: `(H, W, C)` or `(T, H, W, C)`. Each axis has the same even number of channels.
            Channels that are left over are zero.
        dtype: Dtype of the table.

    Returns:
        Tensor of the shape `shape`.

    Raises:
        ValueError: If C is less than two channels per axis, one for a sine and one for a cosine.

    Example:

    >>> tuple(sincos_positions((4, 6, 32)).shape)
    (4, 6, 32)
    """
    *grid, channels = shape
    count = channels // (2 * len(grid))  # frequencies of each axis
    if not count:
        raise ValueError(
            f"PositionEmbedding: initializer='sincos' needs {2 * len(grid)} channels or more. "
            f"Received: shape={tuple(shape)}"
        )
    frequencies = 1e4 ** (-np.arange(count) / count)
    table = np.zeros(shape)
    for axis, size in enumerate(grid):
        angles = np.arange(size)[:, None] * frequencies
        waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        waves = waves.reshape([size if index == axis else 1 for index in range(len(grid))] + [-1])
        table[..., axis * 2 * count : (axis + 1) * 2 * count] = waves
    return keras.ops.convert_to_tensor(table, dtype)


def resize_positions(table: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """Resize a table of positions to another grid, linearly with aligned corners.

    The corners of the old grid become the corners of the new grid, as in the JAX ViT. For a 3-D
    grid, a 2-D table is resized in space and repeated for every frame, as in ViViT.

    Args:
        table: Array of shape (H, W, C) or (T, H, W, C).
        grid: The new `(H, W)` or `(T, H, W)`.

    Returns:
        Array of shape (*grid, C), with the dtype of `table`.

    Raises:
        ValueError: If a table of a video is resized to the grid of an image.

    Example:

    >>> resize_positions(np.array([[[0.0], [1.0]]]), (1, 3)).ravel().tolist()
    [0.0, 0.5, 1.0]
    """
    table = np.asarray(table)
    if len(grid) < table.ndim - 1:
        raise ValueError(
            "PositionEmbedding: positions of a video cannot be resized to an image; load them into "
            "a video model. "
            f"Received: a table of shape {table.shape} for grid={tuple(grid)}"
        )
    if len(grid) > table.ndim - 1:
        table = np.repeat(table[None], grid[0], axis=0)
    for axis, size in enumerate(grid):
        table = _resize_axis(table, axis, size)
    return table


def _resize_axis(table: np.ndarray, axis: int, size: int) -> np.ndarray:
    old = table.shape[axis]
    if old == size:
        return table
    place = np.linspace(0, old - 1, size)
    low = np.minimum(place.astype(int), old - 1)
    high = np.minimum(low + 1, old - 1)
    shape = [-1 if index == axis else 1 for index in range(table.ndim)]
    weight = (place - low).astype(table.dtype).reshape(shape)
    return np.take(table, low, axis) * (1 - weight) + np.take(table, high, axis) * weight
