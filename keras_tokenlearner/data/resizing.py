from collections.abc import Sequence

import keras
import numpy as np

from keras_tokenlearner._extras import require


def resizing(height: int, width: int) -> keras.layers.Resizing:
    """Return the layer that resizes and crops images of any size for a model.

    The largest central part with the requested aspect ratio is resized bilinearly, antialiased.
    Exported models contain the layer, so training and serving see the same pixels. Pass floats: on
    some backends the layer rounds integers.

    Args:
        height: Integer, height of the result, in pixels.
        width: Integer, width of the result, in pixels.

    Returns:
        A `keras.layers.Resizing` for (height, width, channels) or (B, height, width, channels).

    Example:

    >>> tuple(resizing(32, 48)(np.zeros((2, 100, 200, 3), "float32")).shape)
    (2, 32, 48, 3)
    """
    return keras.layers.Resizing(
        height,
        width,
        interpolation="bilinear",
        crop_to_aspect_ratio=True,
        antialias=True,
        data_format="channels_last",
        dtype="float32",
    )


def fit_image(
    pixels: np.ndarray,
    input_shape: Sequence[int],
    box: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Resize and crop one image on the host, as the layer `resizing` does.

    This function uses Pillow, the extra `image`. Unlike the layer, Pillow needs no compilation for
    each size. The result equals the rounded result of the layer. Grey images become colour images
    for three channels, and colour images become grey for one channel.

    Args:
        pixels: Array of type uint8 and shape (height, width, channels), of one channel or three. An
            image that already has the shape of the result may have any number of channels.
        input_shape: `(height, width, channels)` of the result, with one channel or three.
        box: `(left, top, right, bottom)` of the part to keep, in pixels. Parts outside the image
            are black. Defaults to the largest central part with the requested aspect ratio.

    Returns:
        Array of type uint8 and shape `input_shape`, or the image itself if it has this shape.

    Raises:
        ValueError: If `pixels` have another type or shape, or `input_shape` has other channels.
        ImportError: If Pillow is needed and not installed.

    Example:

    >>> fit_image(np.zeros((100, 200, 3), "uint8"), (32, 48, 1)).shape
    (32, 48, 1)
    """
    is_fitted = box is None and getattr(pixels, "shape", None) == tuple(input_shape)
    check_pixels("fit_image", "pixels", pixels, any_channels=is_fitted)
    if is_fitted:
        return pixels
    check_channels_of("fit_image", input_shape, pixels)
    pillow = require("PIL.Image", "image")
    height, width, channels = input_shape
    image = pillow.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
    image = image.convert("RGB" if channels == 3 else "L")
    box = box or central_box(pixels.shape[0], pixels.shape[1], height, width)
    fitted = image.crop(box).resize((width, height), pillow.Resampling.BILINEAR)
    return np.asarray(fitted).reshape(input_shape)


def central_box(
    height: int, width: int, new_height: int, new_width: int
) -> tuple[int, int, int, int]:
    """Return `(left, top, right, bottom)` of the largest central part with a given aspect ratio.

    `keras.layers.Resizing` rounds in the same way.

    Args:
        height: Integer, height of the image.
        width: Integer, width of the image.
        new_height: Integer, height of the resized box; decides the aspect ratio.
        new_width: Integer, width of the resized box; decides the aspect ratio.
    """
    kept_width = max(min(width, int(height * new_width / new_height)), 1)
    kept_height = max(min(height, int(width * new_height / new_width)), 1)
    left, top = int((width - kept_width) / 2), int((height - kept_height) / 2)
    return left, top, left + kept_width, top + kept_height


def check_channels_of(owner: str, input_shape: Sequence[int], pixels: np.ndarray) -> None:
    """Raise `ValueError` unless resized images have one channel or three."""
    if input_shape[-1] not in (1, 3):
        raise ValueError(
            f"{owner}: `input_shape` must have one channel or three, or be the shape of the image. "
            f"Received: input_shape={tuple(input_shape)} for pixels of shape {pixels.shape}"
        )


def check_pixels(
    owner: str, name: str, value: np.ndarray, rank: int = 3, any_channels: bool = False
) -> None:
    """Raise `ValueError` unless `value` is an image of type uint8, or several images for rank 4.

    Grey images have one channel, colour images have three. Images that already have the size of
    the model may have any number of channels.
    """
    shape, dtype = tuple(getattr(value, "shape", ())), getattr(value, "dtype", None)
    fits = len(shape) == rank and (any_channels or shape[-1] in (1, 3))
    if dtype != np.uint8 or not fits:
        axes = "height, width, channels" if rank == 3 else "n, height, width, channels"
        raise ValueError(
            f"{owner}: `{name}` must be a numpy array of type uint8 and shape ({axes}). "
            f"Values are 0 to 255. {'' if any_channels else 'The number of channels is 1 or 3. '}"
            f"Received: {name} of shape {shape} and type {dtype}"
        )
