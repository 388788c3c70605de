"""Functions in the style of `keras.applications`, one for each family of image models."""

from typing import Unpack, cast

from keras_tokenlearner._errors import own_errors
from keras_tokenlearner.applications.arguments import VisionTransformerArguments
from keras_tokenlearner.applications.create import create_model
from keras_tokenlearner.models import VisionTransformer


@own_errors
def ViTS32(**arguments: Unpack[VisionTransformerArguments]) -> VisionTransformer:
    """A plain ViT of size S with patches of 32 x 32 pixels.

    Inputs are (384, 384, 3) by default. Pass `input_shape` for another resolution or aspect ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `VisionTransformerConfig` to change.

    Returns:
        The model `vit_s32` of the catalogue, a `VisionTransformer`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (64, 96, 3)
    >>> model = ViTS32(include_top=False, input_shape=shape, num_layers=2)
    >>> model.output_shape
    (None, 6, 384)

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021.
    """
    return cast(VisionTransformer, create_model("vit_s32", **arguments))


@own_errors
def ViTB32(**arguments: Unpack[VisionTransformerArguments]) -> VisionTransformer:
    """A plain ViT of size B with patches of 32 x 32 pixels.

    Inputs are (384, 384, 3) by default. Pass `input_shape` for another resolution or aspect ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `VisionTransformerConfig` to change.

    Returns:
        The model `vit_b32` of the catalogue, a `VisionTransformer`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (64, 96, 3)
    >>> model = ViTB32(include_top=False, input_shape=shape, num_layers=2)
    >>> model.output_shape
    (None, 6, 768)

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021.
    """
    return cast(VisionTransformer, create_model("vit_b32", **arguments))


@own_errors
def ViTB16(**arguments: Unpack[VisionTransformerArguments]) -> VisionTransformer:
    """A plain ViT of size B with patches of 16 x 16 pixels.

    Inputs are (384, 384, 3) by default. Pass `input_shape` for another resolution or aspect ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `VisionTransformerConfig` to change.

    Returns:
        The model `vit_b16` of the catalogue, a `VisionTransformer`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (64, 96, 3)
    >>> model = ViTB16(include_top=False, input_shape=shape, num_layers=2)
    >>> model.output_shape
    (None, 24, 768)

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021.
    """
    return cast(VisionTransformer, create_model("vit_b16", **arguments))


@own_errors
def ViTL16(**arguments: Unpack[VisionTransformerArguments]) -> VisionTransformer:
    """A plain ViT of size L with patches of 16 x 16 pixels.

    Inputs are (512, 512, 3) by default. Pass `input_shape` for another resolution or aspect ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `VisionTransformerConfig` to change.

    Returns:
        The model `vit_l16` of the catalogue, a `VisionTransformer`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (64, 96, 3)
    >>> model = ViTL16(include_top=False, input_shape=shape, num_layers=2)
    >>> model.output_shape
    (None, 24, 1024)

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021.
    """
    return cast(VisionTransformer, create_model("vit_l16", **arguments))


@own_errors
def TokenLearnerS32(**arguments: Unpack[VisionTransformerArguments]) -> VisionTransformer:
    """ViT-S/32 with eight learned tokens after 6 blocks.

    Inputs are (384, 384, 3) by default. Pass `input_shape` for another resolution or aspect ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `VisionTransformerConfig` to change.

    Returns:
        The model `tokenlearner_s32_8at6` of the catalogue, a `VisionTransformer`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (64, 96, 3)
    >>> model = TokenLearnerS32(include_top=False, input_shape=shape, num_layers=2, at=1)
    >>> model.output_shape
    (None, 8, 384)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 3.
    """
    return cast(VisionTransformer, create_model("tokenlearner_s32_8at6", **arguments))


@own_errors
def TokenLearnerB32(**arguments: Unpack[VisionTransformerArguments]) -> VisionTransformer:
    """ViT-B/32 with eight learned tokens after 6 blocks.

    Inputs are (384, 384, 3) by default. Pass `input_shape` for another resolution or aspect ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `VisionTransformerConfig` to change.

    Returns:
        The model `tokenlearner_b32_8at6` of the catalogue, a `VisionTransformer`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (64, 96, 3)
    >>> model = TokenLearnerB32(include_top=False, input_shape=shape, num_layers=2, at=1)
    >>> model.output_shape
    (None, 8, 768)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 3.
    """
    return cast(VisionTransformer, create_model("tokenlearner_b32_8at6", **arguments))


