import keras
from keras import ops

from keras_tokenlearner._checks import check_channels_last, check_choice, check_int
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers.composite import CompositeLayer
from keras_tokenlearner.layers.grids import flatten_grid, restore_grid
from keras_tokenlearner.layers.self_attention import SelfAttention
from keras_tokenlearner.layers.vector_attention import VectorAttention


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class SpaceTimeAttention(CompositeLayer):
    """Self-attention of a video over space, time or both, as in Tables 11 and 12 of the paper.

    Every position of every frame is a token. With `over="spatial"`, a token attends to the H * W
    tokens of its frame. With `"temporal"`, a token attends to the T tokens of its position. With
    `"joint"`, a token attends to all T * H * W tokens. The layer has no residual, bias or output
    projection, because the bottleneck unit around it has them.

    `"joint"` with `"multi_head"` holds `num_heads` tables of (T * H * W) x (T * H * W) weights per
    example: half a gigabyte at the paper's 4096 tokens. The paper compares its modules with this
    joint multi-head attention.

    Args:
        over: `"spatial"`, `"temporal"` or `"joint"`, the tokens that attend to each other.
        attention: `"multi_head"`, a `SelfAttention`, or `"vector"`, a `VectorAttention` without
            bias.
        num_heads: Integer, heads of `"multi_head"`.
        key_dim: Integer, channels of the queries of `"multi_head"`, all heads together.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, T, H, W, C). T, H and W may be unknown when the model is built.

    Returns:
        Tensor of the shape of the inputs.

    Raises:
        ValueError: If an argument is out of range, or the inputs are not a video.

    Example:

    >>> video = keras.random.normal((2, 4, 7, 7, 32))
    >>> tuple(SpaceTimeAttention("temporal", num_heads=4, key_dim=8)(video).shape)
    (2, 4, 7, 7, 32)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 6.3. Spatial then temporal: Bertasius et al., "Is Space-Time Attention All You
    Need for Video Understanding?", 2021.
    """

    def __init__(
        self,
        over: str,
        attention: str = "multi_head",
        num_heads: int = 8,
        key_dim: int = 128,
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(**kwargs)
        owner = "SpaceTimeAttention"
        check_channels_last(owner)
        self.over = check_choice(owner, "over", over, ("spatial", "temporal", "joint"))
        self.attention = check_choice(owner, "attention", attention, ("multi_head", "vector"))
        self.num_heads = check_int(owner, "num_heads", num_heads)
        self.key_dim = check_int(owner, "key_dim", key_dim)

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        if len(inputs_shape) != 5 or inputs_shape[-1] is None:
            raise ValueError(
                "SpaceTimeAttention: inputs must have shape (B, T, H, W, C) with known C, the "
                f"channels. Received: shape={tuple(inputs_shape)}"
            )
        if self.attention == "vector":
            self.attend = VectorAttention(use_bias=False, dtype=self.dtype_policy, name="attend")
        else:
            self.attend = SelfAttention(
                self.num_heads, self.key_dim, dtype=self.dtype_policy, name="attend"
            )
        self.attend.build((None, None, inputs_shape[-1]))

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        if self.over == "joint":
            return restore_grid(self.attend(flatten_grid(inputs)), inputs)
        batch, frames, height, width = ops.shape(inputs)[:4]
        channels = inputs.shape[-1]
        if self.over == "spatial":
            x = self.attend(ops.reshape(inputs, (-1, height * width, channels)))
            return ops.reshape(x, (batch, frames, height, width, channels))
        x = ops.reshape(ops.transpose(inputs, (0, 2, 3, 1, 4)), (-1, frames, channels))
        x = ops.reshape(self.attend(x), (batch, height, width, frames, channels))
        return ops.transpose(x, (0, 3, 1, 2, 4))

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return inputs_shape

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "over": self.over,
            "attention": self.attention,
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
        }
