"""The table of published checkpoints by name, from `files/checkpoints.csv`."""

from __future__ import annotations

import csv
import fnmatch
import functools
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, cast

from keras_tokenlearner.models.preprocessing import Preprocessing
from keras_tokenlearner.weights.statement import Statement

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A published checkpoint: a row of the table `files/checkpoints.csv`.

    Attributes:
        name: Name for `from_preset`.
        family: Family of models.
        address: An `hf://` or `kaggle://` address, or a source and an `https://` address.
        sha256: First digits of the published sha256, or the empty string.
        sha256_of: Address of the hashed file, which may be a copy at another address.
        patch_size: Size of a patch, with frames first for videos.
        hidden_dim: Channels of a token.
        num_layers: Transformer blocks.
        num_heads: Heads of the attentions.
        activation: Activation of the MLPs.
        layer_norm_epsilon: Epsilon of the norms.
        preprocessing: The `Preprocessing` of the images.
        input_size: `(height, width)`, or `(frames, height, width)` for videos.
        classes: Classes of the head, or 0 without a head.
        licence: Licence and its source.
        top1: Published top-1 accuracy on ImageNet-1k, or on Kinetics-400 for videos. Empty if
            unknown.
        top1_source: Source of the published accuracy.
        is_checked: Whether we have compared outputs with the checkpoint's own library.
    """

    name: str
    family: str
    address: str
    sha256: str
    sha256_of: str
    patch_size: tuple[int, ...]
    hidden_dim: int
    num_layers: int
    num_heads: int
    activation: str
    layer_norm_epsilon: float
    preprocessing: Preprocessing
    input_size: tuple[int, ...]
    classes: int
    licence: str
    top1: str
    top1_source: str
    is_checked: bool

    def statement(self) -> Statement:
        """Return the settings in this row of the table, for a checkpoint without a config.json."""
        return Statement(
            fields={
                "num_heads": self.num_heads,
                "activation": self.activation,
                "layer_norm_epsilon": self.layer_norm_epsilon,
            },
            preprocessing=self.preprocessing,
            input_size=self.input_size[-2:],
            is_config=True,
        )


def list_checkpoints(pattern: str = "*") -> list[PublishedCheckpoint]:
    """Return the published checkpoints whose names match a pattern.

    Args:
        pattern: Pattern for the names, with `*` and `?` as in file names.

    Example:

    >>> [row.licence for row in list_checkpoints("deit_tiny_patch16_224*")]
    ['apache-2.0 (timm cfg)']
    """
    return [row for name, row in table().items() if fnmatch.fnmatchcase(name, pattern)]


def checkpoints_for(
    patch_size: tuple[int, ...], hidden_dim: int, num_layers: int
) -> list[PublishedCheckpoint]:
    """Return the published checkpoints with a classifier and the sizes of a model.

    Example:

    >>> checkpoints_for((16, 16), 192, 12)[0].name
    'vit_tiny_patch16_224.augreg_in21k_ft_in1k'
    """
    sizes = (patch_size, hidden_dim, num_layers)
    return [
        row
        for row in table().values()
        if (row.patch_size, row.hidden_dim, row.num_layers) == sizes and row.classes
    ]


@functools.cache
def table() -> dict[str, PublishedCheckpoint]:
    """Return all published checkpoints by name."""
    path = resources.files("keras_tokenlearner.presets") / "files" / "checkpoints.csv"
    with cast("Path", path).open(encoding="utf-8", newline="") as file:
        return {row["name"]: _row(row) for row in csv.DictReader(file)}


def _row(row: dict[str, str]) -> PublishedCheckpoint:
    sizes = tuple(int(size) for size in row["input_size"].split("x"))
    size = sizes if len(sizes) != 1 else sizes * 2
    if len(size) == 2 and size[0] < 64:  # video: frames x edge
        size = (size[0], size[1], size[1])
    patch = tuple(int(size) for size in row["patch_size"].split("x"))
    return PublishedCheckpoint(
        name=row["name"],
        family=row["family"],
        address=row["address"],
        sha256=row["sha256"],
        sha256_of=row["sha256_of"],
        patch_size=patch if len(patch) == 3 else patch * 2,
        hidden_dim=int(row["hidden_dim"]),
        num_layers=int(row["num_layers"]),
        num_heads=int(row["num_heads"]),
        activation=row["activation"],
        layer_norm_epsilon=float(row["layer_norm_epsilon"]),
        preprocessing=Preprocessing(
            mean=tuple(float(value) for value in row["mean"].split()),
            std=tuple(float(value) for value in row["std"].split()),
            size=(size[-2], size[-1]),
            resize_mode=row["resize_mode"],
            interpolation=row["interpolation"],
            crop_fraction=float(row["crop_fraction"]),
        ),
        input_size=size,
        classes=int(row["classes"]),
        licence=row["licence"],
        top1=row["top1"],
        top1_source=row["top1_source"],
        is_checked=bool(row["checked"]),
    )
