import keras
from keras import layers, ops

from keras_tokenlearner.layers import MLP


class Reconstruction(layers.Layer):
    """Reconstructs all tokens of a teacher's block from a student's tokens, in training only.

    `y = K^T x` maps M tokens to N tokens with a learned M x N matrix K. The output is
    `y + MLP(LayerNorm(y))`, over the channels. Prefix tokens stay unchanged. A call with
    fewer than M tokens uses the first rows of K.

    Args:
        num_patches: Integer, tokens to reconstruct (N).
        num_prefix_tokens: Integer, number of prefix tokens: class token and registers (P).
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, P + M, C).

    Returns:
        Tensor of shape (B, P + N, C).

    Example:

    >>> tokens = keras.random.normal((2, 1 + 4, 32))
    >>> tuple(Reconstruction(num_patches=16, num_prefix_tokens=1)(tokens).shape)
    (2, 17, 32)

    Source: Zong et al., "Self-slimmed Vision Transformer", 2022.
    """

    def __init__(
        self,
        num_patches: int,
        num_prefix_tokens: int = 0,
        **kwargs: str | keras.DTypePolicy,
    ) -> None:
        super().__init__(**kwargs)
        self.num_patches = num_patches
        self.num_prefix_tokens = num_prefix_tokens

    def build(self, inputs_shape: tuple[int | None, int, int]) -> None:
        channels, tokens = inputs_shape[-1], inputs_shape[1] - self.num_prefix_tokens
        self.kernel = self.add_weight(
            shape=(tokens, self.num_patches), initializer="glorot_uniform", name="kernel"
        )
        self.norm = layers.LayerNormalization(dtype=self.dtype_policy, name="norm")
        self.norm.build((None, None, channels))
        self.mlp = MLP(channels, dtype=self.dtype_policy, name="mlp")
        self.mlp.build((None, None, channels))

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        prefix, patches = inputs[:, : self.num_prefix_tokens], inputs[:, self.num_prefix_tokens :]
        kernel = ops.cast(self.kernel[: patches.shape[1]], inputs.dtype)
        y = ops.einsum("bmc,mn->bnc", patches, kernel)
        y = y + self.mlp(self.norm(y))
        return ops.concatenate([prefix, y], axis=1) if self.num_prefix_tokens else y

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (inputs_shape[0], self.num_prefix_tokens + self.num_patches, inputs_shape[2])