@own_errors
def TokenLearnerB16(**arguments: Unpack[VisionTransformerArguments]) -> VisionTransformer:
    """ViT-B/16 with eight learned tokens after 6 blocks.

    Inputs are (384, 384, 3) by default. Pass `input_shape` for another resolution or aspect ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `VisionTransformerConfig` to change.

    Returns:
        The model `tokenlearner_b16_8at6` of the catalogue, a `VisionTransformer`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (64, 96, 3)
    >>> model = TokenLearnerB16(include_top=False, input_shape=shape, num_layers=2, at=1)
    >>> model.output_shape
    (None, 8, 768)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 3.
    """
    return cast(VisionTransformer, create_model("tokenlearner_b16_8at6", **arguments))


@own_errors
def TokenLearnerL16(**arguments: Unpack[VisionTransformerArguments]) -> VisionTransformer:
    """ViT-L/16 with 16 learned tokens after 12 blocks.

    Inputs are (512, 512, 3) by default. Pass `input_shape` for another resolution or aspect ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `VisionTransformerConfig` to change.

    Returns:
        The model `tokenlearner_l16_16at12` of the catalogue, a `VisionTransformer`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (64, 96, 3)
    >>> model = TokenLearnerL16(include_top=False, input_shape=shape, num_layers=2, at=1)
    >>> model.output_shape
    (None, 16, 1024)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 3.
    """
    return cast(VisionTransformer, create_model("tokenlearner_l16_16at12", **arguments))


@own_errors
def TokenLearnerL14(**arguments: Unpack[VisionTransformerArguments]) -> VisionTransformer:
    """ViT-L/14 of 35 blocks with 16 learned tokens after 18 blocks.

    Inputs are (512, 512, 3) by default. Pass `input_shape` for another resolution or aspect ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `VisionTransformerConfig` to change.

    Returns:
        The model `tokenlearner_l14_35_16at18` of the catalogue, a `VisionTransformer`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (64, 96, 3)
    >>> model = TokenLearnerL14(include_top=False, input_shape=shape, num_layers=2, at=1)
    >>> model.output_shape
    (None, 16, 1024)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 3.
    """
    return cast(VisionTransformer, create_model("tokenlearner_l14_35_16at18", **arguments))


@own_errors
def TokenLearnerL10(**arguments: Unpack[VisionTransformerArguments]) -> VisionTransformer:
    """ViT-L/10 of 35 blocks with 16 learned tokens after 18 blocks.

    Inputs are (512, 512, 3) by default. Pass `input_shape` for another resolution or aspect ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `VisionTransformerConfig` to change.

    Returns:
        The model `tokenlearner_l10_35_16at18` of the catalogue, a `VisionTransformer`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (64, 96, 3)
    >>> model = TokenLearnerL10(include_top=False, input_shape=shape, num_layers=2, at=1)
    >>> model.output_shape
    (None, 16, 1024)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 3.
    """
    return cast(VisionTransformer, create_model("tokenlearner_l10_35_16at18", **arguments))


@own_errors
def TokenLearnerL8(**arguments: Unpack[VisionTransformerArguments]) -> VisionTransformer:
    """ViT-L/8 of 35 blocks with 16 learned tokens after 18 blocks.

    Inputs are (512, 512, 3) by default. Pass `input_shape` for another resolution or aspect ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `VisionTransformerConfig` to change.

    Returns:
        The model `tokenlearner_l8_35_16at18` of the catalogue, a `VisionTransformer`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (64, 96, 3)
    >>> model = TokenLearnerL8(include_top=False, input_shape=shape, num_layers=2, at=1)
    >>> model.output_shape
    (None, 16, 1024)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 3.
    """
    return cast(VisionTransformer, create_model("tokenlearner_l8_35_16at18", **arguments))
