"""Panels of figures: pixels of images and clips, and attention maps drawn over the pixels."""

from collections.abc import Collection

import keras
import numpy as np

from keras_tokenlearner._extras import require
from keras_tokenlearner.analysis.canvas import INK


def as_arrays(
    owner: str, name: str, pixels: np.ndarray, maps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return `pixels` divided by 255, in [0, 1], and `maps`, both as float32."""
    try:
        return np.asarray(pixels, "float32") / 255, np.asarray(maps, "float32")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{owner}: `{name}` and `maps` must be arrays; `token_maps` returns maps of a model. "
            f"Received: types {type(pixels).__name__} and {type(maps).__name__}"
        ) from error


def are_pixels(pixels: np.ndarray) -> bool:
    """Return whether an array has one or more images, (B, height, width, 1 or 3)."""
    return pixels.ndim == 4 and pixels.size > 0 and pixels.shape[-1] in (1, 3)


def enlarge(maps: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Resize maps, (B, H, W, S), to the size of pixels, (B, height, width, channels)."""
    maps = keras.ops.image.resize(
        maps, pixels.shape[1:3], "bicubic", antialias=True, data_format="channels_last"
    )
    return keras.ops.convert_to_numpy(maps)


def token_panels(pixels: np.ndarray, maps: np.ndarray, tokens: Collection[int]) -> list[np.ndarray]:
    """Return panels: the pixels, the maps of some tokens, and each position's strongest token.

    Args:
        pixels: Array of shape (..., height, width, 1 or 3) in [0, 1], an image or a clip.
        maps: Array of shape (..., height, width, S), not negative. Each map is scaled to its own
            range, over all frames of a clip.
        tokens: Numbers of the tokens that get a panel.
    """
    axes = tuple(range(maps.ndim - 1))
    low, high = maps.min(axes), maps.max(axes)
    scaled = (maps - low) / np.maximum(high - low, 1e-9)
    strongest = np.argmax(maps / np.maximum(maps.mean(axes), 1e-9), axis=-1)
    painted = _colours(maps.shape[-1])[strongest] * (0.25 + 0.75 * _grey(pixels))
    return [coloured(pixels), *(overlay(pixels, scaled[..., i]) for i in tokens), painted]


def token_heads(
    first: str, count: int, tokens: Collection[int]
) -> tuple[list[str], list[str | np.ndarray]]:
    """Return the title of each panel of `token_panels`, and the colour of each title.

    Args:
        first: Title of the first panel.
        count: Number of all tokens.
        tokens: Numbers of the tokens that get a panel.
    """
    heads = [first, *(f"token {token + 1}" for token in tokens), "strongest"]
    return heads, [INK, *_colours(count)[list(tokens)], INK]


def coloured(pixels: np.ndarray) -> np.ndarray:
    """Return pixels with three channels. Grey pixels get three equal channels."""
    return np.broadcast_to(pixels, (*pixels.shape[:-1], 3))


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Draw the attention map `heat`, with values in [0, 1], over grey pixels."""
    return 0.4 * _grey(pixels) + 0.75 * _colormap("inferno", heat)


def _colours(count: int) -> np.ndarray:
    """Return the colour of each token."""
    return _colormap("hsv", np.arange(count) / count) * 0.75 + 0.25


def _grey(pixels: np.ndarray) -> np.ndarray:
    return pixels.mean(-1, keepdims=True)


def _colormap(name: str, values: np.ndarray) -> np.ndarray:
    return require("matplotlib", "plot").colormaps[name](values)[..., :3]
