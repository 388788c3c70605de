import keras
from keras import layers, ops

from keras_tokenlearner.layers.composite import CompositeLayer


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class PriorAttention(CompositeLayer):
    """Attention with learned weights for each pair of positions, the same for all inputs.

    `y_i = sum_j softmax_j(p[i, j]) f_v(x_j)` with a learned table p of N x N and a linear `f_v`
    without bias. Table 13 of the paper lists "prior-only attention" without a definition. We
    interpret it as vector attention without queries and keys, with the same weights for all
    channels.

    Args:
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape (B, N, C), with known N, the size of the table.

    Returns:
        Tensor of the shape of the inputs.

    Raises:
        ValueError: If N or C is not known.

    Example:

    >>> frames = keras.random.normal((2, 16, 32))
    >>> tuple(PriorAttention()(frames).shape)
    (2, 16, 32)
    """

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        if len(inputs_shape) != 3 or None in inputs_shape[1:]:
            raise ValueError(
                "PriorAttention: inputs must have shape (B, N, C) with known N and C. "
                f"Received: shape={tuple(inputs_shape)}"
            )
        _, length, channels = inputs_shape
        self.table = self.add_weight(
            shape=(length, length),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="prior_table",  # tables of positions are named "table", and loading resizes them
        )
        self.value_dense = layers.Dense(
            channels,
            use_bias=False,
            kernel_initializer="glorot_uniform",
            dtype=self.dtype_policy,
            name="value",
        )
        self.value_dense.build(inputs_shape)

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        weights = ops.softmax(ops.cast(self.table, "float32"), axis=-1)  # (N, N)
        return ops.matmul(ops.cast(weights, self.compute_dtype), self.value_dense(inputs))

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return inputs_shape
