"""Images of tensorflow-datasets (extra `tfds`), and the splits that the paper uses."""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from keras_tokenlearner._errors import errors_of, first_line, listed
from keras_tokenlearner._extras import require
from keras_tokenlearner.data.decoding import FOLDER_FORMATS, decode_image
from keras_tokenlearner.data.images import Images

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder
    from tensorflow_datasets.decode import Decoder

# Each record maps names of features to bytes, numbers or lists.
Records: TypeAlias = Sequence[Mapping[str, Any]]

# Training and test splits of data sets to which the rule of `splits_of` does not apply. The test
# images of most of these sets have no public labels. The last two sets have only a training split,
# which the authors' code divides.
SPLITS = {
    "imagenet2012": ("train", "validation"),
    "imagenet2012_subset/10pct": ("train", "validation"),
    "i_naturalist2017": ("train", "validation"),
    "i_naturalist2018": ("train", "validation"),
    "i_naturalist2021": ("train", "val"),
    "places365_small": ("train", "validation"),
    "visual_domain_decathlon": ("train", "validation"),  # in all its configs
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
    Prepare a data set once, by this code, which also downloads the data if the licence permits:

        import tensorflow_datasets as tfds
        tfds.builder("cifar100", file_format="array_record").download_and_prepare()

    Args:
        name: Name of the data set, such as `"imagenet2012"`.
        split: Name of the split, with a slice if wanted, such as `"train[:1000]"`.

    Raises:
        ValueError: If the data set does not exist or was not prepared. Also if the data set has no
            feature `image`, or no feature `label` with names of classes.
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
    owner: str, name: str, split: str, what: str, decoders: "dict[str, Decoder]"
) -> "tuple[DatasetBuilder, Records]":
    """Open a split of a data set that was prepared as ArrayRecord files.

    Args:
        owner: Name of the caller, for the error message.
        name: Name of the data set in tensorflow-datasets.
        split: Name of the split, with a slice if wanted.
        what: Kind of the data, for the error message: `"images"` or `"videos"`.
        decoders: Decoders by name of feature, instead of the default decoders. The data set must
            have these features, and a feature `label`.

    Returns:
        The builder of the data set, and a sequence of its records.

    Raises:
        ValueError: If the data set does not exist, was not prepared, or lacks a feature.
    """
    tfds = require("tensorflow_datasets", "tfds")
    builder = _builder(owner, name, split, what)
    features, kind = builder.info.features, tfds.features.ClassLabel
    if not {*decoders, "label"} <= {*features} or not isinstance(features["label"], kind):
        raise ValueError(
            f"{owner}: `name` must be a data set with the features {listed(decoders)} and label, a "
            "class. For other data, derive from Images or VideoList. "
            f"Received: name={name!r} with the features {listed(features)}"
        )
    with _prepared(owner, name, split, what):
        return builder, builder.as_data_source(split, decoders=decoders)


def splits_of(owner: str, name: str, what: str) -> tuple[str, str]:
    """Return the names of the training split and of the test split of a prepared data set.

    Args:
        owner: Argument of `open_records`.
        name: Name of the data set, with a version if wanted.
        what: Argument of `open_records`.

    Raises:
        ValueError: If the data set does not exist, or lacks one of the two splits.
    """
    with_config = name.partition(":")[0]
    known = SPLITS.get(with_config) or SPLITS.get(with_config.partition("/")[0])
    if known:
        return known
    found = [*_builder(owner, name, "train", what).info.splits]
    test = next((split for split in ("test", "validation") if split in found), None)
    if found and (test is None or "train" not in found):
        raise ValueError(
            f"{owner}: `name` must be a data set with the splits train and test (or validation). "
            f"For other data sets, pass `split` to {owner}. "
            f"Received: name={name!r} with the splits {listed(found)}"
        )
    return "train", test or "test"  # a set without splits was not prepared: `open_records` raises


def _builder(owner: str, name: str, split: str, what: str) -> "DatasetBuilder":
    tfds = require("tensorflow_datasets", "tfds")
    with _prepared(owner, name, split, what):
        return tfds.builder(name, file_format="array_record")


@contextlib.contextmanager
def _prepared(owner: str, name: str, split: str, what: str) -> Iterator[None]:
    """Replace errors of tensorflow-datasets by a `ValueError` that states how to prepare a set."""
    tfds = require("tensorflow_datasets", "tfds")
    try:
        yield
    except (tfds.core.DatasetNotFoundError, KeyError, OSError, ValueError) as error:
        raise ValueError(
            f"{owner}: `name` must be a labelled data set of {what}; prepare it with "
            f"tfds.builder({name!r}, file_format='array_record').download_and_prepare(). Received: "
            f"name={name!r}, split={split!r}: {first_line(error)}"
        ) from error


def load_tfds(name: str) -> tuple[TfdsImages, TfdsImages]:
    """Return the training and the test split of a data set, as two `TfdsImages`.

    Args:
        name: Name of the data set in tensorflow-datasets.
    """
    train, test = (TfdsImages(name, split) for split in splits_of("TfdsImages", name, "images"))
    return train, test
