import math
from collections.abc import Sequence

import keras
from keras import layers, ops

from keras_tokenlearner._checks import check_channels_last, check_int, check_pairs, check_positive
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers import activations
from keras_tokenlearner.layers.composite import CompositeLayer
from keras_tokenlearner.layers.grids import to_frames


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class ConvStem(CompositeLayer):
    """Turns images, or each frame of videos, into tokens by a few small convolutions.

    A LayerNorm over the channels and an activation follow each 3 x 3 convolution. Then a 1 x 1
    convolution projects to C channels. The product of the strides is the patch size in pixels. The
    stem replaces the patch embedding, a single convolution. Transformers with the stem learn
    faster, above all from few images.

    Args:
        hidden_dim: Integer, channels of the tokens (C).
        convs: Tuple of `(filters, stride)`, one for each 3 x 3 convolution.
        activation: Name or callable, the activation after each 3 x 3 convolution.
        layer_norm_epsilon: Float, the epsilon of the LayerNorms.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Images, a tensor of shape (B, height, width, channels), or videos, (B, T, height,
            width, channels).

    Returns:
        Tensor of shape (B, H, W, C) or (B, T, H, W, C). H and W are the height and width divided by
        the product of the strides, rounded up.

    Raises:
        ValueError: If an argument is out of range or the inputs are neither images nor videos.

    Example:

    >>> images = keras.random.normal((2, 64, 96, 3))
    >>> stem = ConvStem(32, convs=((8, 2), (16, 2), (16, 1), (32, 4)))
    >>> tuple(stem(images).shape)
    (2, 4, 6, 32)

    Source: Xiao et al., "Early Convolutions Help Transformers See Better", 2021. The stem of
    this source has batch normalisation and ReLU after each convolution.
    """

    def __init__(
        self,
        hidden_dim: int,
        convs: Sequence[Sequence[int]],
        activation: activations.Activation = "gelu_tanh",
        layer_norm_epsilon: float = 1e-6,
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(**kwargs)
        check_channels_last("ConvStem")
        self.hidden_dim = check_int("ConvStem", "hidden_dim", hidden_dim)
        self.convs = check_pairs("ConvStem", "convs", convs)
        self.activation = activations.get(activation, "ConvStem")
        self.layer_norm_epsilon = check_positive(
            "ConvStem", "layer_norm_epsilon", layer_norm_epsilon
        )

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        if len(inputs_shape) not in (4, 5) or inputs_shape[-1] is None:
            raise ValueError(
                "ConvStem: inputs must have shape (B, H, W, C) or (B, T, H, W, C) with known C, "
                f"the channels. Received: shape={tuple(inputs_shape)}"
            )
        shape = (None, None, None, inputs_shape[-1])
        self.conv_layers, self.norm_layers = [], []
        for index, (filters, stride) in enumerate(self.convs):
            conv = self._conv(filters, 3, stride, name=f"conv_{index}", use_bias=False)
            norm = layers.LayerNormalization(
                epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name=f"norm_{index}"
            )
            conv.build(shape)
            shape = (*shape[:3], filters)
            norm.build(shape)
            self.conv_layers.append(conv)
            self.norm_layers.append(norm)
        self.projection = self._conv(self.hidden_dim, 1, 1, name="projection")
        self.projection.build(shape)

    def _conv(self, filters: int, size: int, stride: int, **kwargs: str | bool) -> layers.Conv2D:
        return layers.Conv2D(
            filters,
            size,
            strides=stride,
            padding="same",
            kernel_initializer="lecun_normal",
            data_format="channels_last",
            dtype=self.dtype_policy,
            **kwargs,
        )

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        x = to_frames(inputs, grid=None)
        for conv, norm in zip(self.conv_layers, self.norm_layers, strict=True):
            x = self.activation(norm(conv(x)))
        x = self.projection(x)
        return ops.reshape(x, (*ops.shape(inputs)[:-3], *ops.shape(x)[1:]))

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        pixels = math.prod(stride for _, stride in self.convs)
        grid = (None if size is None else -(-size // pixels) for size in inputs_shape[-3:-1])
        return (*inputs_shape[:-3], *grid, self.hidden_dim)

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "convs": self.convs,
            "activation": activations.serialize(self.activation),
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
