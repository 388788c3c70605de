import keras
import numpy as np
from keras import layers

from keras_tokenlearner.layers.checks import check_channels_last


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class PositionEmbedding(layers.Layer):
    """Adds a learned vector to each position of a grid, and resizes its table on load.

    `y[b, h, w] = x[b, h, w] + table[h, w]`, likewise with a frame axis. The table has the shape of
    the grid it was built for. Weights saved for another grid are resized to it when they are
    loaded, so that a model of any resolution starts from the weights of another.

    Args:
        **kwargs: Name, dtype and the like, for `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of shape (B, H, W, C) or (B, T, H, W, C), with H, W and T known.

    Returns:
        Tensor of the shape of the inputs.

    Raises:
        ValueError: If the size of the grid is not known when the layer is built.

    Example:

    >>> x = keras.random.normal((2, 4, 6, 32))
    >>> tuple(PositionEmbedding()(x).shape)
    (2, 4, 6, 32)

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021.
    """

    def build(self, inputs_shape):
        check_channels_last("PositionEmbedding")
        if len(inputs_shape) not in (4, 5) or None in inputs_shape[1:]:
            raise ValueError(
                "PositionEmbedding: inputs must have shape (B, H, W, C) or (B, T, H, W, C) with "
                f"all but B known. Received: shape={tuple(inputs_shape)}"
            )
        self.table = self.add_weight(
            shape=inputs_shape[1:],
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="table",
        )

    def call(self, inputs):
        return inputs + self.table

    def compute_output_shape(self, inputs_shape):
        return inputs_shape

    def save_own_variables(self, store):
        store["table"] = keras.ops.convert_to_numpy(self.table)

    def load_own_variables(self, store):
        self.table.assign(resize_positions(np.array(store["table"]), self.table.shape[:-1]))


def resize_positions(table, grid):
    """Resize a table of positions to another grid, linearly with aligned corners.

    The corners of the old grid fall on the corners of the new one, as in the JAX ViT. A 2-D table
    that goes to a 3-D grid is resized in space and repeated for every frame, as ViViT does.

    Args:
        table: Array of shape (H, W, C) or (T, H, W, C).
        grid: The new `(H, W)` or `(T, H, W)`.

    Returns:
        Array of shape (*grid, C), of the type of the table.

    Raises:
        ValueError: If a table of a video is resized to the grid of an image.

    Example:

    >>> resize_positions(np.array([[[0.0], [1.0]]]), (1, 3)).ravel().tolist()
    [0.0, 0.5, 1.0]
    """
    table = np.asarray(table)
    if len(grid) < table.ndim - 1:
        raise ValueError(
            "PositionEmbedding: positions of a video cannot be resized to the grid of an image. "
            f"Received: a table of shape {table.shape} for grid={tuple(grid)}"
        )
    if len(grid) > table.ndim - 1:
        table = np.repeat(table[None], grid[0], axis=0)
    for axis, size in enumerate(grid):
        table = _resize_axis(table, axis, size)
    return table


def _resize_axis(table, axis, size):
    old = table.shape[axis]
    if old == size:
        return table
    place = np.linspace(0, old - 1, size)
    low = np.minimum(place.astype(int), old - 1)
    high = np.minimum(low + 1, old - 1)
    shape = [-1 if index == axis else 1 for index in range(table.ndim)]
    weight = (place - low).astype(table.dtype).reshape(shape)
    return np.take(table, low, axis) * (1 - weight) + np.take(table, high, axis) * weight
