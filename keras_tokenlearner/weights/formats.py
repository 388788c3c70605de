"""The only reader of untrusted checkpoint bytes: formats, limits and errors.

Checkpoints are data. Nothing in them is executed, and names and shapes are known before an array
is read. The size of a file bounds its claims. Only requested arrays are read.
"""

from __future__ import annotations

import collections.abc
import functools
import json
import math
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar, Union, cast

import keras
import ml_dtypes  # a dependency of Keras
import numpy as np
from numpy.lib import format as npy

from keras_tokenlearner._extras import require

if TYPE_CHECKING:
    import h5py
    import torch

# Limit of the unpacked arrays of a file: a multiple of its size, and at least 64 MiB.
# Trained weights hardly compress; a file that claims more is a bomb.
_RATIO, _FLOOR = 20, 64 << 20
_MOST_ENTRIES = 100_000
_MOST_JSON = 64 << 20
_DEPTH = 32
_LISTED = 6
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_KINDS = "a .npz, .safetensors, .h5, PyTorch or Flax (.msgpack) file, or the .index.json of parts"

_T = TypeVar("_T")

PathLike = Union[str, "os.PathLike[str]"]
CheckpointLike = Union[
    PathLike, "Checkpoint", Mapping[str, object], "keras.Model", "torch.nn.Module"
]


class Entry:
    """An entry of a checkpoint: a shape, a type, and a function that reads the array.

    Args:
        shape: Tuple of integers; `None` for a value that is no array.
        dtype: numpy type; `None` for a type that numpy lacks.
        read: Function that returns the array.
        problem: Reason why the array cannot be read, or `None`.
    """

    __slots__ = ("shape", "dtype", "_read", "problem")

    def __init__(
        self,
        shape: tuple[int, ...] | None = None,
        dtype: np.dtype | None = None,
        read: Callable[[], np.ndarray] | None = None,
        problem: str | None = None,
    ) -> None:
        self.shape, self.dtype, self._read = shape, dtype, read
        self.problem = problem or (None if read else "no array")

    @classmethod
    def of(cls, array: np.ndarray) -> Entry:
        return cls(tuple(array.shape), array.dtype, lambda: array)

    @property
    def nbytes(self) -> int:
        if self.shape is None or self.dtype is None:
            return 0
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_float(self) -> bool:
        """Whether it is an array of numbers of floating point."""
        if self.problem or self.dtype is None:
            return False
        return self.dtype.kind == "f" or self.dtype in (_BFLOAT16, np.dtype("V2"))

    def read(self) -> np.ndarray:
        """Return the array; bfloat16, which numpy lacks, as float32."""
        if self._read is None:
            raise ValueError(f"it is {self.problem}")
        array = self._read()
        if array.dtype == np.dtype("V2"):  # bfloat16, as numpy and HDF5 store it
            array = array.view(_BFLOAT16)
        return array.astype(np.float32) if array.dtype == _BFLOAT16 else array


