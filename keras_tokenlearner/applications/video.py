"""Functions in the style of `keras.applications`, one for each family of video models."""

from typing import Unpack, cast

from keras_tokenlearner._errors import own_errors
from keras_tokenlearner.applications.arguments import VisionTransformerArguments, X2Plus1DArguments
from keras_tokenlearner.applications.create import create_model
from keras_tokenlearner.models import VisionTransformer, X2Plus1D


@own_errors
def ViViTL16(**arguments: Unpack[VisionTransformerArguments]) -> VisionTransformer:
    """A plain ViViT of size L with tubelets of 2 frames and 16 x 16 pixels.

    Inputs are (32, 224, 224, 3) by default. Pass `input_shape` for another resolution or aspect
    ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `VisionTransformerConfig` to change.

    Returns:
        The model `vivit_l16` of the catalogue, a `VisionTransformer`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (4, 64, 96, 3)
    >>> model = ViViTL16(include_top=False, input_shape=shape, num_layers=2)
    >>> model.output_shape
    (None, 49, 1024)

    Source: Arnab et al., "ViViT: A Video Vision Transformer", 2021.
    """
    return cast(VisionTransformer, create_model("vivit_l16", **arguments))


@own_errors
def TokenLearnerViViTL16(**arguments: Unpack[VisionTransformerArguments]) -> VisionTransformer:
    """ViViT-L/16 with 16 learned tokens for every two frames, after 12 blocks.

    Inputs are (32, 224, 224, 3) by default. Pass `input_shape` for another resolution or aspect
    ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `VisionTransformerConfig` to change.

    Returns:
        The model `tokenlearner_vivit_l16_16at12` of the catalogue, a `VisionTransformer`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (4, 64, 96, 3)
    >>> model = TokenLearnerViViTL16(
    ...     include_top=False, input_shape=shape, num_layers=2, at=1
    ... )
    >>> model.output_shape
    (None, 32, 1024)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 4.
    """
    return cast(VisionTransformer, create_model("tokenlearner_vivit_l16_16at12", **arguments))


@own_errors
def TokenLearnerViViTL14(**arguments: Unpack[VisionTransformerArguments]) -> VisionTransformer:
    """ViViT-L/14 of 35 blocks with 16 learned tokens for every two frames, after 18 blocks.

    Inputs are (32, 224, 224, 3) by default. Pass `input_shape` for another resolution or aspect
    ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `VisionTransformerConfig` to change.

    Returns:
        The model `tokenlearner_vivit_l14_35_16at18` of the catalogue, a `VisionTransformer`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (4, 64, 96, 3)
    >>> model = TokenLearnerViViTL14(
    ...     include_top=False, input_shape=shape, num_layers=2, at=1
    ... )
    >>> model.output_shape
    (None, 32, 1024)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 4.
    """
    return cast(VisionTransformer, create_model("tokenlearner_vivit_l14_35_16at18", **arguments))


@own_errors
def TokenLearnerViViTL10(**arguments: Unpack[VisionTransformerArguments]) -> VisionTransformer:
    """ViViT-L/10 of 35 blocks with 16 learned tokens for every two frames, after 18 blocks.

    Inputs are (32, 224, 224, 3) by default. Pass `input_shape` for another resolution or aspect
    ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `VisionTransformerConfig` to change.

    Returns:
        The model `tokenlearner_vivit_l10_35_16at18` of the catalogue, a `VisionTransformer`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (4, 64, 96, 3)
    >>> model = TokenLearnerViViTL10(
    ...     include_top=False, input_shape=shape, num_layers=2, at=1
    ... )
    >>> model.output_shape
    (None, 32, 1024)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 4.
    """
    return cast(VisionTransformer, create_model("tokenlearner_vivit_l10_35_16at18", **arguments))


@own_errors
def X2Plus1DM(**arguments: Unpack[X2Plus1DArguments]) -> X2Plus1D:
    """The X(2+1)D-M video network, without learned tokens.

    Inputs are (64, 256, 256, 3) by default. Pass `input_shape` for another resolution or aspect
    ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `X2Plus1DConfig` to change.

    Returns:
        The model `x2plus1d_m` of the catalogue, an `X2Plus1D`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (4, 64, 96, 3)
    >>> model = X2Plus1DM(
    ...     include_top=False, input_shape=shape, stage_units=(1, 1, 1, 3)
    ... )
    >>> model.output_shape
    (None, 4, 2, 3, 432)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 6.
    """
    return cast(X2Plus1D, create_model("x2plus1d_m", **arguments))


@own_errors
def TokenLearnerX2Plus1DM(**arguments: Unpack[X2Plus1DArguments]) -> X2Plus1D:
    """X(2+1)D-M with TokenLearner bottlenecks, the paper's final network.

    Inputs are (64, 256, 256, 3) by default. Pass `input_shape` for another resolution or aspect
    ratio.

    Args:
        **arguments: Arguments of `create_model`, and fields of `X2Plus1DConfig` to change.

    Returns:
        The model `tokenlearner_x2plus1d_m` of the catalogue, an `X2Plus1D`.

    Raises:
        ValueError: If the arguments or the weights do not suit the model.

    Example:

    >>> shape = (4, 64, 96, 3)
    >>> model = TokenLearnerX2Plus1DM(
    ...     include_top=False, input_shape=shape, stage_units=(1, 1, 1, 3)
    ... )
    >>> model.output_shape
    (None, 4, 2, 3, 432)

    Source: Ryoo et al., "TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
    2021, section 6.
    """
    return cast(X2Plus1D, create_model("tokenlearner_x2plus1d_m", **arguments))
