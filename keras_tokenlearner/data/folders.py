"""Labelled files in folders: what images and videos on disk have in common."""

from pathlib import Path


def class_files(path, suffixes, what):
    """List the files of a folder that holds a folder for every class.

    Args:
        path: Path of the folder.
        suffixes: Tuple of the endings of the files, in lower case.
        what: What the files are, for the message: `"images"` or `"videos"`.

    Returns:
        `(files, labels, class_names)`: tuples, in the order of the names.

    Raises:
        ValueError: If there are no such folders, or no such files in them.
    """
    folders = sorted(found for found in Path(path).glob("*") if found.is_dir())
    found = [
        (str(file), label)
        for label, folder in enumerate(folders)
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in suffixes
    ]
    if not found:
        raise ValueError(
            f"from_folder: there must be a folder of {what} for every class. "
            f"Received: path={str(path)!r}, with {len(folders)} folders and no {what} in them"
        )
    files, labels = zip(*found, strict=True)
    return files, labels, tuple(folder.name for folder in folders)


def split_folders(owner, path, read, what):
    """Read the folders `train` and `test` (or `val`) of a folder, which must have the same classes.

    Args:
        owner: String, who asks, for the message.
        path: Path of the folder.
        read: Function from the path of either to what has `class_names`.
        what: What the files are, for the message.

    Raises:
        ValueError: If there are no such folders, or their classes differ.
    """
    if not (Path(path) / "train").is_dir():
        raise ValueError(
            f"{owner}: there must be folders `train` and `test` (or `val`), each with a folder of "
            f"{what} for every class. Received: {str(path)!r}"
        )
    train, test = read(Path(path) / "train"), read(held_out(path))
    if train.class_names != test.class_names:
        raise ValueError(
            f"{owner}: the folders of training and of test {what} must have the same classes. "
            f"Received: {train.class_names} and {test.class_names}"
        )
    return train, test


def held_out(path, suffix=""):
    """Return the path of `test` in a folder, or of `val` where there is that alone."""
    found = [Path(path) / f"{name}{suffix}" for name in ("test", "val")]
    return next((one for one in found if one.exists()), found[0])
