import keras
from keras import ops

from keras_tokenlearner._checks import check_channels, check_int
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers.composite import CompositeLayer


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class PrefixTokens(CompositeLayer):
    """Puts learned tokens before a sequence: the class token, or register tokens.

    Args:
        num_tokens: Integer, number of learned tokens (P). Defaults to 1, for a class token.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, N, C).

    Returns:
        Tensor of shape (B, P + N, C).

    Raises:
        ValueError: If `num_tokens` is not a positive integer, or the rank of the inputs is not 3.

    Example:

    >>> tokens = keras.random.normal((2, 196, 32))
    >>> tuple(PrefixTokens()(tokens).shape)
    (2, 197, 32)

    Source: the class token, Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021; registers,
    Darcet et al., "Vision Transformers Need Registers", 2023.
    """

    def __init__(
        self, num_tokens: int = 1, **kwargs: str | bool | keras.DTypePolicy | None
    ) -> None:
        super().__init__(**kwargs)
        self.num_tokens = check_int("PrefixTokens", "num_tokens", num_tokens)

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        channels = check_channels("PrefixTokens", inputs_shape, rank=3)
        self.tokens = self.add_weight(
            shape=(self.num_tokens, channels),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="tokens",
        )

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        shape = (ops.shape(inputs)[0], self.num_tokens, inputs.shape[-1])
        prefix = ops.broadcast_to(ops.cast(self.tokens, inputs.dtype), shape)
        return ops.concatenate([prefix, inputs], axis=1)

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, length, channels = inputs_shape
        return (batch, None if length is None else length + self.num_tokens, channels)

    def get_config(self) -> dict[str, JSON]:
        return {**super().get_config(), "num_tokens": self.num_tokens}
