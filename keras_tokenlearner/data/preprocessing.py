"""Resizes images to the input size of a model, as in the evaluation of its checkpoint."""

import math
from typing import cast

import keras
import numpy as np

from keras_tokenlearner._extras import require
from keras_tokenlearner.data.resizing import (
    central_box,
    check_channels_of,
    check_pixels,
    fit_image,
)
from keras_tokenlearner.models.preprocessing import Preprocessing

MAX_RESIZED = 2**24  # pixels after the resizing; a limit for files of very narrow images


def preprocess_image(
    pixels: np.ndarray,
    input_shape: tuple[int, int, int] | list[int],
    preprocessing: Preprocessing,
) -> np.ndarray:
    """Resize and crop one image on the host, exactly as timm's and torchvision's transforms do.

    The target height is `floor(height / crop_fraction)`, for the `height` in `input_shape`. The
    target width is computed likewise. `resize_mode` decides which edges get their target size:

    * `"shortest"`: the shortest edge. The aspect ratio stays the same. Only the centre is kept.
    * `"squash"`: both edges. Only the centre is kept.
    * `"longest"`: the longest edge. The aspect ratio stays the same. The rest is padded with the
      colour `preprocessing.mean`.

    Args:
        pixels: Array of type uint8 and shape (height, width, channels), of one channel or three.
        input_shape: `(height, width, channels)` of the result, with one channel or three.
        preprocessing: The `Preprocessing` of the checkpoint.

    Returns:
        Array of type uint8 and shape `input_shape`.

    Raises:
        ValueError: If `pixels` or `input_shape` have another type, shape or channels. Also if the
            resized image would have too many pixels, as for a very narrow image.
        ImportError: If Pillow, the extra `image`, is not installed.

    Example:

    >>> from keras_tokenlearner.models.preprocessing import Preprocessing
    >>> rule = Preprocessing(interpolation="bicubic", crop_fraction=0.875)
    >>> preprocess_image(np.zeros((100, 200, 3), "uint8"), (32, 48, 3), rule).shape
    (32, 48, 3)

    Source: `timm.data.create_transform`, with the rounding of `torchvision.transforms`.
    """
    check_pixels("preprocess_image", "pixels", pixels)
    check_channels_of("preprocess_image", input_shape, pixels)
    pillow = require("PIL.Image", "image")
    height, width, channels = input_shape
    image = pillow.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
    image = image.convert("RGB" if channels == 3 else "L")
    size = resized_size((image.height, image.width), (height, width), preprocessing)
    method = pillow.Resampling[preprocessing.interpolation.upper()]
    if size != (image.height, image.width):
        image = image.resize(size[::-1], method)
    found = np.asarray(image).reshape(*size, channels)
    return _centre(found, (height, width), fill_colour(preprocessing, channels))


def fit_pixels(
    pixels: np.ndarray,
    input_shape: tuple[int, int, int] | list[int],
    preprocessing: Preprocessing | None = None,
) -> np.ndarray:
    """Resize and crop one image for a model: the common code of evaluation and serving.

    Args:
        pixels: Array of type uint8 and shape (height, width, channels), of one channel or three.
        input_shape: `(height, width, channels)` of the result.
        preprocessing: The `Preprocessing` of the model. With `None` or the default resizing,
            `fit_image` resizes the image.

    Returns:
        Array of type uint8 and shape `input_shape`.
    """
    if preprocessing is None or preprocessing.has_default_resize:
        return fit_image(pixels, input_shape)
    return preprocess_image(pixels, input_shape, preprocessing)


