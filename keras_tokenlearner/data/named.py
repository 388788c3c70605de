import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from keras_tokenlearner._checks import check_choice, check_ints, check_path
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner.data import cifar10, fashion_mnist
from keras_tokenlearner.data.folders import split_folders
from keras_tokenlearner.data.images import ArrayImages, Images, from_folder
from keras_tokenlearner.data.resizing import fit_image
from keras_tokenlearner.data.tfds import load_tfds


@own_errors
def open_named(data: str | os.PathLike[str]) -> tuple[Images, Images]:
    """Open a labelled data set by its name.

    Args:
        data: One of these names:

            * `"fashion_mnist"`, the included sample, or `"cifar10"`, a download. The `origin` of
              `load_fashion_mnist` or `load_cifar10` may follow, as in `"cifar10:FOLDER"`.
            * `"folder:FOLDER"`, or the path of a folder, with folders `train` and `test` (or
              `val`). Each has a folder of images for every class.
            * `"tfds:NAME"`, a data set that tensorflow-datasets prepared.

    Returns:
        The training images and the test images.

    Raises:
        ValueError: If the data set does not exist.

    Example:

    >>> train, test = open_named("fashion_mnist")
    >>> len(train), test.class_names[0], test[0][0].shape
    (5000, 'T-shirt', (28, 28, 1))
    """
    check_path("open_named", "data", data)
    name, _, origin = str(data).partition(":")
    if name not in OPENERS and Path(data).is_dir():
        name, origin = "folder", str(data)
    check_choice("open_named", "data", name, list(OPENERS))
    if not origin and name in ("folder", "tfds"):
        raise ValueError(
            f"open_named: `data` needs a folder or name after a colon, as in '{name}:NAME'. "
            f"Received: data={data!r}"
        )
    if name == "folder":
        origin = str(data)  # the error message shows the whole argument
    return OPENERS[name](*[origin] if origin else [])


@own_errors
def load_named(
    data: str | os.PathLike[str], input_shape: Sequence[int] | None = None
) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Load a labelled data set into memory, with images of the size that a model takes.

    Args:
        data: Name of a data set for `open_named`.
        input_shape: `(height, width, channels)` to resize the images to. Defaults to the shape of
            the first image.

    Returns:
        `(train_images, train_labels), (test_images, test_labels)`, images of type uint8.

    Raises:
        ValueError: If the data set does not exist, or `input_shape` is not three positive integers.

    Example:

    >>> (images, labels), _ = load_named("fashion_mnist", (14, 14, 1))
    >>> images.shape, images.dtype
    ((5000, 14, 14, 1), dtype('uint8'))
    """
    if input_shape is not None:
        check_ints("load_named", "input_shape", input_shape, lengths=(3,))
    splits = open_named(data)
    shape = tuple(input_shape or splits[0][0][0].shape)
    return tuple(
        (np.stack([fit_image(pixels, shape) for pixels, _ in images]), images.labels)
        for images in splits
    )


def _arrays(
    load: Callable[..., tuple[tuple[np.ndarray, np.ndarray], ...]], class_names: tuple[str, ...]
) -> Callable[..., tuple[Images, Images]]:
    """Wrap `load` so that it returns two `Images` instead of arrays."""

    def opened(*origin: str) -> tuple[Images, Images]:
        train, test = (ArrayImages(*split, class_names) for split in load(*origin))
        return train, test

    return opened


def _folder(data: str) -> tuple[Images, Images]:
    return split_folders("open_named", "data", data, from_folder, "images")


OPENERS: dict[str, Callable[..., tuple[Images, Images]]] = {
    "fashion_mnist": _arrays(fashion_mnist.load_fashion_mnist, fashion_mnist.CLASS_NAMES),
    "cifar10": _arrays(cifar10.load_cifar10, cifar10.CLASS_NAMES),
    "folder": _folder,
    "tfds": load_tfds,
}
