"""The paper's four alternatives to the TokenLearner.

Each layer can replace a `TokenLearner`. Inputs are (B, H, W, C), (B, T, H, W, C), or (B, N, C) with
a `grid`. Outputs are (B, T * S, C), frame after frame.
"""

import math

import keras
import numpy as np
from keras import layers, ops

from keras_tokenlearner._checks import Shape, check_channels_last, check_int, check_ints
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers import activations
from keras_tokenlearner.layers.composite import CompositeLayer
from keras_tokenlearner.layers.grids import (
    check_built,
    check_grid,
    flatten_grid,
    resolve_grid,
    to_frames,
)
from keras_tokenlearner.layers.mlp import MLP


class FrameTokenizer(CompositeLayer):
    """Base class of layers that map every frame, (B * T, H, W, C), to S tokens, (B * T, S, C).

    Subclasses implement `build_frames(height, width, channels)`, `tokenize(frames)` and
    `tokens_per_frame(height, width)`. `build_frames` sets `built_for` in layers for only one size
    of frames.

    Args:
        grid: `(H, W)` or `(T, H, W)`, the layout of inputs of shape (B, N, C).
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.
    """

    def __init__(
        self, grid: tuple[int, ...] | None = None, **kwargs: str | bool | keras.DTypePolicy | None
    ) -> None:
        super().__init__(**kwargs)
        check_channels_last(type(self).__name__)
        self.built_for: tuple[int, int] | None = None
        self.grid = check_grid(type(self).__name__, grid)

    def _resolve(self, shape: Shape) -> tuple[int | None, int, int]:
        frames, height, width = resolve_grid(type(self).__name__, shape, self.grid)
        if height is None or width is None:
            raise ValueError(
                f"{type(self).__name__}: height and width of the inputs must be known. "
                f"Received: shape={tuple(shape)}"
            )
        return frames, height, width

    def _resolve_as_built(self, shape: Shape) -> tuple[int | None, int, int]:
        """Return the grid of the inputs. Raise `ValueError` if the layer needs another grid."""
        frames, height, width = self._resolve(shape)
        if self.built:
            check_built(type(self).__name__, self.built_for, (height, width))
        return frames, height, width

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        _, height, width = self._resolve(inputs_shape)
        self.build_frames(height, width, inputs_shape[-1])

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        frames, height, width = grid = self._resolve_as_built(inputs.shape)
        tokens = self.tokenize(to_frames(inputs, grid))
        # With an empty batch, backends cannot infer the length.
        length = -1 if frames is None else frames * self.tokens_per_frame(height, width)
        return ops.reshape(tokens, (ops.shape(inputs)[0], length, inputs.shape[-1]))

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        frames, height, width = self._resolve_as_built(inputs_shape)
        count = self.tokens_per_frame(height, width)
        return (inputs_shape[0], None if frames is None else frames * count, inputs_shape[-1])

    def get_config(self) -> dict[str, JSON]:
        return {**super().get_config(), "grid": self.grid}


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class SpatialPooling(FrameTokenizer):
    """Reduces the tokens of each frame by average pooling on their grid (Table 5 of the paper).

    Args:
        pool_size: `(height, width)` of the window and its stride, in tokens. Rows and columns that
            do not fill a window are omitted.
        grid: `(H, W)` or `(T, H, W)`, the layout of inputs of shape (B, N, C).
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, H, W, C), (B, T, H, W, C), or (B, N, C) with a `grid`.

    Returns:
        Tensor of shape (B, T * S, C), with S = (H // pool height) * (W // pool width).

    Raises:
        ValueError: If an argument is out of range or a frame is smaller than the window.

    Example:

    >>> images = keras.random.normal((2, 14, 14, 32))
    >>> tuple(SpatialPooling((7, 7))(images).shape)
    (2, 4, 32)
    """

    def __init__(
        self,
        pool_size: tuple[int, ...] = (2, 2),
        grid: tuple[int, ...] | None = None,
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(grid, **kwargs)
        self.pool_size = check_ints("SpatialPooling", "pool_size", pool_size, lengths=(2,))

    def build_frames(self, height: int, width: int, channels: int) -> None:
        self.tokens_per_frame(height, width)  # raises an error for a small frame
        self.pool = layers.AveragePooling2D(
            self.pool_size, data_format="channels_last", dtype=self.dtype_policy, name="pool"
        )

    def tokenize(self, frames: keras.KerasTensor) -> keras.KerasTensor:
        return flatten_grid(self.pool(frames))

    def tokens_per_frame(self, height: int, width: int) -> int:
        count = (height // self.pool_size[0]) * (width // self.pool_size[1])
        if not count:
            raise ValueError(
                "SpatialPooling: `pool_size` must fit into a frame. "
                f"Received: pool_size={self.pool_size} for a grid of {(height, width)}"
            )
        return count

    def get_config(self) -> dict[str, JSON]:
        return {**super().get_config(), "pool_size": self.pool_size}


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class FixedGrid(FrameTokenizer):
    """Divides each frame into a grid of cells, and averages each cell to a token (section 6.3).

    `num_tokens` is the product of the numbers of rows and columns of cells. The layer chooses the
    two numbers that make the cells closest to square. Neighbouring cells overlap if the number of
    rows or columns does not divide the frame.

    Args:
        num_tokens: Integer, cells and therefore tokens of each frame (S).
        grid: `(H, W)` or `(T, H, W)`, the layout of inputs of shape (B, N, C).
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, H, W, C), (B, T, H, W, C), or (B, N, C) with a `grid`.

    Returns:
        Tensor of shape (B, T * S, C), cells in row-major order.

    Raises:
        ValueError: If `num_tokens` is not a product of two numbers that fit into the grid. Also if
            the height or width differs from the size for which the layer was built.

    Example:

    >>> images = keras.random.normal((2, 14, 14, 32))
    >>> tuple(FixedGrid(8)(images).shape)
    (2, 8, 32)
    """

    def __init__(
        self,
        num_tokens: int = 8,
        grid: tuple[int, ...] | None = None,
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(grid, **kwargs)
        self.num_tokens = check_int("FixedGrid", "num_tokens", num_tokens)

    def build_frames(self, height: int, width: int, channels: int) -> None:
        cells = [
            (rows, self.num_tokens // rows)
            for rows in range(1, self.num_tokens + 1)
            if self.num_tokens % rows == 0 and rows <= height and self.num_tokens // rows <= width
        ]
        if not cells:
            raise ValueError(
                f"FixedGrid: `num_tokens` must be rows times columns, with at most {height} rows "
                f"and {width} columns. Received: num_tokens={self.num_tokens} for a grid of "
                f"{(height, width)}"
            )

        def elongation(size: tuple[int, int]) -> float:
            ratio = (height / size[0]) / (width / size[1])
            return max(ratio, 1 / ratio)

        rows, columns = min(cells, key=elongation)
        self.cells = np.kron(_averages(rows, height), _averages(columns, width))  # (S, H * W)
        self.built_for = (height, width)

    def tokenize(self, frames: keras.KerasTensor) -> keras.KerasTensor:
        return ops.matmul(ops.cast(self.cells, frames.dtype), flatten_grid(frames))

    def tokens_per_frame(self, height: int, width: int) -> int:
        return self.num_tokens

    def get_config(self) -> dict[str, JSON]:
        return {**super().get_config(), "num_tokens": self.num_tokens}


def _averages(cells: int, size: int) -> np.ndarray:
    """Return the matrix (cells, size) that averages the cells of an axis.

    Fractional borders of cells are rounded outwards, so neighbouring cells overlap. The matrix
    replaces `layers.AdaptiveAveragePooling2D`, which returns NaN on JAX for some sizes, such as 7
    cells of 14 positions.
    """
    matrix = np.zeros((cells, size), "float32")
    for cell in range(cells):
        window = slice(cell * size // cells, -(-(cell + 1) * size // cells))
        matrix[cell, window] = 1 / (window.stop - window.start)
    return matrix


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class DirectTokens(FrameTokenizer):
    """Generates the tokens of each frame by one dense layer over the whole frame (section 6.3).

    `z = W vec(X_t) + b`, from H * W * C values to S * C. The number of weights grows with the grid.

    Args:
        num_tokens: Integer, tokens of each frame (S).
        grid: `(H, W)` or `(T, H, W)`, the layout of inputs of shape (B, N, C).
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, H, W, C), (B, T, H, W, C), or (B, N, C) with a `grid`.

    Returns:
        Tensor of shape (B, T * S, C).

    Raises:
        ValueError: If an argument is out of range or the inputs do not fit the grid. Also if the
            height or width differs from the size for which the layer was built.

    Example:

    >>> images = keras.random.normal((2, 4, 4, 16))
    >>> tuple(DirectTokens(8)(images).shape)
    (2, 8, 16)
    """

    def __init__(
        self,
        num_tokens: int = 8,
        grid: tuple[int, ...] | None = None,
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(grid, **kwargs)
        self.num_tokens = check_int("DirectTokens", "num_tokens", num_tokens)

    def build_frames(self, height: int, width: int, channels: int) -> None:
        self.dense = layers.Dense(self.num_tokens * channels, dtype=self.dtype_policy, name="dense")
        self.dense.build((None, height * width * channels))
        self.built_for = (height, width)

    def tokenize(self, frames: keras.KerasTensor) -> keras.KerasTensor:
        size = math.prod(frames.shape[1:])
        return self.dense(ops.reshape(frames, (ops.shape(frames)[0], size)))

    def tokens_per_frame(self, height: int, width: int) -> int:
        return self.num_tokens

    def get_config(self) -> dict[str, JSON]:
        return {**super().get_config(), "num_tokens": self.num_tokens}


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class PooledTokens(FrameTokenizer):
    """Averages each frame to one vector and generates its tokens by an MLP (section 6.3).

    `z = MLP(mean_n X_t[n])`, from C values to S * C. The tokens do not depend on positions.

    Args:
        num_tokens: Integer, tokens of each frame (S).
        grid: `(H, W)` or `(T, H, W)`, the layout of inputs of shape (B, N, C).
        mlp_dim: Integer, hidden units of the MLP. Defaults to the channels.
        activation: Name or callable, the activation of the MLP.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, H, W, C), (B, T, H, W, C), or (B, N, C) with a `grid`.

    Returns:
        Tensor of shape (B, T * S, C).

    Raises:
        ValueError: If an argument is out of range or the inputs do not fit the grid.

    Example:

    >>> images = keras.random.normal((2, 14, 14, 32))
    >>> tuple(PooledTokens(8)(images).shape)
    (2, 8, 32)
    """

    def __init__(
        self,
        num_tokens: int = 8,
        grid: tuple[int, ...] | None = None,
        mlp_dim: int | None = None,
        activation: activations.Activation = "gelu_tanh",
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(grid, **kwargs)
        self.num_tokens = check_int("PooledTokens", "num_tokens", num_tokens)
        self.mlp_dim = mlp_dim
        if mlp_dim is not None:
            self.mlp_dim = check_int("PooledTokens", "mlp_dim", mlp_dim)
        self.activation = activations.get(activation, "PooledTokens")

    def build_frames(self, height: int, width: int, channels: int) -> None:
        self.mlp = MLP(
            self.mlp_dim or channels,
            self.num_tokens * channels,
            activation=self.activation,
            dtype=self.dtype_policy,
            name="mlp",
        )
        self.mlp.build((None, channels))

    def tokenize(self, frames: keras.KerasTensor) -> keras.KerasTensor:
        return self.mlp(ops.mean(ops.cast(frames, "float32"), axis=(1, 2)))  # sums overflow float16

    def tokens_per_frame(self, height: int, width: int) -> int:
        return self.num_tokens

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "num_tokens": self.num_tokens,
            "mlp_dim": self.mlp_dim,
            "activation": activations.serialize(self.activation),
        }
