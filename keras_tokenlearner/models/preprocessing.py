from dataclasses import asdict, dataclass
from typing import Self, TypedDict, cast

import keras
import numpy as np
from keras import layers

from keras_tokenlearner._checks import (
    check_choice,
    check_ints,
    check_numbers,
    check_positive_fraction,
)
from keras_tokenlearner.models import names

RESIZE_MODES = ("shortest", "squash", "longest")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")


class PreprocessingFields(TypedDict):
    """The fields of a `Preprocessing` as JSON values."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None
    resize_mode: str
    interpolation: str
    crop_fraction: float


@dataclass(frozen=True)
class Preprocessing:
    """The resizing, cropping and normalisation of images for a model, as in its training.

    Code outside the model resizes and crops. The model then computes `(pixel / 255 - mean) / std`
    itself, unless it was built with `include_preprocessing=False`. For videos, only mean and
    std apply: frames are resized bilinearly until they cover the input, then cropped.

    Attributes:
        mean: Mean of each channel, for pixels in [0, 1]. One number applies to all channels.
        std: Standard deviation of each channel, for pixels in [0, 1].
        size: `(height, width)` at which the weights were evaluated; `None` for the input size.
        resize_mode: `"shortest"` resizes the shortest edge and crops the centre. `"squash"` resizes
            both edges to the input. `"longest"` resizes the longest edge and pads.
        interpolation: `"bilinear"`, `"bicubic"`, `"nearest"` or `"lanczos"`, antialiased.
        crop_fraction: Fraction of the resized edge that the centre crop keeps, in (0, 1].

    Raises:
        ValueError: If a value is out of range, or two values contradict each other.

    Example:

    >>> Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).interpolation
    'bilinear'
    """

    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    size: tuple[int, int] | None = None
    resize_mode: str = "shortest"
    interpolation: str = "bilinear"
    crop_fraction: float = 1.0

    def __post_init__(self) -> None:
        owner = "Preprocessing"
        for name in ("mean", "std"):
            expected = "a tuple of finite numbers, one for each channel"
            numbers = check_numbers(owner, name, getattr(self, name), expected)
            object.__setattr__(self, name, numbers)
        if len({len(self.mean), len(self.std)} - {1}) > 1 or min(self.std) <= 0:
            raise ValueError(
                f"{owner}: `std` must be one positive number, or one for each channel. "
                f"Received: mean={self.mean}, std={self.std}"
            )
        if self.size is not None:
            size = check_ints(owner, "size", self.size, lengths=(2,))
            object.__setattr__(self, "size", size)
        check_choice(owner, "resize_mode", self.resize_mode, RESIZE_MODES)
        check_choice(owner, "interpolation", self.interpolation, INTERPOLATIONS)
        fraction = check_positive_fraction(owner, "crop_fraction", self.crop_fraction)
        object.__setattr__(self, "crop_fraction", fraction)

    @property
    def has_default_resize(self) -> bool:
        """Whether images are resized by the default: shortest edge, bilinear, largest crop."""
        resize = self.resize_mode, self.interpolation, self.crop_fraction
        return resize == ("shortest", "bilinear", 1.0)

    def fields(self) -> PreprocessingFields:
        """Return the fields as JSON values; `Preprocessing(**fields)` restores the object."""
        return cast(PreprocessingFields, asdict(self))

    def check_channels(self, channels: int) -> None:
        """Raise `ValueError` unless mean and std have one value, or one value per channel."""
        counts = {len(self.mean), len(self.std)}
        if not counts <= {1, channels}:
            raise ValueError(
                f"Preprocessing: `mean` and `std` must have one number, or {channels}, one for "
                f"each channel of the input. Received: mean={self.mean}, std={self.std}"
            )

    def layer(self, channels: int) -> layers.Layer:
        """Return the layer that normalises images with `channels` channels, in [0, 255]."""
        self.check_channels(channels)
        count = max(len(self.mean), len(self.std))
        means, stds = (v * (count // len(v)) for v in (self.mean, self.std))
        scale = [1 / (255 * std) for std in stds]
        offset = [-mean / std for mean, std in zip(means, stds, strict=True)]
        if count == 1:
            return layers.Rescaling(scale[0], offset=offset[0], name=names.PREPROCESSING)
        return layers.Rescaling(scale, offset=offset, name=names.PREPROCESSING)

    @classmethod
    def of_layer(cls, layer: layers.Rescaling) -> Self:
        """Return a `Preprocessing` with the mean and std of a layer from the method `layer`."""
        scale, offset = (np.atleast_1d(value) for value in (layer.scale, layer.offset))
        std = 1 / (255 * scale)
        return cls(mean=tuple(-offset * std), std=tuple(std))


def check_takes_pixels(owner: str, model: keras.Model) -> None:
    """Raise `ValueError` if a model of this package does not take pixels in [0, 255].

    Args:
        owner: Name of the function that the user called, for error messages.
        model: A `keras.Model`. If its first layer is a model, the inner model is checked too. Other
            first layers or functions may scale the pixels.
    """
    found = {layer.name for layer in model.layers}
    if names.are_of_a_model(found) and names.PREPROCESSING not in found:
        raise ValueError(
            f"{owner}: `model` must take pixels in [0, 255]; build it with "
            "include_preprocessing=True, or put a scaling layer before it. "
            f"Received: model {model.name!r} with include_preprocessing=False"
        )
    # Functions of `keras.ops` are not in `layers`. The graph of a subclassed model is unknown.
    is_sequential = isinstance(model, keras.Sequential)
    parts = model.layers if is_sequential else getattr(model, "operations", [])
    parts = [part for part in parts if not isinstance(part, layers.InputLayer)]
    if parts and isinstance(parts[0], keras.Model):
        check_takes_pixels(owner, parts[0])
