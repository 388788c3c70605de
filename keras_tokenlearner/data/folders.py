"""Lists labelled files in folders: common code for images and videos."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from keras_tokenlearner._checks import check_path
from keras_tokenlearner._errors import errors_of


class _Labelled(Protocol):
    @property
    def class_names(self) -> tuple[str, ...]: ...


Found = TypeVar("Found", bound=_Labelled)


def class_files(
    path: str | Path, suffixes: tuple[str, ...], what: str
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """List the files of a folder that has one subfolder per class.

    Names that start with a dot are skipped, for example `.ipynb_checkpoints`, and `._0.png` of
    macOS.

    Args:
        path: Path of the folder.
        suffixes: Tuple of the endings of the files, in lower case.
        what: Kind of the files, for the error message: `"images"` or `"videos"`.

    Returns:
        `(files, labels, class_names)`: tuples, sorted by the names of subfolders and files.

    Raises:
        ValueError: If the folder has no subfolders, or a subfolder has no file with these endings.
    """
    path = check_path("from_folder", "path", path)
    folders = [found for found in _visible(path) if found.is_dir()]
    if not folders:
        raise ValueError(
            f"from_folder: `path` must have one subfolder of {what} per class. Received: "
            f"path={str(path)!r}, which has no subfolders"
        )
    files = [
        [str(file) for file in _visible(folder) if file.suffix.lower() in suffixes]
        for folder in folders
    ]
    empty = [folder.name for folder, found in zip(folders, files, strict=True) if not found]
    if empty:
        raise ValueError(
            f"from_folder: every subfolder must contain {what} of its class, in files that end in "
            f"{', '.join(suffixes)}; remove other folders. Received: path={str(path)!r}, "
            f"no {what} in {', '.join(map(repr, empty[:5]))}"
            f"{f' and {len(empty) - 5} more' * (len(empty) > 5)}"
        )
    labels = [label for label, found in enumerate(files) for _ in found]
    names = tuple(folder.name for folder in folders)
    return tuple(file for found in files for file in found), tuple(labels), names


def _visible(path: str | Path) -> list[Path]:
    """Return the paths in a folder whose names do not start with a dot, sorted by name."""
    found = sorted(Path(path).iterdir()) if Path(path).is_dir() else []
    return [one for one in found if not one.name.startswith(".")]


def split_folders(
    owner: str,
    name: str,
    value: str | os.PathLike[str],
    read: Callable[[Path], Found],
    what: str,
) -> tuple[Found, Found]:
    """Read the folders `train` and `test` (or `val`) of a data set, and compare their classes.

    Args:
        owner: Name of the caller, for the error message.
        name: Name of the caller's argument, for the error message.
        value: The caller's argument: the path of the data set's folder, also as
            `"folder:FOLDER"`.
        read: Function that takes the path of `train`, `test` or `val`, and returns an object with
            `class_names`.
        what: Kind of the files, for the error message.

    Raises:
        ValueError: If a folder does not exist or has no classes, or the folders' classes differ.
    """
    path = check_path(owner, name, str(value).removeprefix("folder:"))
    folders = path / "train", held_out(path)
    if not all(folder.is_dir() for folder in folders):
        raise ValueError(
            f"{owner}: `{name}` must have folders `train` and `test` (or `val`), each with a "
            f"folder of {what} for every class. Received: {name}={str(value)!r}"
        )
    with errors_of(owner, path=name):
        train, test = read(folders[0]), read(folders[1])
    if train.class_names != test.class_names:
        raise ValueError(
            f"{owner}: the folders of training {what} and test {what} must have the same classes. "
            f"Received: classes {train.class_names} and {test.class_names}"
        )
    return train, test


def held_out(path: str | Path, suffix: str = "") -> Path:
    """Return the path of `test` in a folder, or of `val` if only `val` exists, plus `suffix`."""
    found = [Path(path) / f"{name}{suffix}" for name in ("test", "val")]
    return next((one for one in found if one.exists()), found[0])
