import math

import numpy as np


def inception_crop(
    height: int,
    width: int,
    random: np.random.Generator,
    area: tuple[float, float] = (0.05, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
    """Choose a random crop of an image, as in the training of ViT and most other models.

    Args:
        height: Integer, height of the image, in pixels.
        width: Integer, width of the image, in pixels.
        random: A `numpy.random.Generator`.
        area: Smallest and largest area of the crop, as shares of the image's area.
        ratio: Smallest and largest aspect ratio of the crop, width divided by height.

    Returns:
        `(left, top, right, bottom)` in pixels. If none of 100 random crops fits into the image, the
        box is the whole image.

    Example:

    >>> left, top, right, bottom = inception_crop(100, 200, np.random.default_rng(0))
    >>> 0 <= left < right <= 200 and 0 <= top < bottom <= 100
    True

    Source: Szegedy et al., "Going Deeper with Convolutions", 2014.
    """
    for _ in range(100):
        pixels = random.uniform(*area) * height * width
        aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        crop_height, crop_width = (
            round(math.sqrt(pixels / aspect)),
            round(math.sqrt(pixels * aspect)),
        )
        if 0 < crop_height <= height and 0 < crop_width <= width:
            top = int(random.integers(height - crop_height + 1))
            left = int(random.integers(width - crop_width + 1))
            return left, top, left + crop_width, top + crop_height
    return 0, 0, width, height


def random_shift(
    box: tuple[int, int, int, int], random: np.random.Generator, most: float
) -> tuple[int, int, int, int]:
    """Move a box of an image at random, a usual augmentation of small images.

    Args:
        box: `(left, top, right, bottom)` in pixels.
        random: A `numpy.random.Generator`.
        most: The largest shift in either direction, as a fraction of the box's width and height.

    Returns:
        `(left, top, right, bottom)` in pixels, a box of the same size. The box may be partly
        outside the image.

    Example:

    >>> left, top, right, bottom = random_shift((8, 0, 56, 32), np.random.default_rng(0), 1 / 8)
    >>> (right - left, bottom - top), abs(left - 8) <= 6, abs(top) <= 4
    ((48, 32), True, True)
    """
    left, top, right, bottom = box
    across, down = (
        int(random.integers(-round(most * side), round(most * side) + 1))
        for side in (right - left, bottom - top)
    )
    return left + across, top + down, right + across, bottom + down
