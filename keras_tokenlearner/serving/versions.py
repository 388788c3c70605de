"""Finds and adds versions in the folder of an exported model, which servers watch."""

import os
from pathlib import Path

from keras_tokenlearner._files import sync, sync_entry
from keras_tokenlearner.applications.catalog import CATALOG


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


def exported_version(model: str | os.PathLike[str]) -> Path | None:
    """Return the newest version of an exported model, or `None` for another kind of model.

    A name in the catalogue means the named model in every command, even next to a folder of that
    name.

    Args:
        model: Name in the catalogue, path or address.
    """
    return None if model in CATALOG else newest_version(Path(model))


def is_a_version(path: Path, file: str) -> bool:
    """Return whether a path is a version of a model, instead of the folder of its versions.

    A path whose name is a number also counts as a version if a sibling folder is a version. The
    path itself need not exist.

    Args:
        path: `pathlib.Path` of a folder.
        file: Name of the file in each version, such as `"saved_model.pb"`.
    """
    folders = [path]
    if is_version(path.name) and path.parent.is_dir():
        folders += [found for found in path.parent.iterdir() if is_version(found.name)]
    return any((folder / file).is_file() for folder in folders)


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
