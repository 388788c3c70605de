"""Finds and adds versions in the folder of an exported model, which servers watch."""

import os
from pathlib import Path

from keras_tokenlearner._files import sync, sync_entry


def is_version(name: str) -> bool:
    """Return whether servers treat a folder with this name as a version of a model.

    Example:

    >>> is_version("12"), is_version("²"), is_version(".writing-3")
    (True, False, False)
    """
    return name.isascii() and name.isdecimal()


def newest_version(path: Path) -> Path | None:
    """Return the folder of the newest complete version of an exported model, or `None`.

    Args:
        path: `pathlib.Path` of the folder of the versions, or of one version.
    """
    path = Path(os.path.expanduser(path))
    if (path / "saved_model.pb").is_file():
        return path
    if not path.is_dir():
        return None
    versions = [
        found
        for found in path.iterdir()
        if is_version(found.name) and (found / "saved_model.pb").is_file()
    ]
    return max(versions, key=lambda found: int(found.name), default=None)


def move_to_next_version(written: Path, path: Path) -> Path:
    """Move a written folder to the next free version number. Other exports may run meanwhile.

    Args:
        written: `pathlib.Path` of the folder to move.
        path: `pathlib.Path` of the folder of the versions.
    """
    sync(written)
    while True:
        versions = [int(found.name) for found in path.iterdir() if is_version(found.name)]
        version = path / str(max(versions, default=0) + 1)
        try:
            written.rename(version)  # atomic, and fails if the version exists
        except OSError:
            if not version.exists():
                raise
            continue
        sync_entry(path)
        return version
