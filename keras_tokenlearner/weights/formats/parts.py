"""Reads the index of a checkpoint in parts, and joins the parts of Keras's weights to one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h5py

KERAS_INDEX = ".weights.json"  # end of the names of Keras's indexes
_MOST_JSON = 64 << 20


def parts_of(owner: str, path: Path) -> dict[str, set[str]]:
    """Return the names in an index, grouped by file.

    A name is an entry in one file: `{"a.weight": "one.bin"}`. In an index of Keras, a name is a
    group of entries: `{"/layers/dense/vars": ["one.weights.h5", "two.weights.h5"]}`.

    Raises:
        ValueError: If the index is damaged, or names a file outside its folder.
    """
    try:
        if path.stat().st_size > _MOST_JSON:
            raise ValueError(f"an index must have at most {_MOST_JSON} bytes")
        files = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        parts: dict[str, set[str]] = {}
        for name, found in files.items():
            in_files = found if isinstance(found, list) else [found]
            if not in_files:
                raise ValueError(f"the index must name a file for {name}")
            for file in in_files:
                parts.setdefault(str(file), set()).add(name)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{owner}: {path} must be the index of a checkpoint in parts; download it again. "
            f"Reason: {error!r}"
        ) from error
    for file in parts:
        if Path(file).name != file or file in ("", "..") or file.endswith(".json"):
            raise ValueError(
                f"{owner}: {path} must only name files in its own folder. Received: {file!r}"
            )
    return dict(sorted(parts.items()))


def join_parts(owner: str, index: Path, to: Path) -> None:
    """Write the parts of Keras's weights as one `.weights.h5` file. No array is unpacked.

    Args:
        owner: String, the function that the user called.
        index: Path of the `.weights.json` file.
        to: Path of the new file.
    """
    import h5py  # a dependency of Keras

    with h5py.File(to, "w") as target:
        for file in parts_of(owner, index):
            path = index.with_name(file)
            try:
                with h5py.File(path, "r", locking=False) as part:
                    _add(part, target)
            except Exception as error:  # the library raises errors of any type on a damaged file
                raise ValueError(
                    f"{owner}: {path} is damaged or not a part of {index}; download or save both "
                    f"again. Reason: {error}"
                ) from error


def _add(part: h5py.File, target: h5py.File) -> None:
    """Copy all groups and arrays of a file. Links are not followed."""
    import h5py

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            part.copy(item, target, name)
        else:
            target.require_group(name).attrs.update(item.attrs)

    part.visititems(visit)