def seen_box(
    size: tuple[int, int],
    input_shape: tuple[int, int, int] | list[int],
    preprocessing: Preprocessing | None = None,
) -> tuple[float, float, float, float]:
    """Return the part of an image that remains after `fit_pixels`.

    Args:
        size: `(height, width)` of the image.
        input_shape: `(height, width, channels)` of the model.
        preprocessing: The `Preprocessing` of the model, as for `fit_pixels`.

    Returns:
        `(left, top, width, height)` as fractions of the image. With `"longest"`, the part may
        include padding. Then `left` or `top` is negative.

    Example:

    >>> seen_box((100, 200), (32, 32, 3))
    (0.25, 0.0, 0.5, 1.0)
    """
    wanted = input_shape[0], input_shape[1]
    if preprocessing is None or preprocessing.has_default_resize:
        left, top, right, bottom = central_box(*size, *wanted)
        return (
            left / size[1],
            top / size[0],
            (right - left) / size[1],
            (bottom - top) / size[0],
        )
    resized = resized_size(size, wanted, preprocessing)
    # The same rounding as in `_centre`.
    top, left = (
        round((edge - kept) / 2) if edge >= kept else -((kept - edge) // 2)
        for edge, kept in zip(resized, wanted, strict=True)
    )
    return left / resized[1], top / resized[0], wanted[1] / resized[1], wanted[0] / resized[0]


def preprocessing_of(model: keras.Model) -> Preprocessing | None:
    """Return the `Preprocessing` of a model, or `None` if the model uses the default resizing.

    A custom model on a backbone of this package has no `Preprocessing`: `ImageBatches` resized the
    training images.
    """
    found = getattr(model, "preprocessing", None)
    states = isinstance(found, Preprocessing) and not found.has_default_resize
    return found if states else None


def resized_size(
    size: tuple[int, int], input_size: tuple[int, int], preprocessing: Preprocessing
) -> tuple[int, int]:
    """Return the `(height, width)` to which an image is resized before the central crop.

    Args:
        size: `(height, width)` of the image.
        input_size: `(height, width)` of the model's input.
        preprocessing: The `Preprocessing` of the checkpoint.

    Raises:
        ValueError: If the resized image would have too many pixels, as for a very narrow image.

    Example:

    >>> resized_size((427, 640), (224, 224), Preprocessing(crop_fraction=0.875))
    (256, 383)
    """
    target = target_size(input_size, preprocessing)
    if preprocessing.resize_mode == "squash":
        return target
    if preprocessing.resize_mode == "shortest" and target[0] == target[1]:
        shortest = min(size)  # torchvision truncates the other edge; timm rounds it, below
        height, width = (int(target[0] * edge / shortest) for edge in size)
    else:
        choose = min if preprocessing.resize_mode == "shortest" else max
        ratio = choose(edge / wanted for edge, wanted in zip(size, target, strict=True))
        height, width = (max(round(edge / ratio), 1) for edge in size)
    most = max(MAX_RESIZED, math.prod(size), math.prod(target))
    if height * width > most:
        raise ValueError(
            f"resized_size: the resized image must have at most {most} pixels. Images of an "
            "extreme aspect ratio become too large; crop these images before resizing. "
            f"Received: an image of {size[0]} x {size[1]} pixels, "
            f"resized to {height} x {width}"
        )
    return height, width


def target_size(
    input_size: tuple[int, int] | list[int], preprocessing: Preprocessing
) -> tuple[int, int]:
    """Return `floor(edge / crop_fraction)` for height and width, without an error of rounding.

    Example:

    >>> target_size((384, 384), Preprocessing(crop_fraction=384 / 450))
    (450, 450)
    """
    # In floats, 384 / (384 / 450) is less than 450.
    edges = (math.floor(edge / preprocessing.crop_fraction + 1e-6) for edge in input_size)
    return cast("tuple[int, int]", tuple(edges))


def fill_colour(preprocessing: Preprocessing, channels: int) -> np.ndarray:
    """Return the colour `preprocessing.mean` as a pixel in [0, 255], of type uint8."""
    mean = [round(255 * value) for value in preprocessing.mean]
    return np.array(mean if len(mean) == channels else mean[:1] * channels, "uint8")


def _centre(pixels: np.ndarray, size: tuple[int, int], fill: np.ndarray) -> np.ndarray:
    """Return the centre of an image, with a given size. A smaller image is padded by `fill`."""
    missing = [max(wanted - edge, 0) for wanted, edge in zip(size, pixels.shape[:2], strict=True)]
    if any(missing):
        (top, left), whole = (edge // 2 for edge in missing), pixels
        shape = [edge + more for edge, more in zip(whole.shape[:2], missing, strict=True)]
        pixels = np.empty((*shape, whole.shape[-1]), "uint8")
        pixels[:] = fill
        pixels[top : top + whole.shape[0], left : left + whole.shape[1]] = whole
    top, left = (
        int(round((edge - wanted) / 2)) for edge, wanted in zip(pixels.shape[:2], size, strict=True)
    )
    return pixels[top : top + size[0], left : left + size[1]]
