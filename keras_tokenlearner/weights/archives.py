"""Zip archives of arrays, checked before anything in them is unpacked."""

import zipfile
import zlib

import numpy as np
from numpy.lib import format as npy

# What an archive may unpack to: 20 times its own size, and 64 MiB in any case. Trained weights
# hardly compress; an archive that claims more is a zip bomb.
_RATIO, _FLOOR = 20, 64 << 20


def read_npz(path):
    """Return the arrays of a `.npz` file by name, or raise `ValueError`.

    Sizes are compared with those that the archive declares before memory is taken, and arrays of
    Python objects, which are pickles, are refused.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_sizes(path, members, max(_FLOOR, _RATIO * path.stat().st_size))
            arrays = [_read_array(archive, member) for member in members]
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
        raise ValueError(f"read: {path} is damaged or no npz file: {error}") from error
    except Exception as error:  # what numpy raises on a damaged header has no bounds
        raise ValueError(f"read: {path} is refused: {error}") from error
    return {m.filename.removesuffix(".npy"): a for m, a in zip(members, arrays, strict=True)}


def check_torch_zip(path):
    """Raise `ValueError` unless a PyTorch file is an uncompressed zip, as PyTorch writes them."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # what zipfile raises on a damaged directory has no bounds
        raise ValueError(
            f"read: {path} is damaged, or a bare pickle as PyTorch wrote them before 1.6; save it "
            f"again with torch.save: {error}"
        ) from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError(f"read: {path} is refused: PyTorch writes no compressed entries")
    _check_sizes(path, members, path.stat().st_size)


def _check_sizes(path, members, limit):
    if len({member.filename for member in members}) != len(members):
        raise ValueError(f"read: {path} is refused: it holds two entries of one name")
    total = sum(member.file_size for member in members)
    if total > limit:
        raise ValueError(
            f"read: {path} is refused as a zip bomb: it would unpack to {total} bytes, and "
            f"{limit} is the most for its size"
        )


def _read_array(archive, member):
    if not member.filename.endswith(".npy"):
        raise ValueError(f"{member.filename} is no array")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is compressed in a way that numpy does not use")
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{member.filename} has the unknown format version {version}")
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, dtype = header(stream)
        if dtype.hasobject:
            raise ValueError(f"{member.filename} is an array of Python objects")
        # Python integers: sizes of a hostile header do not overflow.
        size = dtype.itemsize
        for length in shape:
            size *= length
        if size != member.file_size - stream.tell():
            raise ValueError(
                f"{member.filename} claims shape {shape} of {dtype}, which is not what it stores"
            )
        content = stream.read()
    array = np.frombuffer(content, dtype)
    return array.reshape(shape[::-1]).T if is_fortran else array.reshape(shape)
