import keras
from keras import layers, ops

from keras_tokenlearner._checks import (
    check_bool,
    check_channels_last,
    check_choice,
    check_int,
    check_positive,
    check_rate,
)
from keras_tokenlearner.layers import activations
from keras_tokenlearner.layers.composite import CompositeLayer
from keras_tokenlearner.layers.grids import (
    check_grid,
    flatten_grid,
    resolve_grid,
    restore_grid,
    to_frames,
    to_volume,
)
from keras_tokenlearner.layers.mlp import MLP


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class TokenLearner(CompositeLayer):
    """Learns a few tokens from every image or frame, each a weighted pool of its pixels.

    For frame `X_t` of H x W positions, token i is (Eq. 1 of the paper)

    `z_i = rho(X_t * gamma(alpha_i(X_t)))`

    where `alpha_i` computes a map of H x W weights, `gamma` broadcasts it over the channels and
    `rho` is the spatial average. Here both are one contraction over positions,
    `z[s, c] = sum_n map[n, s] x[n, c]`, which never builds the weighted (S, H * W, C) tensor. The
    maps are computed from the normalised input and weight the input as it came.

    Two forms of `alpha` exist. `"conv"`, the paper's: LayerNorm, `num_convs` convolutions of
    `kernel_size` without bias, C -> S -> ... -> S, gelu between them, sigmoid. `"mlp"`, the
    authors' later one: LayerNorm, an MLP over the channels C -> `bottleneck_dim` -> S, softmax
    over the positions. The paper's text has no LayerNorm: `use_norm=False` is its literal reading.

    Args:
        num_tokens: Integer, tokens to learn from each frame (S). Defaults to 8.
        attention: `"conv"` or `"mlp"`, the form of `alpha`.
        pooling: `"mean"`, as the paper writes, or `"sum"`, as the released code does: H * W times
            as much. It applies to the sigmoid maps; softmax maps sum to one, so that their
            weighted sum is a mean already.
        over: `"frame"` learns maps on every frame apart and gives S tokens a frame;
            `"space_time"` learns maps on the whole (T, H, W) volume and gives S tokens in all,
            which the paper leaves as future work.
        grid: `(H, W)` or `(T, H, W)`, the layout of inputs of shape (B, N, C).
        num_convs: Integer, how many convolutions `"conv"` has. The paper uses 4 in ViT and 1 in
            its bottleneck networks.
        kernel_size: Integer, their size along every axis.
        bottleneck_dim: Integer, hidden units of `"mlp"`.
        activation: Name or callable, the activation inside `alpha`.
        dropout: Float in [0, 1), the dropout rate of `"mlp"`.
        epsilon: Float, of the LayerNorm.
        use_norm: Boolean, whether `alpha` starts with a LayerNorm.
        **kwargs: Name, dtype and the like, for `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of shape (B, H, W, C), (B, T, H, W, C), or (B, N, C) with a `grid`. H, W and
            T may be unknown when the model is built.
        training: Boolean, whether to drop.
        return_maps: Boolean, whether to return the maps as well.

    Returns:
        Tokens of shape (B, S, C), or (B, T * S, C), frame after frame, for a video learned
        `over="frame"`. With `return_maps=True` a pair, with the maps second: the shape of the
        inputs with S in place of C.

    Raises:
        ValueError: If an argument is out of range or the inputs do not fit the grid.

    Example:

    >>> images = keras.random.normal((2, 14, 14, 32))
    >>> tokens, maps = TokenLearner(num_tokens=8)(images, return_maps=True)
    >>> tuple(tokens.shape), tuple(maps.shape)
    ((2, 8, 32), (2, 14, 14, 8))

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 2.1.
    """

    def __init__(
        self,
        num_tokens=8,
        attention="conv",
        pooling="mean",
        over="frame",
        grid=None,
        num_convs=4,
        kernel_size=3,
        bottleneck_dim=64,
        activation="gelu_tanh",
        dropout=0.0,
        epsilon=1e-6,
        use_norm=True,
        **kwargs,
    ):
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

    def build(self, inputs_shape):
        resolve_grid("TokenLearner", inputs_shape, self.grid)
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
                dtype=self.dtype_policy,
                name="mlp",
            )
            self.mlp.build((None, None, channels))
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

    def call(self, inputs, training=None, return_maps=False):
        grid = resolve_grid("TokenLearner", inputs.shape, self.grid)
        pixels = (to_frames if self.over == "frame" else to_volume)(inputs, grid)
        maps = self._attend(pixels, training)
        x, weights = flatten_grid(pixels), flatten_grid(maps)
        if self.compute_dtype == "float16":  # which holds no sum above 65504, nor such a count
            x, weights = ops.cast(x, "float32"), ops.cast(weights, "float32")
        tokens = ops.matmul(ops.transpose(weights, (0, 2, 1)), x)  # (B or B * T, S, C)
        if self.attention == "conv" and self.pooling == "mean":
            count = ops.shape(x)[1]  # an integer where it is known: no copy to a GPU to wait for
            tokens = tokens / (count if isinstance(count, int) else ops.cast(count, tokens.dtype))
        tokens = ops.cast(tokens, self.compute_dtype)
        if self.over == "frame" and len(inputs.shape) != 4:
            tokens = ops.reshape(tokens, (ops.shape(inputs)[0], -1, inputs.shape[-1]))
        return (tokens, restore_grid(maps, inputs)) if return_maps else tokens

    def _attend(self, pixels, training):
        """Return the maps of (B, ..., C) pixels, (B, ..., S)."""
        x = self.norm(pixels) if self.use_norm else pixels
        if self.attention == "conv":
            for conv in self.convs:
                x = conv(x)
            return x
        x = self.mlp(x, training=training)
        return restore_grid(ops.softmax(flatten_grid(x), axis=1), x)

    def compute_output_shape(self, inputs_shape):
        frames = 1
        if self.over == "frame":
            frames = resolve_grid("TokenLearner", inputs_shape, self.grid)[0]
        count = None if frames is None else frames * self.num_tokens
        return (inputs_shape[0], count, inputs_shape[-1])

    def compute_output_spec(self, inputs, training=None, return_maps=False):
        shape = self.compute_output_shape(inputs.shape)
        tokens = keras.KerasTensor(shape, dtype=self.compute_dtype)
        if not return_maps:
            return tokens
        maps_shape = (*inputs.shape[:-1], self.num_tokens)
        return tokens, keras.KerasTensor(maps_shape, dtype=self.compute_dtype)

    def get_config(self):
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
        }
