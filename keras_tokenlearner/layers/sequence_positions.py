import math
from typing import cast

import keras
import numpy as np
from keras import layers, ops

from keras_tokenlearner._checks import check_channels_last
from keras_tokenlearner.layers.grids import check_built


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class SequencePositions(layers.Layer):
    """Adds sines and cosines of each token's index in the sequence. The layer has no weights.

    Tokens are counted frame after frame and row after row. Channel 2 k of token `n` gets
    `sin(n / 10000^(2 k / C))`, and channel 2 k + 1 gets the cosine of the same angle.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, H, W, C) or (B, T, H, W, C). Only B may be None.

    Returns:
        Tensor of the shape of the inputs.

    Raises:
        ValueError: If the size of the grid is not known when the layer is built. Also if a later
            call has inputs of other sizes or another number of axes.

    Example:

    >>> x = keras.random.normal((2, 8, 4, 6, 32))
    >>> tuple(SequencePositions()(x).shape)
    (2, 8, 4, 6, 32)

    Source: Vaswani et al., "Attention Is All You Need", 2017; for videos, Tong et al.,
    "VideoMAE", 2022.
    """

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        check_channels_last("SequencePositions")
        if len(inputs_shape) not in (4, 5) or None in inputs_shape[1:]:
            raise ValueError(
                "SequencePositions: inputs must have shape (B, H, W, C) or (B, T, H, W, C). All "
                f"sizes except B must be known. Received: shape={tuple(inputs_shape)}"
            )
        *grid, channels = cast(tuple[int, ...], inputs_shape[1:])
        places = np.arange(math.prod(grid))[:, None]
        angles = places / 10000.0 ** (2 * (np.arange(channels) // 2) / channels)
        table = np.where(np.arange(channels) % 2, np.cos(angles), np.sin(angles))
        self.table = table.reshape(*grid, channels).astype("float32")

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        check_built("SequencePositions", self.table.shape, inputs.shape[1:])
        return inputs + ops.cast(self.table, inputs.dtype)

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        if self.built:
            check_built("SequencePositions", self.table.shape, inputs_shape[1:])
        return inputs_shape
