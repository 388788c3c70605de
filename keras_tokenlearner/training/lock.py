"""A lock that allows one run at a time to write to a folder."""

import contextlib
import contextvars
import errno
import importlib.util
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

# Errors of a file that another process or thread has locked. Other errors mean that the file system
# has no locks, as some network drives.
_LOCKED = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
# Folders that this run has locked. A recipe of `train` may call `distill` on the same folder.
_OURS: contextvars.ContextVar[frozenset[Path]] = contextvars.ContextVar("_OURS")


@contextlib.contextmanager
def locked(owner: str, folder: str | Path, received: str | None = None) -> Iterator[None]:
    """Lock a folder for this run within the context, by a file `.lock` in the folder.

    The run may lock the folder again inside the context. The operating system releases the lock
    when the process ends, even if the process is killed. On a file system without locks, a warning
    states the cause, and the folder stays unlocked.

    Args:
        owner: Name of the caller, for the error message.
        folder: Path of an existing folder.
        received: Text after `Received:` in the error message, for example `"backup='a.npz'"`.
            Defaults to `output=` and the folder.

    Raises:
        ValueError: If another process, or another thread of this process, has locked the folder.
        OSError: If the folder does not exist or is not writable.

    Example:

    >>> import tempfile
    >>> with locked("train", tempfile.mkdtemp()):
    ...     pass
    """
    ours, resolved = _OURS.get(frozenset()), Path(folder).resolve()
    if resolved in ours:
        yield
        return
    path = Path(folder) / ".lock"
    received = received or f"output={str(folder)!r}"
    try:
        stream = open(path, "a+b")  # noqa: SIM115, closed below
    except OSError as error:
        raise OSError(
            f"{owner}: the folder must exist and be writable. Received: {received} ({error})"
        ) from error
    with stream:
        if not _lock(owner, stream.fileno(), path, received):
            raise ValueError(
                f"{owner}: another run writes to this folder; wait until it ends, or pass another "
                f"folder. Received: {received}"
            )
        token = _OURS.set(ours | {resolved})
        try:
            yield
        finally:
            _OURS.reset(token)
            with contextlib.suppress(OSError):  # Windows cannot delete an open file
                path.unlink()


def _lock(owner: str, descriptor: int, path: Path, received: str) -> bool:
    """Lock an open file. Return whether this run may write to the folder."""
    try:
        _lock_file(descriptor)
    except OSError as error:
        if error.errno in _LOCKED:
            return False
        warnings.warn(
            f"{owner}: the folder cannot be locked ({error}). Start no other run that writes to "
            f"it. Received: {received}",
            stacklevel=4,
        )
    # The lock may be on a file that an ended run has deleted. Then another run may have created and
    # locked a new file.
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _lock_file(descriptor: int) -> None:
    """Lock an open file, or raise `OSError`."""
    if importlib.util.find_spec("fcntl"):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:  # Windows
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
