"""A folder that one run at a time may write to."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(owner: str, folder: str | Path) -> Iterator[None]:
    """Keep other processes out of a folder meanwhile, by a lock on its file `.lock`.

    The system releases the lock when the process ends, in whatever way, so that a killed run
    leaves no lock behind.

    Args:
        owner: Name of the caller, for the error message.
        folder: Path of a folder that exists.

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
    """Lock a file that is open, or raise `OSError` if somebody else has."""
    if importlib.util.find_spec("fcntl"):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:  # Windows
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
