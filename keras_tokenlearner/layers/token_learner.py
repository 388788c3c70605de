import functools
import math
from collections.abc import Mapping, MutableMapping, Sequence
from typing import cast

import keras
import numpy as np
from keras import layers, ops

from keras_tokenlearner._checks import (
    check_bool,
    check_channels_last,
    check_choice,
    check_int,
    check_positive,
    check_rate,
)
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers import activations
from keras_tokenlearner.layers.cells import ancestors, check_parents, grid_cells
from keras_tokenlearner.layers.composite import CompositeLayer
from keras_tokenlearner.layers.grids import (
    check_built,
    check_grid,
    flatten_grid,
    resolve_grid,
    restore_grid,
    to_frames,
    to_volume,
)
from keras_tokenlearner.layers.mlp import MLP
from keras_tokenlearner.layers.positions import resize_positions

# Initial position bias in a token's own cell. The bias is 0 elsewhere, so weights there are exp(-8)
# times as large: small, but large enough for a gradient.
_OWN_CELL = 8.0


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class TokenLearner(CompositeLayer):
    """Learns a few tokens from every image or frame. Each token is a weighted sum of positions.

    For frame `X_t` of H x W positions, token i is (Eq. 1 of the paper)

    `z_i = rho(X_t * gamma(alpha_i(X_t)))`

    `alpha_i` computes a map of H x W weights. `gamma` broadcasts the map over the channels, and
    `rho` is the spatial average. Here `gamma` and `rho` are one contraction over positions,
    `z[s, c] = sum_n map[n, s] x[n, c]`. For the mean of sigmoid maps, the sum is divided by the
    number of positions. The weighted (S, H * W, C) tensor is never built. The maps are computed
    from the normalised input, but they weight the input itself.

    `alpha` has two forms:

    * `"conv"`, the form of the paper: LayerNorm, `num_convs` convolutions of `kernel_size` without
      bias, C -> S -> ... -> S, gelu between them, sigmoid.
    * `"mlp"`, the form of the authors' later code: LayerNorm, an MLP
      C -> `bottleneck_dim` -> S, softmax over the positions.

    The paper's text has no LayerNorm, as with `use_norm=False`.

    With `position_bias`, the maps of `"mlp"` are `softmax(MLP(LayerNorm(x)) + b)`. The learned bias
    b has a value for each position and token. The positions are divided into S rectangular cells,
    one for each token. The bias of a token starts at 8 in its cell and at 0 elsewhere. The MLP's
    last layer starts at zero. Each token therefore starts as the average of its cell, except for
    relative weights of exp(-8) elsewhere.

    The cells are numbered coarse to fine, see `keras_tokenlearner.layers.cells.grid_cells`. In a
    call for fewer than S tokens, each token also covers cells of omitted tokens. These cells are
    split off from the token's own cell. The first m tokens therefore cover the grid, for any m.
    Loading weights of another grid resizes the bias. The bias keeps the tree of its first grid.

    Args:
        num_tokens: Integer, tokens to learn from each frame (S). Defaults to 8.
        attention: `"conv"` or `"mlp"`, the form of `alpha`.
        pooling: `"mean"`, as in the paper's text, or `"sum"`, as in the released code. A sum is the
            mean times the number of positions. The choice applies to sigmoid maps only, because
            softmax maps sum to one.
        over: `"frame"` learns maps of each frame, and returns S tokens per frame. `"space_time"`
            learns maps of the whole (T, H, W) volume, and returns S tokens per video. The paper
            leaves `"space_time"` for future work.
        grid: `(H, W)` or `(T, H, W)`, the layout of inputs of shape (B, N, C).
        num_convs: Integer, number of convolutions of `"conv"`. The paper uses 4 in ViT and 1 in
            its bottleneck networks.
        kernel_size: Integer, size of the convolutions of `"conv"` along every axis.
        bottleneck_dim: Integer, hidden units of `"mlp"`.
        activation: Name or callable, the activation inside `alpha`.
        dropout: Float in [0, 1), the dropout rate of `"mlp"`.
        epsilon: Float, the epsilon of the LayerNorm.
        use_norm: Boolean, whether `alpha` starts with a LayerNorm.
        position_bias: Boolean, whether the maps of `"mlp"` have the bias b, as above. The bias
            needs known H and W, and for `over="space_time"` known T.
        parents: Sequence of S integers, the tree of cells: cell i is split off from the earlier
            cell `parents[i]`. Defaults to the tree of `grid_cells`. Needs `position_bias=True`.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, H, W, C), (B, T, H, W, C), or (B, N, C) with a `grid`. H, W and
            T may be unknown when the model is built.
        training: Boolean, whether to apply dropout.
        return_maps: Boolean, whether to return the maps too.
        num_tokens: Integer, how many tokens to return, counted from the first. `None` for all
            tokens. A number needs `position_bias=True`.

    Returns:
        Tokens of shape (B, S, C). For videos with `over="frame"`, (B, T * S, C), frame after frame.
        With `return_maps=True`, a pair of tokens and maps. The maps have the shape of the inputs,
        with S instead of C.

    Raises:
        ValueError: If an argument is out of range or the inputs do not fit the grid.

    Example:

    >>> images = keras.random.normal((2, 14, 14, 32))
    >>> tokens, maps = TokenLearner(num_tokens=8)(images, return_maps=True)
    >>> tuple(tokens.shape), tuple(maps.shape)
    ((2, 8, 32), (2, 14, 14, 8))

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 2.1. The position bias is our addition.
    """

    def __init__(
        self,
        num_tokens: int = 8,
        attention: str = "conv",
        pooling: str = "mean",
        over: str = "frame",
        grid: tuple[int, ...] | None = None,
        num_convs: int = 4,
        kernel_size: int = 3,
        bottleneck_dim: int = 64,
        activation: activations.Activation = "gelu_tanh",
        dropout: float = 0.0,
        epsilon: float = 1e-6,
        use_norm: bool = True,
        position_bias: bool = False,
        parents: Sequence[int] | None = None,
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(**kwargs)
        check_channels_last("TokenLearner")
        self.num_tokens = check_int("TokenLearner", "num_tokens", num_tokens)
        self.attention = check_choice("TokenLearner", "attention", attention, ("conv", "mlp"))
        self.pooling = check_choice("TokenLearner", "pooling", pooling, ("mean", "sum"))
        self.over = check_choice("TokenLearner", "over", over, ("frame", "space_time"))
        self.grid = check_grid("TokenLearner", grid)
        self.num_convs = check_int("TokenLearner", "num_convs", num_convs)
        self.kernel_size = check_int("TokenLearner", "kernel_size", kernel_size)
        self.bottleneck_dim = check_int("TokenLearner", "bottleneck_dim", bottleneck_dim)
        self.activation = activations.get(activation, "TokenLearner")
        self.dropout = check_rate("TokenLearner", "dropout", dropout)
        self.epsilon = check_positive("TokenLearner", "epsilon", epsilon)
        self.use_norm = check_bool("TokenLearner", "use_norm", use_norm)
        self.position_bias = check_bool("TokenLearner", "position_bias", position_bias)
        if self.position_bias and self.attention != "mlp":
            raise ValueError(
                "TokenLearner: `position_bias` needs the softmax of attention='mlp'. Received: "
                f"position_bias=True with attention={attention!r}"
            )
        if parents is not None and not self.position_bias:
            raise ValueError(
                "TokenLearner: `parents` needs position_bias=True; set both, or leave `parents` "
                "out. "
                f"Received: parents={parents!r} with position_bias=False"
            )
        self._parents: tuple[int, ...] = ()
        if parents is not None:
            self.parents = parents

    @property
    def parents(self) -> tuple[int, ...]:
        """The tree of cells. Empty without `position_bias`, or before `build` if not passed."""
        return self._parents

    @parents.setter
    def parents(self, value: Sequence[int]) -> None:
        self._parents = check_parents("TokenLearner", value, self.num_tokens)

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        grid = resolve_grid("TokenLearner", inputs_shape, self.grid)
        channels = inputs_shape[-1]
        if self.use_norm:
            self.norm = layers.LayerNormalization(
                epsilon=self.epsilon, dtype=self.dtype_policy, name="norm"
            )
            self.norm.build((None, None, channels))
        if self.attention == "mlp":
            self.mlp = MLP(
                self.bottleneck_dim,
                self.num_tokens,
                activation=self.activation,
                dropout_rate=self.dropout,
                zero_output=self.position_bias,
                dtype=self.dtype_policy,
                name="mlp",
            )
            self.mlp.build((None, None, channels))
            if self.position_bias:
                self._build_bias(inputs_shape, grid)
            return
        rank, conv = (2, layers.Conv2D) if self.over == "frame" else (3, layers.Conv3D)
        self.convs = []
        for index in range(self.num_convs):
            last = index == self.num_convs - 1
            layer = conv(
                self.num_tokens,
                self.kernel_size,
                padding="same",
                data_format="channels_last",
                activation="sigmoid" if last else self.activation,
                use_bias=False,
                kernel_initializer="lecun_normal",
                dtype=self.dtype_policy,
                name=f"conv_{index}",
            )
            layer.build((None, *[None] * rank, self.num_tokens if index else channels))
            self.convs.append(layer)

    def _build_bias(self, shape: tuple[int | None, ...], grid: tuple[int | None, ...]) -> None:
        sizes = cast(tuple[int, ...], grid[1:] if self.over == "frame" else grid)
        if None in sizes or self.num_tokens > math.prod(sizes):
            raise ValueError(
                "TokenLearner: `position_bias` needs a known grid with at least `num_tokens` "
                f"positions. Received: num_tokens={self.num_tokens} for inputs of shape "
                f"{tuple(shape)} with grid={self.grid}, over={self.over!r}"
            )
        cells = grid_cells(sizes, self.num_tokens)
        if not self.parents:
            self.parents = cells.parents

        def start(shape: tuple[int, ...], dtype: str | None = None) -> keras.KerasTensor:
            return ops.convert_to_tensor(_OWN_CELL * cells.masks(sizes), dtype)

        self.bias = self.add_weight(
            shape=(*sizes, self.num_tokens),
            initializer=start,
            autocast=False,  # added in float32
            name="position_bias",
        )

    def _resolve(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the grid of the inputs. Raise `ValueError` if the position bias has another."""
        grid = resolve_grid("TokenLearner", shape, self.grid)
        if self.built and self.position_bias:
            sizes = grid[1:] if self.over == "frame" else grid
            check_built("TokenLearner", self.bias.shape[:-1], sizes)
        return grid

    def bias_of_first(self, count: int) -> keras.KerasTensor:
        """Return the position bias of the first tokens, extended by the cells of omitted tokens.

        Args:
            count: Integer, tokens to keep.

        Returns:
            Tensor of shape (..., count). A kept token's cell includes the cells of omitted tokens
            that were split off from it. The bias is the maximum over these tokens.
        """
        if count == self.num_tokens:
            return ops.convert_to_tensor(self.bias)
        found = ancestors(self.parents, count)
        return ops.stack(
            [
                functools.reduce(
                    ops.maximum, [self.bias[..., i] for i, a in enumerate(found) if a == token]
                )
                for token in range(count)
            ],
            axis=-1,
        )

    def call(
        self,
        inputs: keras.KerasTensor,
        training: bool | None = None,
        return_maps: bool = False,
        num_tokens: int | None = None,
    ) -> keras.KerasTensor | tuple[keras.KerasTensor, keras.KerasTensor]:
        grid = self._resolve(inputs.shape)
        count = self._count(num_tokens)
        pixels = (to_frames if self.over == "frame" else to_volume)(inputs, grid)
        maps = self._attend(pixels, training, count)
        x, weights = flatten_grid(pixels), flatten_grid(maps)
        if self.compute_dtype == "float16":  # sums and counts above 65504 overflow
            x, weights = ops.cast(x, "float32"), ops.cast(weights, "float32")
        tokens = ops.matmul(ops.transpose(weights, (0, 2, 1)), x)  # (B or B * T, S, C)
        if self.attention == "conv" and self.pooling == "mean":
            size = ops.shape(x)[1]  # a Python integer if known, which needs no copy to a GPU
            tokens = tokens / (size if isinstance(size, int) else ops.cast(size, tokens.dtype))
        tokens = ops.cast(tokens, self.compute_dtype)
        if self.over == "frame" and len(inputs.shape) != 4:
            # With an empty batch, backends cannot infer the length.
            length = -1 if grid[0] is None else grid[0] * count
            tokens = ops.reshape(tokens, (ops.shape(inputs)[0], length, inputs.shape[-1]))
        return (tokens, restore_grid(maps, inputs)) if return_maps else tokens

    def _count(self, num_tokens: int | None) -> int:
        """Return the number of tokens that a call returns per frame, or per volume."""
        if num_tokens is None:
            return self.num_tokens
        check_int("TokenLearner", "num_tokens", num_tokens)
        if num_tokens > self.num_tokens or not self.position_bias:
            raise ValueError(
                "TokenLearner: `num_tokens` of a call needs a layer with position_bias=True, and "
                "must be at most the `num_tokens` of the layer. Received: "
                f"num_tokens={num_tokens} for a layer with num_tokens={self.num_tokens}, "
                f"position_bias={self.position_bias}"
            )
        return num_tokens

    def _attend(
        self, pixels: keras.KerasTensor, training: bool | None, count: int
    ) -> keras.KerasTensor:
        """Compute a map for each token: inputs (B, ..., C) give maps (B, ..., count)."""
        x = self.norm(pixels) if self.use_norm else pixels
        if self.attention == "conv":
            for conv in self.convs:
                x = conv(x)
            return x
        # In half precision, a bias of 8 would round away small outputs of the MLP.
        is_half = self.compute_dtype in ("float16", "bfloat16")
        dtype = "float32" if is_half else self.compute_dtype
        x = ops.cast(self.mlp(x, training=training), dtype)
        if self.position_bias:
            x = x[..., :count] + ops.cast(self.bias_of_first(count), dtype)
        maps = ops.softmax(flatten_grid(x), axis=1)
        return ops.cast(restore_grid(maps, x), self.compute_dtype)

    def compute_output_shape(
        self, inputs_shape: tuple[int | None, ...], num_tokens: int | None = None
    ) -> tuple[int | None, ...]:
        frames = self._resolve(inputs_shape)[0]
        if self.over == "space_time":
            frames = 1
        count = None if frames is None else frames * self._count(num_tokens)
        return (inputs_shape[0], count, inputs_shape[-1])

    def compute_output_spec(
        self,
        inputs: keras.KerasTensor,
        training: bool | None = None,
        return_maps: bool = False,
        num_tokens: int | None = None,
    ) -> keras.KerasTensor | tuple[keras.KerasTensor, keras.KerasTensor]:
        shape = self.compute_output_shape(inputs.shape, num_tokens)
        tokens = keras.KerasTensor(shape, dtype=self.compute_dtype)
        if not return_maps:
            return tokens
        maps_shape = (*inputs.shape[:-1], self._count(num_tokens))
        return tokens, keras.KerasTensor(maps_shape, dtype=self.compute_dtype)

    def save_own_variables(self, store: MutableMapping[str, np.ndarray]) -> None:
        if self.position_bias:
            store["position_bias"] = ops.convert_to_numpy(self.bias)
            store["parents"] = np.array(self.parents, "int32")

    def load_own_variables(self, store: Mapping[str, np.ndarray]) -> None:
        if self.position_bias:
            bias = np.array(store["position_bias"])
            self.bias.assign(resize_positions(bias, self.bias.shape[:-1]))
            if "parents" in store:
                self.parents = np.array(store["parents"]).tolist()
            else:  # earlier files have no tree: it is the tree of the grid in the file
                self.parents = grid_cells(bias.shape[:-1], self.num_tokens).parents

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "num_tokens": self.num_tokens,
            "attention": self.attention,
            "pooling": self.pooling,
            "over": self.over,
            "grid": self.grid,
            "num_convs": self.num_convs,
            "kernel_size": self.kernel_size,
            "bottleneck_dim": self.bottleneck_dim,
            "activation": activations.serialize(self.activation),
            "dropout": self.dropout,
            "epsilon": self.epsilon,
            "use_norm": self.use_norm,
            "position_bias": self.position_bias,
            "parents": self.parents or None,
        }
