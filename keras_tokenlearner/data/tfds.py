"""Images of tensorflow-datasets (extra `tfds`), and the splits that the paper uses."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from keras_tokenlearner._errors import errors_of, first_line
from keras_tokenlearner._extras import require
from keras_tokenlearner.data.decoding import FOLDER_FORMATS, decode_image
from keras_tokenlearner.data.images import Images

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder
    from tensorflow_datasets.decode import Decoder

# Each record maps names of features to bytes, numbers or lists.
Records: TypeAlias = Sequence[Mapping[str, Any]]

# Training and test splits of data sets whose splits have names other than `train` and `test`. Two
# sets have no test split. The authors' code divides the training images of these two sets.
SPLITS = {
    "imagenet2012": ("train", "validation"),
    "imagenet2012_subset/10pct": ("train", "validation"),
    "colorectal_histology": ("train[:2000]", "train[2000:]"),
    "uc_merced": ("train[:1000]", "train[1000:]"),
}

# The nine data sets of section 3.4, whose few-shot accuracies the paper averages. As in the
# authors' code, ImageNet is a tenth of its training images: 128 per class.
FEW_SHOT = (
    "caltech101",
    "caltech_birds2011",
    "cars196",
    "cifar100",
    "colorectal_histology",
    "dtd",
    "imagenet2012_subset/10pct",
    "oxford_iiit_pet",
    "uc_merced",
)


class TfdsImages(Images):
    """Images of a prepared split of a data set of tensorflow-datasets.

    Images are read from ArrayRecord files without TensorFlow, so this class works on every backend.
    Prepare a data set once. This code also downloads the data, if the licence allows downloads:

        import tensorflow_datasets as tfds
        tfds.builder("cifar100", file_format="array_record").download_and_prepare()

    Args:
        name: Name of the data set, such as `"imagenet2012"`.
        split: Name of the split, with a slice if wanted, such as `"train[:1000]"`.

    Raises:
        ValueError: If the data set does not exist or was not prepared.
        ImportError: If tensorflow-datasets is not installed.
    """

    def __init__(self, name: str, split: str) -> None:
        tfds = require("tensorflow_datasets", "tfds")
        self.split, self.skip = split, {"image": tfds.decode.SkipDecoding()}
        self.builder, self.records = open_records("TfdsImages", name, split, "images", self.skip)
        self.channels = self.builder.info.features["image"].shape[-1]
        self.class_names = tuple(self.builder.info.features["label"].names)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, place: int) -> tuple[np.ndarray, int]:
        record = self.records[place]
        with errors_of("TfdsImages"):
            pixels = decode_image(record["image"], self.channels, FOLDER_FORMATS)
        return pixels, int(record["label"])

    @functools.cached_property
    def labels(self) -> np.ndarray:
        return np.array([int(record["label"]) for record in self._without_pixels()])

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        if "file_name" not in self.builder.info.features:
            return tuple(str(place) for place in range(len(self)))
        found = (record["file_name"] for record in self._without_pixels())
        return tuple(name.decode() if isinstance(name, bytes) else name for name in found)

    def _without_pixels(self) -> Records:
        return self.builder.as_data_source(self.split, decoders=self.skip)


def open_records(
    owner: str,
    name: str,
    split: str,
    what: str,
    decoders: "dict[str, Decoder] | None" = None,
) -> "tuple[DatasetBuilder, Records]":
    """Open a split of a data set that was prepared as ArrayRecord files.

    Args:
        owner: Name of the caller, for the error message.
        name: Name of the data set in tensorflow-datasets.
        split: Name of the split, with a slice if wanted.
        what: Kind of the data, for the error message: `"images"` or `"videos"`.
        decoders: Decoders by name of feature, instead of the default decoders. `None` for the
            default decoders of all features.

    Returns:
        The builder of the data set, and a sequence of its records.

    Raises:
        ValueError: If the data set does not exist or was not prepared.
    """
    tfds = require("tensorflow_datasets", "tfds")
    try:
        builder = tfds.builder(name, file_format="array_record")
        return builder, builder.as_data_source(split, decoders=decoders)
    except (tfds.core.DatasetNotFoundError, KeyError, OSError, ValueError) as error:
        raise ValueError(
            f"{owner}: `name` must be a labelled data set of {what}; prepare it by "
            f"tfds.builder({name!r}, file_format='array_record').download_and_prepare(). Received: "
            f"name={name!r}, split={split!r}: {first_line(error)}"
        ) from error


def load_tfds(name: str) -> tuple[TfdsImages, TfdsImages]:
    """Return the training and the test split of a data set, as two `TfdsImages`.

    Args:
        name: Name of the data set in tensorflow-datasets.
    """
    train, test = (TfdsImages(name, split) for split in SPLITS.get(name, ("train", "test")))
    return train, test
