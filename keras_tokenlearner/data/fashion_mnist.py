"""Fashion-MNIST: 28 x 28 grey photographs of ten kinds of clothes, under the MIT licence.

Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms", 2017. The licence is next to the included sample.
"""

import gzip
import math
import zlib
from importlib import resources
from pathlib import Path

import keras
import numpy as np

from keras_tokenlearner._checks import check_path

__all__ = ["CLASS_NAMES", "load_fashion_mnist"]

CLASS_NAMES = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def load_fashion_mnist(origin: str | Path = "sample") -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Load Fashion-MNIST as arrays.

    Args:
        origin: `"sample"` for the included sample of 5,000 training and 2,000 test images: the
            first 500 and 200 of each class, in the original order. `"download"` loads all 70,000
            images from `keras.datasets`. The path of a folder loads the four original `.gz` files
            in this folder. On Debian, the package `dataset-fashion-mnist` has these files in
            `/usr/share/datasets/fashion-mnist`.

    Returns:
        `(train_images, train_labels), (test_images, test_labels)`: images of type uint8 and shape
        (n, 28, 28, 1), labels of type uint8 and shape (n,), which are indices of `CLASS_NAMES`.

    Raises:
        ValueError: If a folder lacks one of the files, or a file is damaged.

    Example:

    >>> (train_images, train_labels), (test_images, test_labels) = load_fashion_mnist()
    >>> train_images.shape, test_images.shape
    ((5000, 28, 28, 1), (2000, 28, 28, 1))
    """
    if origin == "sample":
        file = resources.files("keras_tokenlearner.data") / "files" / "fashion_mnist_sample.npz"
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return tuple((arrays[f"{s}_images"], arrays[f"{s}_labels"]) for s in ("train", "test"))
    if origin == "download":
        splits = keras.datasets.fashion_mnist.load_data()
        return tuple((images[..., None], labels) for images, labels in splits)
    folder = check_path("load_fashion_mnist", "origin", origin)
    return tuple(_read_split(folder, split) for split in ("train", "t10k"))


def _read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    names = f"{split}-images-idx3-ubyte.gz", f"{split}-labels-idx1-ubyte.gz"
    images, labels = _read(folder, names[0], 3), _read(folder, names[1], 1)
    if len(images) != len(labels):
        raise ValueError(
            f"load_fashion_mnist: {names[0]} and {names[1]} must have equal numbers of examples; "
            f"download them again. Received: {len(images)} images and {len(labels)} labels in "
            f"origin={str(folder)!r}"
        )
    return images[..., None], labels


def _read(folder: Path, name: str, rank: int) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes: magic number, sizes and data, big-endian."""
    path = folder / name
    if not path.is_file():
        raise ValueError(
            "load_fashion_mnist: `origin` must be 'sample', 'download' or a folder with the four "
            f"files of Fashion-MNIST; {name} is missing. Received: origin={str(folder)!r}"
        )
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"load_fashion_mnist: {path} is damaged; download it again: {error}"
        ) from error
    start = 4 * (rank + 1)
    header = np.frombuffer(content[:start].ljust(start, b"\0"), ">u4")
    data = np.frombuffer(content[start:], np.uint8)
    if header[0] != 0x800 + rank or data.size != math.prod(header[1:].tolist()):
        raise ValueError(
            f"load_fashion_mnist: {path} is damaged; download it again: the content does not match "
            "the header"
        )
    return data.reshape(header[1:].tolist())