class Checkpoint(Mapping[str, "np.ndarray | None"]):
    """The names and arrays of a file or a mapping. Each array is read on request.

    Values that are no arrays (a number of epochs, training options) are `None`.

    Attributes:
        entries: Names to `Entry`, with shapes, before anything is read.
        origin: Origin of the entries: a path, or "a mapping".
    """

    def __init__(self, entries: Mapping[str, Entry], origin: str) -> None:
        self.entries, self.origin = dict(entries), origin

    def __getitem__(self, name: str) -> np.ndarray | None:
        entry = self.entries[name]
        return None if entry.problem == "no array" else entry.read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def read_checkpoint(checkpoint: CheckpointLike, owner: str = "read_checkpoint") -> Checkpoint:
    """Return the entries of a checkpoint with names and shapes. Arrays are read later, one by one.

    Args:
        checkpoint: One of these. A `.npz`, `.safetensors`, `.h5`, PyTorch (`.pt`, `.pth`, `.bin`)
            or Flax (`.msgpack`, `checkpoint`) file: its content decides the format, not its name.
            The `.index.json` of a file in several parts. A mapping of names to arrays, nested or
            flat; the levels are joined by "/". A model of PyTorch or Keras.
        owner: String, the function that the user called, for error messages.

    Returns:
        A `Checkpoint`.

    Raises:
        ValueError: If the file is missing, damaged or of another kind. If it holds anything but
            plain arrays, or claims much more than its size on disk allows.

    Example:

    >>> np.savez("mine.npz", kernel=np.ones((2, 3)))
    >>> read_checkpoint("mine.npz").entries["kernel"].shape
    (2, 3)
    """
    if isinstance(checkpoint, Checkpoint):
        return checkpoint
    if isinstance(checkpoint, collections.abc.Mapping):
        return Checkpoint(_flatten(owner, checkpoint), "a mapping")
    if isinstance(checkpoint, keras.Layer):  # before modules, which it is too on PyTorch
        weights = {weight.path: weight for weight in checkpoint.weights}
        return Checkpoint(_flatten(owner, weights), f"the model {checkpoint.name!r}")
    if hasattr(checkpoint, "state_dict"):
        return Checkpoint(_flatten(owner, checkpoint.state_dict()), "a PyTorch module")
    if not isinstance(checkpoint, (str, os.PathLike)):
        raise ValueError(
            f"{owner}: a checkpoint must be {_KINDS}, a mapping or a model. "
            f"Received: {type(checkpoint).__name__}"
        )
    path = Path(checkpoint)
    if not path.is_file():
        raise ValueError(f"{owner}: there is no such file. Received: {str(path)!r}")
    entries = _reader(owner, path)(owner, path)
    if len(entries) > _MOST_ENTRIES:
        raise ValueError(f"{owner}: {path} is refused: it holds {len(entries)} entries")
    return Checkpoint(entries, str(path))


def read_npz(path: PathLike, owner: str = "read_npz") -> dict[str, np.ndarray]:
    """Return all arrays of a `.npz` file by name, or raise `ValueError`.

    Sizes are checked against the directory of the archive before memory is taken. Arrays of Python
    objects are pickles, and raise an error.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{owner}: there is no such file. Received: {str(path)!r}")
    return {name: entry.read() for name, entry in _read_npz(owner, path).items()}


def listed(names: collections.abc.Iterable[object], most: int = _LISTED) -> str:
    """Return names in one line, or the first few of many."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(str(name)[:120] for name in names[:most]) + more


_Entries = dict[str, Entry]


def _reader(owner: str, path: Path) -> Callable[[str, Path], _Entries]:
    """Return the function that reads a file, by its first bytes."""
    with path.open("rb") as stream:
        start = stream.read(10)
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _read_torch if _is_torch(owner, path) else _read_npz
    if start[:8] == b"\x89HDF\r\n\x1a\n":
        return _read_h5
    if path.suffix == ".json":
        return _read_parts
    if path.suffix == ".safetensors" or (len(start) > 8 and start[8:9] == b"{" and start[7] == 0):
        return _read_safetensors
    if path.suffix == ".msgpack" or path.name.startswith("checkpoint"):
        return _read_msgpack
    if path.suffix in (".pt", ".pth", ".bin"):
        raise ValueError(
            f"{owner}: {path} is damaged, or a bare pickle as PyTorch wrote them before 1.6; save "
            "it again with torch.save"
        )
    if path.suffix in (".npz", ".h5"):
        kind = {".npz": "npz", ".h5": "HDF5"}[path.suffix]
        raise ValueError(f"{owner}: {path} is damaged or no {kind} file")
    raise ValueError(f"{owner}: a checkpoint must be {_KINDS}. Received: {str(path)!r}")


def _flatten(
    owner: str,
    mapping: Mapping[str, object],
    flat: _Entries | None = None,
    prefix: str = "",
    depth: int = 0,
) -> _Entries:
    flat = {} if flat is None else flat
    if depth > _DEPTH:
        raise ValueError(f"{owner}: mappings are nested more than {_DEPTH} deep, at {prefix[:40]}")
    for name, value in mapping.items():
        full = f"{prefix}{name}"
        if isinstance(value, collections.abc.Mapping):
            _flatten(owner, value, flat, f"{full}/", depth + 1)
        else:
            flat[full] = _entry(value)
        # A mapping under two names doubles at every level: the count has an end, not the depth.
        if len(flat) > _MOST_ENTRIES:
            raise ValueError(f"{owner}: mappings hold more than {_MOST_ENTRIES} entries")
    return flat


