"""Facts about a model and predictions for pictures, as JSON values for the demo page."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Protocol, TypedDict

import numpy as np

from keras_tokenlearner._checks import check_int
from keras_tokenlearner.data.decoding import count_pixels, decode_image
from keras_tokenlearner.data.preprocessing import fit_pixels, seen_box
from keras_tokenlearner.models import Preprocessing
from keras_tokenlearner.serving.classifier import Scored, best_classes
from keras_tokenlearner.serving.served_model import MAX_PIXELS
from keras_tokenlearner.serving.threads import DecodingThreads


class About(TypedDict):
    """Facts about a model that the page shows before the first picture.

    `tokens` lists the offered numbers of tokens, in ascending order. For a model without maps, the
    list is empty, and `hint` states the reason.
    """

    model: str
    runtime: str
    input_shape: list[int]
    classes: int
    tokens: list[int]
    hint: str


class LayerMaps(TypedDict):
    """Attention maps of a layer: for each token, a list of rows of weights.

    The largest weight of each token is 1.
    """

    layer: str
    tokens: list[list[list[float]]]


class Milliseconds(TypedDict):
    """Times in milliseconds for decoding and resizing a picture, and for running the model."""

    decoding: float
    model: float


class Classified(TypedDict):
    """The predictions for a picture: classes, attention maps and times.

    `box` is the part of the picture that the model sees: `(left, top, width, height)` as fractions.
    """

    classes: list[Scored]
    box: tuple[float, float, float, float]
    maps: list[LayerMaps]
    milliseconds: Milliseconds


class PageModel(Protocol):
    """A model that answers the requests of the demo page."""

    @property
    def about(self) -> About:
        """Facts about the model."""
        ...

    async def classify(self, content: bytes, tokens: int | None) -> Classified:
        """Return the predictions for a picture.

        Args:
            content: Bytes of an image file.
            tokens: Integer, one of `about["tokens"]`; `None` for the largest.
                An exported model ignores this argument.

        Raises:
            ValueError: If the picture cannot be read, or the number of tokens is not offered.
        """
        ...


class Picture:
    """A decoded picture, resized and cropped for a model.

    Args:
        content: Bytes of an image file.
        input_shape: `(height, width, channels)` of the model.
        preprocessing: The `Preprocessing` of the model, as for `fit_pixels`.
        max_pixels: Integer, the largest accepted number of pixels of an image.

    Attributes:
        pixels: Array of type float32 and shape `input_shape`.
        box: `(left, top, width, height)` of the part of the picture that remains after
            `fit_pixels`, as fractions of the picture: the result of `seen_box`.

    Raises:
        ValueError: If the picture cannot be read.
    """

    def __init__(
        self,
        content: bytes,
        input_shape: Sequence[int],
        preprocessing: Preprocessing | None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        height, width, channels = input_shape
        try:
            pixels = decode_image(content, channels, max_pixels=max_pixels)
        except ValueError as error:
            raise ValueError(str(error).removeprefix("decode_image: ")) from error
        shape = (height, width, channels)
        self.pixels = fit_pixels(pixels, shape, preprocessing).astype("float32")
        self.box = seen_box((pixels.shape[0], pixels.shape[1]), shape, preprocessing)


async def read_picture(
    threads: DecodingThreads,
    content: bytes,
    input_shape: Sequence[int],
    preprocessing: Preprocessing | None,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """Decode a `Picture` in one of the threads for large or small images.

    Args:
        threads: The `DecodingThreads`.
        content: Argument of `Picture`.
        input_shape: Argument of `Picture`.
        preprocessing: Argument of `Picture`.
        max_pixels: Argument of `Picture`.

    Raises:
        ValueError: If the picture cannot be read.
    """
    count = 0
    with contextlib.suppress(ValueError):  # `Picture` raises the error with the reason
        count = await asyncio.to_thread(count_pixels, content, max_pixels=max_pixels)
    return await threads.run(count, Picture, content, input_shape, preprocessing, max_pixels)


def classified(
    picture: Picture,
    probabilities: np.ndarray,
    class_names: Sequence[str] | None,
    maps: Mapping[str, np.ndarray],
    milliseconds: Milliseconds,
    top_k: int,
) -> Classified:
    """Return the predictions for a picture as JSON values.

    Args:
        picture: The `Picture`.
        probabilities: Array of shape (classes,).
        class_names: Names of the classes, or `None`.
        maps: Dictionary from the names of layers to arrays of shape (H, W, S).
        milliseconds: `Milliseconds`, the times for decoding the picture and for running the model.
        top_k: Integer, number of classes to return, the most probable first.
    """
    return {
        "classes": best_classes(probabilities, class_names, top_k),
        "box": picture.box,
        "maps": [{"layer": name, "tokens": _rows(found)} for name, found in maps.items()],
        "milliseconds": milliseconds,
    }


def chosen_tokens(about: About, tokens: int | None) -> int:
    """Return the number of tokens that a request asks for.

    Without a number in the request, return the largest number, or 0 for a model without maps.

    Raises:
        ValueError: If the number is not in `about["tokens"]`.
    """
    if tokens is None:
        return max(about["tokens"], default=0)
    check_int("page", "tokens", tokens)
    if tokens not in about["tokens"]:
        raise ValueError(f"`tokens` must be one of {about['tokens']}. Received: tokens={tokens}")
    return tokens


def _rows(maps: np.ndarray) -> list[list[list[float]]]:
    """Return maps as nested lists. The largest weight of each token is scaled to 1."""
    maps = np.asarray(maps, "float64")
    largest = np.maximum(maps.max((0, 1)), 1e-30)
    return np.round(np.moveaxis(maps / largest, -1, 0), 4).tolist()
