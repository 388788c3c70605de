import os
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from keras_tokenlearner._checks import check_choice, check_ints, check_is, check_path
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner.data import cifar10, fashion_mnist
from keras_tokenlearner.data.folders import split_folders
from keras_tokenlearner.data.images import ArrayImages, Images, from_folder
from keras_tokenlearner.data.preprocessing import fit_pixels
from keras_tokenlearner.data.tfds import load_tfds
from keras_tokenlearner.models.preprocessing import Preprocessing


@own_errors
def open_named(data: str | os.PathLike[str]) -> tuple[Images, Images]:
    """Open a labelled data set by its name.

    Args:
        data: One of these names:

            * `"fashion_mnist"` for the included sample, `"cifar10"` for a download. After a colon,
              the name may have the argument `origin` of `load_fashion_mnist` or `load_cifar10`, as
              in `"cifar10:FOLDER"`.
            * `"folder:FOLDER"`, or the path of a folder, with folders `train` and `test` (or
              `val`). Each has a folder of images for every class.
            * `"tfds:NAME"`, a data set that tensorflow-datasets prepared.

    Returns:
        The training images and the test images.

    Raises:
        ValueError: If the data set does not exist, or `data` is neither a string nor a path. Also
            if a folder lacks files, or the classes of training and test images differ. Also if a
            file is damaged, or a data set of tensorflow-datasets has no labels.
        ImportError: If Pillow or tensorflow-datasets is needed and not installed.

    Example:

    >>> train, test = open_named("fashion_mnist")
    >>> len(train), test.class_names[0], test[0][0].shape
    (5000, 'T-shirt', (28, 28, 1))
    """
    path = check_path("open_named", "data", data)
    name, _, origin = str(data).partition(":")
    if name not in OPENERS and path.is_dir():
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
    data: str | os.PathLike[str],
    input_shape: Sequence[int] | None = None,
    preprocessing: Preprocessing | None = None,
) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Load a labelled data set into memory, with images of the size that a model takes.

    Args:
        data: Name of a data set for `open_named`.
        input_shape: `(height, width, channels)` to resize the images to. Defaults to the shape of
            the first image.
        preprocessing: The `Preprocessing` for resizing and cropping, such as `model.preprocessing`.
            Defaults to the largest central part with the requested aspect ratio, resized
            bilinearly.

    Returns:
        `(train_images, train_labels), (test_images, test_labels)`, images of type uint8.

    Raises:
        ValueError: If the data set does not exist, or an argument has another type or shape.

    Example:

    >>> (images, labels), _ = load_named("fashion_mnist", (14, 14, 1))
    >>> images.shape, images.dtype
    ((5000, 14, 14, 1), dtype('uint8'))
    """
    if input_shape is not None:
        check_ints("load_named", "input_shape", input_shape, lengths=(3,))
    kinds = (Preprocessing, type(None))
    check_is("load_named", "preprocessing", preprocessing, kinds, "a Preprocessing or None")
    splits = open_named(data)
    shape = input_shape or splits[0][0][0].shape
    return tuple(arrays_of(images, shape, preprocessing) for images in splits)


def arrays_of(
    images: Images, input_shape: Sequence[int], preprocessing: Preprocessing | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels and the labels of all images. The arguments are as for `load_named`."""
    shape = cast("tuple[int, int, int]", tuple(input_shape))
    found = [fit_pixels(pixels, shape, preprocessing) for pixels, _ in images]
    return np.stack(found), images.labels


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
