"""Reads and checks values of the JSON files next to weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias, cast

from keras_tokenlearner._json import JSON
from keras_tokenlearner.models.preprocessing import Preprocessing

Object: TypeAlias = dict[str, JSON]

_MOST_BYTES = 8 << 20
_INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")


def read_json(owner: str, path: Path) -> Object:
    """Return the object in a JSON file. Raise `ValueError` for a damaged or very large file."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"a JSON file must have at most {_MOST_BYTES} bytes")
        said = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(said, dict):
            raise ValueError(f"the file must contain a JSON object, not a {type(said).__name__}")
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(
            f"{owner}: {path.name} is damaged; download or save it again. Reason: {error}"
        ) from error
    return said


def numbers_of(value: JSON) -> tuple[float, ...]:
    """Return a number or a list of numbers as a tuple."""
    if isinstance(value, Sequence):
        return tuple(cast("Sequence[float]", value))
    return (float(cast("float", value)),)


def preprocessing_of(
    owner: str,
    mean: JSON,
    std: JSON,
    size: tuple[int, int] | None,
    resize_mode: str,
    interpolation: str,
    crop_fraction: JSON,
) -> Preprocessing:
    """Return the `Preprocessing` that a config states, or raise `ValueError` if it is invalid."""
    if interpolation not in _INTERPOLATIONS:
        interpolation = "bicubic"  # timm's "random" and "hamming" are for training only
    try:
        return Preprocessing(
            mean=numbers_of(mean),
            std=numbers_of(std),
            size=size,
            resize_mode=resize_mode,
            interpolation=interpolation,
            crop_fraction=cast("float", crop_fraction),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{owner}: the settings of the preprocessing are invalid; correct them, or download or "
            f"save their file again. Reason: {error}"
        ) from error