def _entry(value: object) -> Entry:
    """Return a value as an entry; reading it raises the reason if it is no plain array."""
    if isinstance(value, Entry):
        return value
    if isinstance(value, keras.Variable):
        dtype = _BFLOAT16 if value.dtype == "bfloat16" else np.dtype(value.dtype)
        return Entry(tuple(value.shape), dtype, lambda: keras.ops.convert_to_numpy(value))
    if hasattr(value, "detach"):
        return _torch_entry(cast("torch.Tensor", value))
    if not hasattr(value, "shape"):
        return Entry()
    try:
        array = np.asarray(value)
    except Exception as error:  # arrays of other libraries raise errors of any type
        return Entry(problem=f"an array that numpy cannot hold ({error})")
    if array.dtype.hasobject:
        return Entry(problem="an array of Python objects, which are refused")
    return Entry.of(array)


def _torch_entry(tensor: torch.Tensor) -> Entry:
    try:
        shape = tuple(int(size) for size in tensor.shape)
        kind = str(tensor.dtype).removeprefix("torch.")
        if tensor.is_quantized or str(tensor.layout) != "torch.strided" or tensor.is_nested:
            return Entry(shape, problem="a sparse, nested or quantized tensor, which are refused")
        if tensor.is_meta:
            return Entry(shape, problem="a tensor on the meta device, which holds no values")
        size = tensor.numel() * tensor.element_size()
        if size > tensor.untyped_storage().nbytes():
            return Entry(problem=f"a tensor that claims shape {shape}, more than it stores")
    except Exception as error:  # tensors of rare kinds lack attributes of plain ones
        return Entry(problem=f"a tensor of a kind that is refused ({error})")
    if kind not in _TORCH:
        return Entry(shape, problem=f"a tensor of {kind}, which numpy lacks")
    dtype = _BFLOAT16 if kind == "bfloat16" else np.dtype(kind)

    def read() -> np.ndarray:
        plain = tensor.detach().cpu()
        return (plain.float() if kind == "bfloat16" else plain).numpy()

    return Entry(shape, dtype, read)


_TORCH = (
    "bfloat16",
    "bool",
    *(f"float{bits}" for bits in (16, 32, 64)),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
)


def _check_total(owner: str, path: Path, total: int, ratio: int = _RATIO) -> None:
    limit = max(_FLOOR, ratio * path.stat().st_size)
    if total > limit:
        raise ValueError(
            f"{owner}: {path} is refused as a bomb: it would unpack to {total} bytes, and {limit} "
            "is the most for its size"
        )


# Zip archives: .npz of numpy, and PyTorch's.


def _open_zip(owner: str, path: Path) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    try:
        archive = zipfile.ZipFile(path)
        members = archive.infolist()
    except Exception as error:  # zipfile raises errors of any type on a damaged directory
        raise ValueError(f"{owner}: {path} is damaged or no npz file: {error}") from error
    if len({member.filename for member in members}) != len(members):
        raise ValueError(f"{owner}: {path} is refused: it holds two entries of one name")
    return archive, members


def _is_torch(owner: str, path: Path) -> bool:
    if path.suffix == ".npz":
        return False
    if path.suffix in (".pt", ".pth", ".bin"):
        return True
    archive, members = _open_zip(owner, path)
    archive.close()
    return any(member.filename.endswith("data.pkl") for member in members)


def _read_npz(owner: str, path: Path) -> _Entries:
    archive, members = _open_zip(owner, path)
    _check_total(owner, path, sum(member.file_size for member in members))
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
        raise ValueError(f"{owner}: {path} is damaged or no npz file: {error}") from error
    except Exception as error:  # numpy raises errors of any type on a damaged header
        raise ValueError(f"{owner}: {path} is refused: {error}") from error


