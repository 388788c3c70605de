"""Reads the `.pt`, `.pth` and `.bin` files of PyTorch: zip archives with a pickle of tensors."""

from __future__ import annotations

import collections.abc
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import IO, cast

from keras_tokenlearner._errors import first_line
from keras_tokenlearner._extras import require
from keras_tokenlearner.weights.formats.entries import Entry, check_total, flat_entries
from keras_tokenlearner.weights.formats.npz import open_zip


def is_torch(owner: str, path: Path) -> bool:
    """Return whether a zip archive is a checkpoint of PyTorch."""
    if path.suffix == ".npz":
        return False
    if path.suffix in (".pt", ".pth", ".bin"):
        return True
    archive, members = open_zip(owner, path)
    archive.close()
    return any(member.filename.endswith("data.pkl") for member in members)


def torch_entries(owner: str, path: Path) -> dict[str, Entry]:
    """Return the tensors of a .pt file by name, read with `weights_only=True`."""
    import_torch = require("torch", "torch")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        clean = Path(folder) / "clean.pt"
        _copy_torch_zip(owner, path, clean)
        try:
            # A memory-mapped storage cannot extend beyond the file, whatever size its header
            # states.
            content = import_torch.load(clean, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # a damaged or malicious pickle raises errors of any type
            raise ValueError(
                f"{owner}: {path} is not unpickled, because it is damaged or contains more than "
                "tensors. Save only the model's state_dict() with torch.save. "
                f"Error of torch.load: {first_line(error)}"
            ) from error
    if not isinstance(content, collections.abc.Mapping):
        raise ValueError(
            f"{owner}: {path} must contain a state dict from names to tensors; save it with "
            f"torch.save(model.state_dict(), ...). Received: {type(content).__name__}"
        )
    entries = flat_entries(owner, content)
    # A tensor may have several names. The limit keeps its copies from filling the memory.
    check_total(owner, path, sum(entry.nbytes for entry in entries.values()), ratio=2)
    return entries


def _copy_torch_zip(owner: str, path: Path, to: Path) -> None:
    """Copy the members of a PyTorch file to a new zip archive, and compare their checksums.

    A zip archive may have two directories: Python reads one, PyTorch the other. PyTorch compares no
    checksums. PyTorch therefore reads the copy, which has one directory and checked bytes.
    """
    archive, members = open_zip(owner, path)
    with archive, zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as copy:
        if any("/code/" in member.filename for member in members):
            raise ValueError(
                f"{owner}: {path} is refused: it is a TorchScript archive, which contains code; "
                "save the model's state_dict() with torch.save"
            )
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError(
                f"{owner}: {path} is refused: it has compressed entries, which PyTorch never "
                "writes; save it again with torch.save"
            )
        total = sum(member.file_size for member in members)
        if total > path.stat().st_size:
            raise ValueError(
                f"{owner}: {path} is refused as a decompression bomb: it would unpack to {total} "
                f"bytes, more than its {path.stat().st_size} bytes. Save it again with torch.save"
            )
        for member in members:
            info = zipfile.ZipInfo(member.filename)
            # Storages start at multiples of 64 bytes, as PyTorch writes them.
            used = cast("IO[bytes]", copy.fp).tell() + 30 + len(info.filename.encode()) + 4
            info.extra = b"FB" + struct.pack("<H", -used % 64) + b"Z" * (-used % 64)
            info.file_size = member.file_size
            try:
                with archive.open(member) as stream, copy.open(info, "w") as target:
                    left = member.file_size
                    while content := stream.read(1 << 20):
                        left -= len(content)
                        if left < 0:
                            raise ValueError("an entry must not be longer than its header states")
                        target.write(content)
                    if left:
                        raise ValueError("an entry must not be shorter than its header states")
            except Exception as error:  # damaged members raise errors of any type
                raise ValueError(
                    f"{owner}: {path} is damaged; download or save it again. Reason: {error}"
                ) from error
