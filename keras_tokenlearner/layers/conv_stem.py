import keras
from keras import layers

from keras_tokenlearner.layers import activations
from keras_tokenlearner.layers.checks import check_channels, check_channels_last, check_int


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class ConvStem(layers.Layer):
    """Turns images into tokens by a few small convolutions, in place of one of large patches.

    Convolutions of 3 x 3 and stride 2, each followed by an activation and with twice the channels
    of the one before, until a token stands for `patch_size` pixels and has C / 2 channels; then a
    projection to C by a 1 x 1 convolution.
    Transformers learn faster behind such a stem, above all from few images.

    Args:
        hidden_size: Integer, channels of the tokens (C).
        patch_size: Integer, a power of two from 2: pixels of an image for each token and axis.
        activation: Name or callable, after each convolution but the projection.
        **kwargs: Name, dtype and the like, for `keras.layers.Layer`.

    Call arguments:
        inputs: Images, a tensor of shape (B, height, width, channels).

    Returns:
        Tensor of shape (B, H, W, C), with H the height over `patch_size`, rounded up.

    Raises:
        ValueError: If an argument is out of range or the inputs are no images.

    Example:

    >>> images = keras.random.normal((2, 64, 96, 3))
    >>> tuple(ConvStem(32, 16)(images).shape)
    (2, 4, 6, 32)

    Source: Xiao et al., "Early Convolutions Help Transformers See Better", 2021; there with batch
    normalisation after each convolution.
    """

    def __init__(self, hidden_size, patch_size=16, activation="gelu_tanh", **kwargs):
        super().__init__(**kwargs)
        check_channels_last("ConvStem")
        self.hidden_size = check_int("ConvStem", "hidden_size", hidden_size)
        self.patch_size = check_int("ConvStem", "patch_size", patch_size, minimum=2)
        if patch_size & (patch_size - 1):
            raise ValueError(
                f"ConvStem: `patch_size` must be a power of two. Received: patch_size={patch_size}"
            )
        self.activation = activations.get(activation, "ConvStem")

    def build(self, inputs_shape):
        count = self.patch_size.bit_length() - 1
        self.convs = []
        shape = (None, None, None, check_channels("ConvStem", inputs_shape, rank=4))
        for index in range(count + 1):
            last = index == count
            conv = layers.Conv2D(
                self.hidden_size if last else max(self.hidden_size >> (count - index), 1),
                1 if last else 3,
                strides=1 if last else 2,
                padding="same",
                activation=None if last else self.activation,
                kernel_initializer="lecun_normal",
                data_format="channels_last",
                dtype=self.dtype_policy,
                name=f"conv_{index}",
            )
            conv.build(shape)
            shape = (None, None, None, conv.filters)
            self.convs.append(conv)

    def call(self, inputs):
        x = inputs
        for conv in self.convs:
            x = conv(x)
        return x

    def compute_output_shape(self, inputs_shape):
        grid = (None if size is None else -(-size // self.patch_size) for size in inputs_shape[1:3])
        return (inputs_shape[0], *grid, self.hidden_size)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "patch_size": self.patch_size,
            "activation": activations.serialize(self.activation),
        }
