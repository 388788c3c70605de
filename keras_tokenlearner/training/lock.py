"""A lock that allows one run at a time to write to a folder."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(owner: str, folder: str | Path) -> Iterator[None]:
    """Lock a folder for this process during the context, by its file `.lock`.

    The system releases the lock when the process ends, even if it is killed.

    Args:
        owner: Name of the caller, for the error message.
        folder: Path of an existing folder.

    Raises:
        ValueError: If another process, or another run in this one, has locked the folder.

    Example:

    >>> import tempfile
    >>> with locked("train", tempfile.mkdtemp()):
    ...     pass
    """
    path = Path(folder) / ".lock"
    with open(path, "a+b") as stream:
        try:
            _lock(stream.fileno())
            # A run that ended meanwhile has deleted this file; another may have a new one.
            if not os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                raise FileNotFoundError(str(path))
        except OSError as error:
            raise ValueError(
                f"{owner}: another run writes to this folder; wait for its end, or name another "
                f"folder. Received: output={str(folder)!r}"
            ) from error
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows deletes no file that is open
                path.unlink()


def _lock(descriptor: int) -> None:
    """Lock an open file, or raise `OSError` if it is locked already."""
    if importlib.util.find_spec("fcntl"):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:  # Windows
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