def _npz_entry(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Entry:
    if not member.filename.endswith(".npy"):
        raise ValueError(f"{member.filename} is no array")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is compressed in a way that numpy does not use")
    with archive.open(member) as stream:
        shape, is_fortran, dtype = _npy_header(member.filename, stream)
        start = stream.tell()
    if dtype.hasobject:
        raise ValueError(f"{member.filename} is an array of Python objects")
    # Python integers: sizes of a hostile header do not overflow.
    if dtype.itemsize * math.prod(shape) != member.file_size - start:
        raise ValueError(
            f"{member.filename} claims shape {shape} of {dtype}, which differs from its stored size"
        )

    def read() -> np.ndarray:
        with archive.open(member) as stream:
            content = stream.read(member.file_size)
            if stream.read(1):
                raise ValueError(f"{member.filename} is longer than it claims")
        array = np.frombuffer(content, dtype, offset=start)
        return array.reshape(shape[::-1]).T if is_fortran else array.reshape(shape)

    return Entry(shape, dtype, read)


def _npy_header(name: str, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(stream)
    if version == (1, 0):
        return npy.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy.read_array_header_2_0(stream)
    raise ValueError(f"{name} has the unknown format version {version}")


def _read_torch(owner: str, path: Path) -> _Entries:
    import_torch = require("torch", "torch")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        clean = Path(folder) / "clean.pt"
        _copy_torch_zip(owner, path, clean)
        try:
            # Memory-mapped, a storage cannot reach beyond the file, whatever size it claims.
            content = import_torch.load(clean, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # a damaged or hostile pickle raises errors of any type
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"{owner}: {path} is damaged or holds more than tensors, and is not unpickled: "
                f"{reason}"
            ) from error
    if not isinstance(content, collections.abc.Mapping):
        raise ValueError(
            f"{owner}: {path} holds a {type(content).__name__}, not a state dict of names to "
            "tensors"
        )
    entries = _flatten(owner, content)
    # One tensor may have several names, but not so many that they fill the memory.
    _check_total(owner, path, sum(entry.nbytes for entry in entries.values()), ratio=2)
    return entries


def _copy_torch_zip(owner: str, path: Path, to: Path) -> None:
    """Copy the members of a PyTorch file to a new one, with their checksums compared.

    A zip may have two directories: Python reads one and PyTorch the other. PyTorch compares no
    checksums. It reads the copy, which has one directory and checked bytes.
    """
    archive, members = _open_zip(owner, path)
    with archive, zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as copy:
        if any("/code/" in member.filename for member in members):
            raise ValueError(
                f"{owner}: {path} is refused: it is a TorchScript archive, which holds code; save "
                "its state_dict() with torch.save"
            )
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError(f"{owner}: {path} is refused: PyTorch writes no compressed entries")
        total = sum(member.file_size for member in members)
        if total > path.stat().st_size:
            raise ValueError(
                f"{owner}: {path} is refused as a zip bomb: it would unpack to {total} bytes"
            )
        for member in members:
            info = zipfile.ZipInfo(member.filename)
            # Storages start at multiples of 64 bytes, as PyTorch writes them.
            used = cast("IO[bytes]", copy.fp).tell() + 30 + len(info.filename.encode()) + 4
            info.extra = b"FB" + struct.pack("<H", -used % 64) + b"Z" * (-used % 64)
            info.file_size = member.file_size
            try:
                with archive.open(member) as source, copy.open(info, "w") as target:
                    left = member.file_size
                    while content := source.read(1 << 20):
                        left -= len(content)
                        if left < 0:
                            raise ValueError("an entry is longer than it claims")
                        target.write(content)
                    if left:
                        raise ValueError("an entry is shorter than it claims")
            except Exception as error:  # damaged members raise much
                raise ValueError(f"{owner}: {path} is damaged: {error}") from error


# Safetensors, Flax, HDF5, and files in parts.


def _read_safetensors(owner: str, path: Path) -> _Entries:
    safetensors = require("safetensors", "weights")
    try:
        file = safetensors.safe_open(path, framework="numpy")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        kinds = {name: part.get_dtype() for name, part in slices.items()}
    except Exception as error:  # the library's own error, and the system's errors
        raise ValueError(f"{owner}: {path} is damaged or no safetensors file: {error}") from error

    def read(name: str) -> np.ndarray:
        try:
            return file.get_tensor(name)
        except Exception as error:
            raise ValueError(f"{owner}: {name} of {path} cannot be read: {error}") from error

    entries = {}
    for name, shape in shapes.items():
        dtype = _SAFETENSORS.get(kinds[name])
        if dtype is None:
            entries[name] = Entry(shape, problem=f"of type {kinds[name]}, which numpy lacks")
        else:
            entries[name] = Entry(shape, dtype, functools.partial(read, name))
    return entries


_SAFETENSORS = {
    **{f"F{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    **{
        f"{kind}{bits}": np.dtype(f"<{kind.lower()}{bits // 8}")
        for kind in "IU"
        for bits in (8, 16, 32, 64)
    },
    "BF16": _BFLOAT16,
    "BOOL": np.dtype("?"),
}

# Flax stores arrays as extension types: (shape, name of the type, bytes).
_FLAX_ARRAY, _FLAX_SCALAR = 1, 3
_FLAX_CHUNKED = "__msgpack_chunked_array__"


def _read_msgpack(owner: str, path: Path) -> _Entries:
    msgpack = require("msgpack", "weights")
    size = path.stat().st_size
    count = 0

    def counted(value: object) -> object:
        # Each of a file's bytes may be an empty dictionary of 64: their number is limited.
        nonlocal count
        count += 1
        if count > _MOST_ENTRIES:
            raise ValueError(f"it holds more than {_MOST_ENTRIES} dictionaries and lists")
        return value

    def unpack(content: bytes) -> object:
        return msgpack.unpackb(
            content,
            raw=False,
            strict_map_key=False,
            ext_hook=extension,
            object_hook=counted,
            list_hook=counted,
            max_map_len=_MOST_ENTRIES,
            max_array_len=_MOST_ENTRIES,
            max_str_len=1 << 16,
            max_bin_len=size,
            max_ext_len=size,
        )

    def extension(code: int, content: bytes) -> object:
        if code not in (_FLAX_ARRAY, _FLAX_SCALAR):
            return None  # a complex number, or a type that Flax does not write
        shape, kind, data = cast("tuple[tuple[int, ...], object, bytes]", unpack(content))
        dtype = _BFLOAT16 if kind == "bfloat16" else np.dtype(str(kind))
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data):
            raise ValueError(f"it has an array of shape {shape} of {dtype} in {len(data)} bytes")
        return np.frombuffer(data, dtype).reshape(shape)

    try:
        tree = unpack(path.read_bytes())
        if not isinstance(tree, dict):
            raise ValueError(f"it holds a {type(tree).__name__}, not a tree")
        return _flatten(owner, cast("Mapping[str, object]", _joined(tree)))
    except Exception as error:  # a damaged file raises errors of any type
        raise ValueError(f"{owner}: {path} is damaged or no Flax checkpoint: {error}") from error


def _joined(tree: dict) -> object:
    """Return a tree with large arrays joined from their stored pieces."""
    if _FLAX_CHUNKED in tree:
        shape = [tree["shape"][str(axis)] for axis in range(len(tree["shape"]))]
        pieces = [tree["chunks"][str(number)] for number in range(len(tree["chunks"]))]
        return np.concatenate([piece.ravel() for piece in pieces]).reshape(shape)
    return {
        name: _joined(value) if isinstance(value, dict) else value for name, value in tree.items()
    }


def _read_parts(owner: str, path: Path) -> _Entries:
    """Read the files next to an index, which lists the file of each entry."""
    try:
        if path.stat().st_size > _MOST_JSON:
            raise ValueError(f"it is larger than {_MOST_JSON} bytes")
        files = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        parts: dict[str, set[str]] = {str(file): set() for file in files.values()}
        for name, file in files.items():
            parts[str(file)].add(name)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{owner}: {path} is damaged or no index of parts: {error!r}") from error
    entries: _Entries = {}
    for file, names in sorted(parts.items()):
        if Path(file).name != file or file in ("", "..") or file.endswith(".json"):
            raise ValueError(f"{owner}: {path} is refused: {file!r} is no file next to it")
        part = read_checkpoint(path.with_name(file), owner).entries
        if set(part) != names:
            wrong = listed(sorted(names.symmetric_difference(part)))
            raise ValueError(
                f"{owner}: {path} and {file} do not belong together: only one of them has {wrong}"
            )
        entries |= part
    return entries


def _read_h5(owner: str, path: Path) -> _Entries:
    import h5py  # a dependency of Keras, which writes these files with it

    entries: _Entries = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            entries[name] = _h5_entry(owner, path, name, item)
        if len(entries) > _MOST_ENTRIES:
            raise ValueError(f"it holds more than {_MOST_ENTRIES} arrays")

    try:
        file = h5py.File(path, "r", locking=False)
        file.visititems(visit)
    except Exception as error:  # the library raises errors of any type on a damaged file
        raise ValueError(f"{owner}: {path} is damaged or no HDF5 file: {error}") from error
    _check_total(owner, path, sum(entry.nbytes for entry in entries.values()))
    return entries


def _h5_entry(owner: str, path: Path, name: str, item: h5py.Dataset) -> Entry:
    try:
        dtype = item.dtype
    except Exception as error:  # a type that numpy lacks, such as HDF5's time
        return Entry(problem=f"of a type that numpy lacks ({error})")
    if item.shape is None:
        return Entry(problem="an empty dataset")
    if item.external is not None or item.is_virtual or dtype.hasobject:
        raise ValueError(f"{name} is no plain array")
    read = _h5_reader(name, item)

    def guarded() -> np.ndarray:
        try:
            return read()
        except Exception as error:
            raise ValueError(f"{owner}: {name} of {path} is damaged: {error}") from error

    return Entry(tuple(item.shape), dtype, guarded)


def _h5_reader(name: str, item: h5py.Dataset) -> Callable[[], np.ndarray]:
    """Return a reader of a dataset, after a check that it is stored completely."""
    size = item.size * item.dtype.itemsize
    filters = _h5_filters(name, item) if item.chunks else []
    if not filters:
        if item.id.get_storage_size() < size:
            raise ValueError(
                f"{name} claims more than it stores: shape {item.shape} in "
                f"{item.id.get_storage_size()} bytes"
            )
        return lambda: item[()]
    chunk_size = math.prod(item.chunks) * item.dtype.itemsize
    wanted = math.prod(-(-n // c) for n, c in zip(item.shape, item.chunks, strict=True))
    stored = item.id.get_num_chunks()
    if wanted != stored or wanted > 1_000_000 or chunk_size > max(8 << 20, 4 * size):
        raise ValueError(f"{name} claims more than it stores: {wanted} chunks, {stored} stored")

    def read() -> np.ndarray:
        # HDF5's own gzip filter never ends on some damaged chunks: they are unpacked here.
        array = np.empty(item.shape, item.dtype)
        for index in range(stored):
            offset = item.id.get_chunk_info(index).chunk_offset
            mask, content = item.id.read_direct_chunk(offset)
            if mask:
                raise ValueError("a chunk skips its filters")
            chunk = np.frombuffer(_unfiltered(content, filters, item.dtype, chunk_size), item.dtype)
            region = tuple(
                slice(start, min(start + c, n))
                for start, c, n in zip(offset, item.chunks, item.shape, strict=True)
            )
            inner = tuple(slice(0, part.stop - part.start) for part in region)
            array[region] = chunk.reshape(item.chunks)[inner]
        return array

    return read


_DEFLATE, _SHUFFLE = 1, 2  # HDF5's numbers of its filters


def _h5_filters(name: str, item: h5py.Dataset) -> list[int]:
    settings = item.id.get_create_plist()
    filters = [settings.get_filter(index)[0] for index in range(settings.get_nfilters())]
    if set(filters) - {_DEFLATE, _SHUFFLE} or len(filters) > 2:
        raise ValueError(f"{name} is compressed by filters other than gzip: {filters[:8]}")
    return filters


def _unfiltered(content: bytes, filters: list[int], dtype: np.dtype, size: int) -> bytes:
    for kind in reversed(filters):
        if kind == _DEFLATE:
            stream = zlib.decompressobj()
            content = stream.decompress(content, size)
            if len(content) != size or not (stream.eof or stream.decompress(b"", 1) == b""):
                raise ValueError("a chunk is not of the size that it claims")
        else:
            shuffled = np.frombuffer(content, np.uint8).reshape(dtype.itemsize, -1)
            content = np.ascontiguousarray(shuffled.T).tobytes()
    if len(content) != size:
        raise ValueError("a chunk is not of the size that it claims")
    return content
