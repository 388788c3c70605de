import math

import numpy as np

from keras_tokenlearner._checks import check_bool, check_choice
from keras_tokenlearner._extras import require
from keras_tokenlearner.data.preprocessing import MAX_RESIZED

_LUMA = np.array([0.2989, 0.587, 0.114])  # weights of red, green and blue in grey


def fit_clip(clip: np.ndarray, height: int, width: int, place: float = 0.5) -> np.ndarray:
    """Resize a clip until it covers a height and width, then crop it to this size.

    Args:
        clip: Array of shape (T, height, width, channels).
        height: Integer, height of the result, in pixels.
        width: Integer, width of the result, in pixels.
        place: Float, position of the crop along the longer side: 0 is the start, 0.5 the middle, 1
            the end. The three crops of multi-view testing are 0, 0.5 and 1.

    Returns:
        Array of type float32 and shape (T, height, width, channels).

    Raises:
        ValueError: If the resized clip would have too many pixels, as for very narrow frames.

    Example:

    >>> fit_clip(np.zeros((8, 48, 64, 3)), 32, 32).shape
    (8, 32, 32, 3)
    """
    size = covering_size(clip.shape[:3], (height, width))
    clip = _resize(clip, size)
    top, left = (round((n - m) * place) for n, m in zip(size, (height, width), strict=True))
    return clip[:, top : top + height, left : left + width]


def covering_size(shape: tuple[int, ...], wanted: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest `(height, width)` of a clip's aspect ratio that covers a wanted size.

    Args:
        shape: `(T, height, width)` of the clip.
        wanted: `(height, width)` to cover, in pixels.

    Raises:
        ValueError: If the resized clip would have too many pixels, as for very narrow frames.

    Example:

    >>> covering_size((8, 48, 64), (32, 32))
    (32, 43)
    """
    frames, *size = shape
    scale = max(new / old for new, old in zip(wanted, size, strict=True))
    height, width = (max(round(n * scale), m) for n, m in zip(size, wanted, strict=True))
    # Larger clips, and frames of common aspect ratios, need no limit.
    most = max(MAX_RESIZED, math.prod(shape), 4 * frames * math.prod(wanted))
    if frames * height * width > most:
        raise ValueError(
            f"fit_clip: the resized clip must have at most {most} pixels. Frames of an extreme "
            "aspect ratio become too large; crop these frames before resizing. "
            f"Received: {frames} frames of {size[0]} x {size[1]} pixels, "
            f"resized to {height} x {width}"
        )
    return height, width


def augment_clip(
    clip: np.ndarray,
    height: int,
    width: int,
    random: np.random.Generator,
    scale: tuple[float, float] = (0.5, 1.0),
    flip: bool = True,
    colour: float = 0.2,
) -> np.ndarray:
    """Crop and mirror a clip and change its colours at random, equally on all frames.

    Args:
        clip: Array of shape (T, height, width, channels), pixels in [0, 255].
        height: Integer, height of the result, in pixels.
        width: Integer, width of the result, in pixels.
        random: A `numpy.random.Generator`.
        scale: Smallest and largest area of the crop, as shares of the largest possible area.
        flip: Boolean, whether to mirror half of the clips, at random.
        colour: Float, the largest change of brightness and of contrast, as a fraction.

    Returns:
        Array of type float32 and shape (T, height, width, channels).

    Example:

    >>> augment_clip(np.zeros((8, 48, 64, 3)), 32, 32, np.random.default_rng(0)).shape
    (8, 32, 32, 3)
    """
    check_bool("augment_clip", "flip", flip)
    largest = min(clip.shape[1] / height, clip.shape[2] / width)
    side = largest * np.sqrt(random.uniform(*scale))
    size = max(round(height * side), 1), max(round(width * side), 1)
    top, left = (random.integers(n - m + 1) for n, m in zip(clip.shape[1:3], size, strict=True))
    clip = _resize(clip[:, top : top + size[0], left : left + size[1]], (height, width))
    if flip and random.random() < 0.5:
        clip = clip[:, :, ::-1]
    brightness, contrast = random.uniform(1 - colour, 1 + colour, 2)
    mean = clip.mean()
    return np.clip(((clip - mean) * contrast + mean) * brightness, 0, 255).astype("float32")


def in_channels(clip: np.ndarray, channels: int) -> np.ndarray:
    """Return a clip with the channels of a model: unchanged for three, grey for one.

    Args:
        clip: Array of shape (T, height, width, 3).
        channels: Integer, 1 or 3.

    Raises:
        ValueError: If `channels` is neither 1 nor 3.

    Example:

    >>> in_channels(np.zeros((8, 32, 32, 3)), 1).shape
    (8, 32, 32, 1)
    """
    if channels == clip.shape[-1]:
        return clip
    check_choice("in_channels", "channels", channels, (1, 3))
    return (clip @ _LUMA)[..., None].astype("float32")


def _resize(clip: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    if clip.shape[1:3] == size:
        return clip.astype("float32")
    pillow = require("PIL.Image", "video")  # Pillow needs no compilation for each size
    planes = np.moveaxis(clip.astype("float32"), -1, 1).reshape(-1, *clip.shape[1:3])
    resized = [
        np.asarray(pillow.fromarray(plane).resize(size[::-1], pillow.Resampling.BILINEAR))
        for plane in planes
    ]
    return np.ascontiguousarray(np.moveaxis(np.reshape(resized, (len(clip), -1, *size)), 1, -1))
