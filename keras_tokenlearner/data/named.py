import keras
import numpy as np

from keras_tokenlearner.data.cifar10 import load_cifar10
from keras_tokenlearner.data.fashion_mnist import load_fashion_mnist
from keras_tokenlearner.data.resizing import resizing
from keras_tokenlearner.layers.checks import check_choice

LOADERS = {"cifar10": load_cifar10, "fashion_mnist": load_fashion_mnist}


def load_named(data, input_shape=None):
    """Load a labelled data set by its name, at the size that a model takes.

    Args:
        data: `"fashion_mnist"`, the sample that ships, or `"cifar10"`, downloaded; or with a
            source as their own functions take it, `"cifar10:FOLDER"`.
        input_shape: `(height, width, channels)` to resize the images to.

    Returns:
        `(train_images, train_labels), (test_images, test_labels)`, images of type uint8.

    Raises:
        ValueError: If there is no such data set, or it has another number of channels.

    Example:

    >>> (images, labels), _ = load_named("fashion_mnist", (14, 14, 1))
    >>> images.shape, images.dtype
    ((5000, 14, 14, 1), dtype('uint8'))
    """
    name, _, source = data.partition(":")
    check_choice("load_named", "data", name, list(LOADERS))
    splits = LOADERS[name](source) if source else LOADERS[name]()
    if input_shape is None:
        return splits
    return tuple((_resized(data, images, input_shape), labels) for images, labels in splits)


def _resized(data, images, input_shape):
    height, width, channels = input_shape
    if images.shape[-1] != channels:
        raise ValueError(
            f"load_named: {data!r} has images of {images.shape[-1]} channels and the model takes "
            f"{channels}. Received: input_shape={input_shape}"
        )
    if images.shape[1:] == tuple(input_shape):
        return images
    fit, resized = resizing(height, width), np.empty((len(images), *input_shape), "uint8")
    for start in range(0, len(images), 500):
        batch = keras.ops.convert_to_numpy(fit(images[start : start + 500].astype("float32")))
        resized[start : start + 500] = np.clip(np.rint(batch), 0, 255)
    return resized
