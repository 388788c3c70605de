"""Reads the `.npz` files of numpy, which are zip archives."""

from __future__ import annotations

import functools
import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from numpy.lib import format as npy

from keras_tokenlearner.weights.formats.entries import Entry, PathLike, check_total

_T = TypeVar("_T")


def read_npz(path: PathLike, owner: str = "read_npz") -> dict[str, np.ndarray]:
    """Return a dictionary from names to all arrays of a `.npz` file.

    Before memory is allocated, the sizes of arrays are compared with the sizes in the central
    directory of the archive.

    Raises:
        ValueError: If the file is missing or damaged, or has arrays of Python objects, which are
            pickles.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{owner}: `path` must be an existing file. Received: path={str(path)!r}")
    return {name: entry.read() for name, entry in npz_entries(owner, path).items()}


def open_zip(owner: str, path: Path) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """Open a zip archive and list its members. Raise `ValueError` if the archive is damaged."""
    try:
        archive = zipfile.ZipFile(path)
        members = archive.infolist()
    except Exception as error:  # zipfile raises errors of any type on a damaged directory
        raise ValueError(
            f"{owner}: {path} is damaged or not a zip archive; download or save it again. "
            f"Reason: {error}"
        ) from error
    if len({member.filename for member in members}) != len(members):
        raise ValueError(
            f"{owner}: {path} is damaged: it has two entries with the same name; save it again"
        )
    return archive, members


def npz_entries(owner: str, path: Path) -> dict[str, Entry]:
    """Return the entries of a .npz file by name, without reading arrays."""
    archive, members = open_zip(owner, path)
    check_total(owner, path, sum(member.file_size for member in members))
    entries = {}
    for member in members:
        entry = _guarded(owner, path, functools.partial(_npz_entry, archive, member))
        read = functools.partial(_guarded, owner, path, entry.read)
        entries[member.filename.removesuffix(".npy")] = Entry(entry.shape, entry.dtype, read)
    return entries


def _guarded(owner: str, path: Path, call: Callable[[], _T]) -> _T:
    try:
        return call()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
        raise ValueError(
            f"{owner}: {path} is damaged or not an npz file; download or save it again. "
            f"Reason: {error}"
        ) from error
    except Exception as error:  # numpy raises errors of any type on a damaged header
        raise ValueError(
            f"{owner}: {path} is not a valid npz file; download or save it again. Reason: {error}"
        ) from error


def _npz_entry(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Entry:
    if not member.filename.endswith(".npy"):
        raise ValueError(f"the member {member.filename} must be an array, a .npy file")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(
            f"the member {member.filename} must be stored, as numpy.savez does, or deflated, as "
            "numpy.savez_compressed does"
        )
    with archive.open(member) as stream:
        shape, is_fortran, dtype = _npy_header(member.filename, stream)
        start = stream.tell()
    if dtype.hasobject:
        raise ValueError(
            f"the member {member.filename} must be an array of numbers, not of Python objects"
        )
    # Python integers do not overflow for the sizes of a malicious header.
    if dtype.itemsize * math.prod(shape) != member.file_size - start:
        raise ValueError(
            f"the member {member.filename} must have the size of an array of shape {shape} and "
            f"type {dtype}, but has {member.file_size - start} bytes"
        )

    def read() -> np.ndarray:
        with archive.open(member) as stream:
            content = stream.read(member.file_size)
            if stream.read(1):
                raise ValueError(
                    f"the member {member.filename} must have {member.file_size} bytes, as the "
                    "archive states, but has more"
                )
        array = np.frombuffer(content, dtype, offset=start)
        return array.reshape(shape[::-1]).T if is_fortran else array.reshape(shape)

    return Entry(shape, dtype, read)


def _npy_header(name: str, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(stream)
    if version == (1, 0):
        return npy.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy.read_array_header_2_0(stream)
    raise ValueError(f"the member {name} must have npy format 1.0 or 2.0, not {version}")
