"""Identifies the data of a run, so that a backup continues with the same data only."""

import os
from collections.abc import Iterable, Sequence

import numpy as np

from keras_tokenlearner.data.images import ArrayImages, FileImages, SomeImages
from keras_tokenlearner.data.video.lists import VideoList
from keras_tokenlearner.data.video.tfds import TfdsVideos
from keras_tokenlearner.training.recipes.recipe import Examples
from keras_tokenlearner.training.remember import digest


def identity_of(data: Examples) -> str:
    """Return a hash that changes if labelled data change, as 24 hexadecimal digits.

    For arrays, the hash covers all values. For files, the hash covers paths, sizes and labels,
    because reading all files would take long. For `TfdsImages` and `TfdsVideos`, the hash covers
    name, version and split. For `TfdsVideos`, the hash also covers frame rate, labels and
    selection. For `SomeImages`, the hash covers the indices and the images to select from. For
    other data, the hash covers only the Python class, the number of examples and the class names.
    These three are part of every hash.

    Args:
        data: Labelled data of a recipe.

    Example:

    >>> images = np.zeros((2, 4, 4, 1), "uint8")
    >>> one, other = (identity_of(ArrayImages(images, labels)) for labels in ([0, 1], [1, 0]))
    >>> one == other
    False
    """
    stated = (type(data).__name__, len(data), [str(name) for name in data.class_names])
    if isinstance(data, SomeImages):
        return digest([np.array(data.places, "int64")], (*stated, identity_of(data.images)))
    if isinstance(data, ArrayImages):
        return digest([np.asarray(data.images), data.labels], stated)
    if isinstance(data, TfdsVideos):
        source = (data.name, data.split, float(data.frame_rate), data.files)
        return digest([np.asarray(data.labels)], (*stated, *source))
    if isinstance(data, (FileImages, VideoList)):
        return digest([np.asarray(data.labels)], (*stated, *_files(data.files)))
    builder = getattr(data, "builder", None)  # of tensorflow-datasets
    info = getattr(builder, "info", None)
    return digest([], (*stated, getattr(info, "full_name", None), getattr(data, "split", None)))


def _files(files: Iterable[str | os.PathLike[str]]) -> Sequence[str]:
    """Return the path and the size of each file. A missing file has no size."""
    found = []
    for file in files:
        try:
            found.append(f"{os.fspath(file)}: {os.stat(file).st_size}")
        except OSError:
            found.append(f"{os.fspath(file)}: missing")
    return found
