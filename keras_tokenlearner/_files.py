"""Writes files completely or not at all, even if the process or the machine stops meanwhile."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of a new file. After the `with` block, the new file replaces `path`.

    The new file has the same name, in a hidden folder next to `path`. After an error in the block,
    the old file remains.

    Args:
        path: Path of the file. Its folder exists.

    Example:

    >>> with replacing("notes.txt") as new:
    ...     _ = new.write_text("one")
    >>> Path("notes.txt").read_text()
    'one'
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        new = Path(folder) / path.name
        yield new
        move(new, path)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, or replace it in one step.

    Args:
        path: Path of the file. Its folder exists.
        text: The content, which is encoded as UTF-8.
    """
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def move(written: Path, to: Path) -> None:
    """Rename a file, and replace the file that has the new name, if any.

    The content reaches the disk before the new name does. Otherwise a power cut could leave an
    empty file under the new name.

    Args:
        written: Path of the written file.
        to: New path of the file, in the same file system.
    """
    sync(written)
    os.replace(written, to)
    sync_entry(to.parent)


def sync(path: Path) -> None:
    """Wait until a file, or a folder with all its files, is on the disk."""
    parts = sorted(path.rglob("*"), reverse=True) if path.is_dir() else []
    for part in (*parts, path):
        if part.is_dir():
            sync_entry(part)
        elif part.is_file():
            # On Windows, `fsync` needs a file that is open for writing.
            _sync(part, os.O_RDWR if os.name == "nt" else os.O_RDONLY)


def sync_entry(folder: Path) -> None:
    """Wait until the names of the files in a folder are on the disk."""
    # Windows cannot open folders. Windows writes the names to the disk without this call.
    with contextlib.suppress(PermissionError):
        _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
