"""Labelled images, read one at a time from arrays or files."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from keras_tokenlearner._checks import check_labels
from keras_tokenlearner._errors import errors_of
from keras_tokenlearner._extras import require
from keras_tokenlearner.data.decoding import FOLDER_FORMATS, MAX_PIXELS, decode_image
from keras_tokenlearner.data.folders import class_files
from keras_tokenlearner.data.resizing import check_pixels

SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class Images:
    """Base class of labelled images.

    Instances have a length, and `images[place]` is `(pixels, label)`. The pixels are an array of
    type uint8 and shape (height, width, channels), of any size. The label is an integer.

    Attributes:
        class_names: Tuple of the names of the classes, in order.
        labels: Integer array of shape (n,). Defaults to the labels of all `images[place]`, which
            reads the pixels of all images.
        names: Names of the images, as a tuple: names of files, or numbers.

    Example:

    >>> class Grey(Images):
    ...     class_names = ("dark", "light")
    ...
    ...     def __len__(self):
    ...         return 2
    ...
    ...     def __getitem__(self, place):
    ...         return np.full((32, 48, 3), 200 * place, "uint8"), place
    >>> Grey().labels.tolist()
    [0, 1]
    """

    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, place: int) -> tuple[np.ndarray, int]:
        raise NotImplementedError

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        return (self[place] for place in range(len(self)))

    @functools.cached_property
    def labels(self) -> np.ndarray:
        return np.array([label for _, label in self])

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(str(place) for place in range(len(self)))

    def called(self, place: int) -> str:
        """Return the name of an image for error messages.

        The name is the path of the file, or `image <index>` for an image without a file.
        """
        return f"image {place}"

    def take(self, places: Sequence[int]) -> "SomeImages":
        """Return the images with the given indices."""
        return SomeImages(self, places)


class SomeImages(Images):
    """A selection of images by their indices.

    Args:
        images: The images to select from.
        places: Sequence of integers, the indices of the selected images.
    """

    def __init__(self, images: Images, places: Sequence[int]) -> None:
        self.images, self.places = images, [int(place) for place in places]
        self.class_names = images.class_names

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int) -> tuple[np.ndarray, int]:
        return self.images[self.places[place]]

    def called(self, place: int) -> str:
        return self.images.called(self.places[place])

    @functools.cached_property
    def labels(self) -> np.ndarray:
        return np.asarray(self.images.labels)[self.places]

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(self.images.names[place] for place in self.places)


class ArrayImages(Images):
    """Images in an array.

    Args:
        images: Array of type uint8 and shape (n, height, width, channels). Only images
            of one channel or three are cropped or resized. Images with another number of channels
            must have the size of the model.
        labels: Integer array of shape (n,), or (n, 1) as in `keras.datasets`.
        class_names: Names of the classes. Defaults to their numbers.

    Raises:
        ValueError: If `images` have another type or shape, or the numbers of images and labels
            differ. Also if a label is not the number of a class.

    Example:

    >>> images = ArrayImages(np.zeros((3, 28, 28, 1), "uint8"), np.array([0, 2, 1]))
    >>> len(images), images.class_names, images[1][0].shape, images[1][1]
    (3, ('0', '1', '2'), (28, 28, 1), 2)
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | Sequence[int],
        class_names: Sequence[str] | None = None,
    ) -> None:
        images = np.asarray(images) if isinstance(images, (tuple, list)) else images
        check_pixels("ArrayImages", "images", images, rank=4, any_channels=True)
        classes = None if class_names is None else len(class_names)
        found = check_labels("ArrayImages", "labels", labels, len(images), classes)
        self.images, self.labels = images, found.astype("int64")
        if class_names is None:
            class_names = [str(label) for label in range(self.labels.max(initial=-1) + 1)]
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> tuple[np.ndarray, int]:
        return self.images[place], int(self.labels[place])


class FileImages(Images):
    """Images in files. An image is decoded by `decode_image` when it is requested.

    Args:
        files: Paths of JPEG, PNG, GIF, BMP, WebP, TIFF or AVIF files.
        labels: Integer array of shape (n,).
        class_names: Names of the classes.
        max_pixels: Integer, the largest accepted number of pixels of an image.

    Raises:
        ValueError: If the numbers of files and labels differ, or a label is not the number of a
            class. Later, if the file of a requested image is missing, damaged or too large.
        ImportError: If Pillow (extra `image`) is not installed.

    Example:

    >>> pixels, label = FileImages(["images/cat/0.png"], [0], ["cat"])[0]
    >>> pixels.shape
    (24, 32, 3)
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        labels: np.ndarray | Sequence[int],
        class_names: Sequence[str],
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        require("PIL.Image", "image")
        # A Series of pandas would look up the label of a row, not its number.
        self.files, self.class_names = tuple(files), tuple(class_names)
        found = check_labels("FileImages", "labels", labels, len(self.files), len(self.class_names))
        self.labels = found.astype("int64")
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[np.ndarray, int]:
        with errors_of("FileImages"):
            pixels = decode_image(self.files[place], 3, FOLDER_FORMATS, self.max_pixels)
        return pixels, int(self.labels[place])

    def called(self, place: int) -> str:
        return str(self.files[place])

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(Path(file).name for file in self.files)


def from_folder(path: str | Path, max_pixels: int = MAX_PIXELS) -> FileImages:
    """Return the images of a folder that has one subfolder per class.

    Hidden folders and files, whose names start with a dot, are skipped.

    Args:
        path: Path of the folder.
        max_pixels: Integer, the largest accepted number of pixels of an image.

    Returns:
        A `FileImages`, sorted by the names of subfolders and files.

    Raises:
        ValueError: If the folder has no subfolders, or a subfolder has no images.

    Example:

    >>> from_folder("images").class_names  # of images/cat/*.png and images/dog/*.png
    ('cat', 'dog')
    """
    return FileImages(*class_files(path, SUFFIXES, "images"), max_pixels)
