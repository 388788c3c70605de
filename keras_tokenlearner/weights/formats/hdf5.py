"""Reads the `.h5` files of Keras."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_tokenlearner._errors import listed
from keras_tokenlearner.weights.formats.entries import (
    MOST_ENTRIES,
    Entry,
    check_total,
)

if TYPE_CHECKING:
    import h5py


MOST_CHUNKS = 2**17  # chunks of a file; reading a chunk takes about 10 us
_CHUNK_BYTES = 8  # lower bound: a chunk and its place in the index take more bytes


def h5_entries(owner: str, path: Path) -> dict[str, Entry]:
    """Return the entries of an HDF5 file by name, without reading arrays."""
    import h5py  # a dependency of Keras

    entries: dict[str, Entry] = {}
    chunks, most = 0, min(MOST_CHUNKS, path.stat().st_size // _CHUNK_BYTES)

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        nonlocal chunks
        if isinstance(item, h5py.Dataset):
            chunks += _count_chunks(item)
            if chunks > most:
                raise ValueError(
                    f"its arrays must have at most {most} chunks in total, but {name} has the "
                    f"shape {item.shape} in chunks of {item.chunks}"
                )
            entries[name] = _h5_entry(owner, path, name, item)
        if len(entries) > MOST_ENTRIES:
            raise ValueError(f"a file must have at most {MOST_ENTRIES} arrays")

    try:
        file = h5py.File(path, "r", locking=False)
        file.visititems(visit)
    except Exception as error:  # the library raises errors of any type on a damaged file
        raise ValueError(
            f"{owner}: {path} is damaged or not an HDF5 file; download or save it again. "
            f"Reason: {error}"
        ) from error
    check_total(owner, path, sum(entry.nbytes for entry in entries.values()))
    return entries


def refuse_chunks(owner: str, path: Path, shown: Path) -> None:
    """Raise `ValueError` if an HDF5 file has chunked arrays.

    Only chunked arrays can be compressed. HDF5 unpacks compressed arrays without a limit.

    Args:
        owner: String, the function that the user called.
        path: Path of the file.
        shown: Path for the error message.
    """
    import h5py

    names: list[str] = []

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.chunks:
            names.append(name)

    with h5py.File(path, "r", locking=False) as file:
        file.visititems(visit)
    if names:
        raise ValueError(
            f"{owner}: the arrays of {shown} must be neither compressed nor chunked; convert the "
            f"file with `h5repack -f NONE -l CONTI OLD NEW`. Received: {listed(names)}"
        )


def _h5_entry(owner: str, path: Path, name: str, item: h5py.Dataset) -> Entry:
    try:
        dtype = item.dtype
    except Exception as error:  # a type that numpy lacks, such as HDF5's time
        return Entry(problem=f"a dataset of a type that numpy lacks ({error})")
    if item.shape is None:
        return Entry(problem="an empty dataset")
    if item.external is not None or item.is_virtual or dtype.hasobject:
        raise ValueError(
            f"the dataset {name} must be an array of numbers in this file, not an external, "
            "virtual or object dataset"
        )
    read = _h5_reader(name, item)

    def guarded() -> np.ndarray:
        try:
            return read()
        except Exception as error:
            raise ValueError(
                f"{owner}: the dataset {name} of {path} is damaged; download or save the file "
                f"again. Reason: {error}"
            ) from error

    return Entry(tuple(item.shape), dtype, guarded)


def _h5_reader(name: str, item: h5py.Dataset) -> Callable[[], np.ndarray]:
    """Return a function that reads a dataset. Raise `ValueError` for an incomplete dataset."""
    size = item.size * item.dtype.itemsize
    filters = _h5_filters(name, item) if item.chunks else []
    if not filters:
        if item.id.get_storage_size() < size:
            raise ValueError(
                f"the dataset {name} must have {size} bytes for shape {item.shape}, but has only "
                f"{item.id.get_storage_size()} bytes"
            )
        return lambda: item[()]
    chunk_size = math.prod(item.chunks) * item.dtype.itemsize
    wanted, stored = _count_chunks(item), item.id.get_num_chunks()
    most = max(8 << 20, 4 * size)
    if wanted != stored or chunk_size > most:
        raise ValueError(
            f"the dataset {name} must have {wanted} chunks of at most {most} bytes. "
            f"Received: {stored} chunks of {chunk_size} bytes"
        )

    def read() -> np.ndarray:
        # Each chunk is unpacked here, at most to its stated size. HDF5's gzip filter has no limit.
        array = np.empty(item.shape, item.dtype)
        # `get_chunk_info(n)` visits n chunks. A call for every chunk would take quadratic time.
        places = (range(0, n, c) for n, c in zip(item.shape, item.chunks, strict=True))
        for offset in itertools.product(*places):
            mask, content = item.id.read_direct_chunk(offset)
            if mask:
                raise ValueError(f"all chunks of the dataset {name} must be compressed")
            chunk = np.frombuffer(_unfiltered(content, filters, item.dtype, chunk_size), item.dtype)
            region = tuple(
                slice(start, min(start + c, n))
                for start, c, n in zip(offset, item.chunks, item.shape, strict=True)
            )
            inner = tuple(slice(0, part.stop - part.start) for part in region)
            array[region] = chunk.reshape(item.chunks)[inner]
        return array

    return read


def _count_chunks(item: h5py.Dataset) -> int:
    """Return the number of chunks that the shape of a dataset needs, or 0 if it has no chunks."""
    if not item.chunks:
        return 0
    return math.prod(-(-n // c) for n, c in zip(item.shape, item.chunks, strict=True))


_DEFLATE, _SHUFFLE = 1, 2  # numbers of HDF5's filters


def _h5_filters(name: str, item: h5py.Dataset) -> list[int]:
    settings = item.id.get_create_plist()
    filters = [settings.get_filter(index)[0] for index in range(settings.get_nfilters())]
    if set(filters) - {_DEFLATE, _SHUFFLE} or len(filters) > 2:
        raise ValueError(
            f"the dataset {name} must be compressed by gzip or not at all; it has the filters "
            f"{filters[:8]}"
        )
    return filters


def _unfiltered(content: bytes, filters: list[int], dtype: np.dtype, size: int) -> bytes:
    for kind in reversed(filters):
        if kind == _DEFLATE:
            content = _unpacked(content, size)
        else:
            shuffled = np.frombuffer(content, np.uint8).reshape(dtype.itemsize, -1)
            content = np.ascontiguousarray(shuffled.T).tobytes()
    if len(content) != size:
        raise ValueError(
            f"a chunk must have {size} bytes, as the dataset states. Received: {len(content)} bytes"
        )
    return content


def _unpacked(content: bytes, size: int) -> bytes:
    """Return the `size` bytes of a complete gzip stream. No bytes may follow the stream.

    HDF5 itself ignores bytes after the chunk or the stream.
    """
    stream = zlib.decompressobj()
    unpacked = stream.decompress(content, size + 1)  # one byte more shows a longer stream
    if len(unpacked) != size or not stream.eof or stream.unused_data:
        more = " or more" if len(unpacked) > size else ""
        raise ValueError(
            f"a chunk must be one complete gzip stream of {size} bytes. Received: {len(content)} "
            f"bytes with a stream of {len(unpacked)} bytes{more}"
        )
    return unpacked
