import keras
from keras import layers

from keras_tokenlearner._checks import check_channels_last, check_int, check_ints
from keras_tokenlearner._json import JSON
from keras_tokenlearner.layers.composite import CompositeLayer


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class PatchEmbedding(CompositeLayer):
    """Cuts images into patches, and projects each patch to a token.

    The tokens keep the grid of the patches. The layer is a convolution whose stride equals its
    kernel size. Rows and columns that do not fill a patch are omitted. For example, 512 pixels in
    patches of 14 give 36 tokens along an axis.

    Args:
        hidden_dim: Integer, channels of the tokens (C).
        patch_size: `(height, width)` of a patch in pixels. Defaults to `(16, 16)`.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Images, a tensor of shape (B, height, width, channels).

    Returns:
        Tensor of shape (B, H, W, C), with `H = height // patch_size[0]`, and W likewise.

    Raises:
        ValueError: If an argument is out of range or an image is smaller than a patch.

    Example:

    >>> images = keras.random.normal((2, 64, 96, 3))
    >>> tuple(PatchEmbedding(32, (16, 16))(images).shape)
    (2, 4, 6, 32)

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021.
    """

    _axes: tuple[str, ...] = ("height", "width")
    _convolution = layers.Conv2D

    def __init__(
        self,
        hidden_dim: int,
        patch_size: tuple[int, ...] = (16, 16),
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(**kwargs)
        owner = type(self).__name__
        check_channels_last(owner)
        self.hidden_dim = check_int(owner, "hidden_dim", hidden_dim)
        self.patch_size = check_ints(owner, "patch_size", patch_size, lengths=(len(self._axes),))

    def build(self, inputs_shape: tuple[int | None, ...]) -> None:
        self._check(inputs_shape)
        self.projection = self._convolution(
            self.hidden_dim,
            self.patch_size,
            strides=self.patch_size,
            padding="valid",
            data_format="channels_last",
            kernel_initializer="lecun_normal",
            dtype=self.dtype_policy,
            name="projection",
        )
        self.projection.build(inputs_shape)

    def _check(self, shape: tuple[int | None, ...]) -> None:
        owner, axes = type(self).__name__, ", ".join(self._axes)
        if len(shape) != len(self._axes) + 2 or shape[-1] is None:
            raise ValueError(
                f"{owner}: inputs must have shape (B, {axes}, channels), with known channels. "
                f"Received: shape={tuple(shape)}"
            )
        sizes = zip(shape[1:-1], self.patch_size, strict=True)
        if any(size is not None and size < patch for size, patch in sizes):
            raise ValueError(
                f"{owner}: inputs must be at least as large as one patch along ({axes}). "
                f"Received: shape={tuple(shape)} with patch_size={self.patch_size}"
            )

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return self.projection(inputs)

    def compute_output_shape(self, inputs_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        self._check(inputs_shape)
        grid = (
            None if size is None else size // patch
            for size, patch in zip(inputs_shape[1:-1], self.patch_size, strict=True)
        )
        return (inputs_shape[0], *grid, self.hidden_dim)

    def get_config(self) -> dict[str, JSON]:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "patch_size": self.patch_size,
        }


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class TubeletEmbedding(PatchEmbedding):
    """Cuts videos into tubelets, patches of several frames, and projects each to a token.

    The layer is a 3-D convolution whose stride equals its kernel size. Pixels that do not fill a
    tubelet are omitted.

    Args:
        hidden_dim: Integer, channels of the tokens (C).
        patch_size: `(frames, height, width)` of a tubelet. Defaults to `(2, 16, 16)`.
        **kwargs: Arguments of `keras.layers.Layer`, for example `name` and `dtype`.

    Call arguments:
        inputs: Videos, a tensor of shape (B, frames, height, width, channels).

    Returns:
        Tensor of shape (B, T, H, W, C), with `T = frames // patch_size[0]`, and H and W likewise.

    Raises:
        ValueError: If an argument is out of range or a video is smaller than a tubelet.

    Example:

    >>> videos = keras.random.normal((2, 8, 64, 96, 3))
    >>> tuple(TubeletEmbedding(32, (2, 16, 16))(videos).shape)
    (2, 4, 4, 6, 32)

    Source: Arnab et al., "ViViT: A Video Vision Transformer", 2021.
    """

    _axes = ("frames", "height", "width")
    _convolution = layers.Conv3D

    def __init__(
        self,
        hidden_dim: int,
        patch_size: tuple[int, ...] = (2, 16, 16),
        **kwargs: str | bool | keras.DTypePolicy | None,
    ) -> None:
        super().__init__(hidden_dim, patch_size, **kwargs)
