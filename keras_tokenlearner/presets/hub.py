"""Finds the files of a preset in a folder, or downloads them with the hub's library."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from urllib.parse import urlsplit

from keras_tokenlearner._errors import errors_of
from keras_tokenlearner._extras import require
from keras_tokenlearner.presets.addresses import FORMS, Address
from keras_tokenlearner.presets.kaggle import download_from_kaggle
from keras_tokenlearner.weights.formats.parts import parts_of
from keras_tokenlearner.weights.saving import sha256
from keras_tokenlearner.weights.store import download

# Names of weight files in a folder. The first existing file is read.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.weights.h5",
    "model.weights.json",
)
HEAD = "task.weights.h5"  # keras-hub keeps the backbone in another file
TASK = "task.json"  # keras-hub's classifier
CONFIGS = (
    "config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "image_converter.json",
    TASK,
    HEAD,
)
# PyTorch's hub writes the first digits of the sha256 into file names: vit_b_16-c867db91.pth. A name
# may also end in a date, so digits without a letter do not count as a hash. This rule skips 1 in 43
# hashes.
_HASH_IN_NAME = re.compile(r"-(?=\d*[a-f])([0-9a-f]{8,})\.\w+$")


@dataclass(frozen=True)
class PresetFiles:
    """The files of a preset on this machine.

    Attributes:
        weights: Path of the weights, or of the index file of weights in several parts.
        configs: Paths of the JSON files and of keras-hub's head, by name.
        linear_head: Path of DINOv2's linear head, or `None`.
    """

    weights: Path
    configs: dict[str, Path]
    linear_head: Path | None = None


def fetch_files(owner: str, address: Address) -> PresetFiles:
    """Return the files at an address. Download them if they are not in the cache of the hub.

    Raises:
        ImportError: If the hub's library is not installed.
        ValueError: If the path, repository or revision does not exist, or has no weights. A private
            repository on Hugging Face counts as missing.
        PermissionError: If the repository is gated, or private on Kaggle.
        ConnectionError: If the network fails, and the files are not in the cache.
    """
    if address.kind == "path":
        return _from_path(owner, Path(address.place))
    if address.kind == "https":
        return PresetFiles(_from_https(owner, address.place), {})
    if address.kind == "kaggle":
        return _from_path(owner, download_from_kaggle(owner, address.place))
    return _from_hf(owner, address)


def _from_path(owner: str, path: Path) -> PresetFiles:
    if path.is_file():
        configs = _configs(path.parent) if path.name in WEIGHTS else {}
        return PresetFiles(path, configs, _linear_head(path))
    if not path.is_dir():
        raise ValueError(
            f"{owner}: the preset must be a name of list_checkpoints(), an existing file or "
            f"folder, or {FORMS}. Received: {str(path)!r}, which does not exist"
        )
    for name in WEIGHTS:
        if (path / name).is_file():
            return PresetFiles(path / name, _configs(path))
    raise ValueError(
        f"{owner}: the folder of a preset must have one of the files {list(WEIGHTS)}. "
        f"Received: path={str(path)!r}"
    )


def _linear_head(backbone: Path) -> Path | None:
    """Return the file of the linear head next to a DINOv2 backbone, if it has Meta's name."""
    if not backbone.name.startswith("dinov2_"):
        return None
    head = backbone.with_name(backbone.name.replace("_pretrain.", "_linear_head."))
    return head if head != backbone and head.is_file() else None


def _configs(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in CONFIGS if (folder / name).is_file()}


def _from_https(owner: str, uri: str) -> Path:
    if uri.partition("?")[0].endswith(".json"):
        raise ValueError(
            f"{owner}: an https address must point to a weights file, not to a JSON file. If the "
            "weights are split, download the index and all parts to a folder, and pass the "
            f"folder. Received: {uri}"
        )
    with errors_of(owner):
        path = download(uri)
    found = _HASH_IN_NAME.search(PurePosixPath(urlsplit(uri).path).name)
    if found and not sha256(path).startswith(found[1]):
        path.unlink()
        raise ValueError(
            f"{owner}: {uri} is damaged or was changed: its name states a sha256 that starts with "
            f"{found[1]}. Download the file again"
        )
    return path


def _from_hf(owner: str, address: Address) -> PresetFiles:
    hub = require("huggingface_hub", "hf")
    errors = require("huggingface_hub.errors", "hf")

    def get(name: str) -> Path | None:
        given = {"repo_id": address.place, "filename": name, "revision": address.revision}
        is_absent = False
        try:
            # For a name that the repository lacks, the cache has an object instead of a path.
            # Without a network, a request takes 20 seconds. The first request updates the cache.
            is_absent = not isinstance(hub.try_to_load_from_cache(**given), (str, type(None)))
            if is_absent and name != CONFIGS[0]:
                return None
            return Path(hub.hf_hub_download(**given))
        except errors.LocalEntryNotFoundError as error:
            # Caches of earlier versions have the weights, but do not mark this file as absent.
            is_older = name == "processor_config.json" and any(
                isinstance(hub.try_to_load_from_cache(**given | {"filename": one}), str)
                for one in WEIGHTS
            )
            if is_absent or is_older or _is_offline(hub):
                return None
            raise ConnectionError(_unreachable(owner, f"hf://{address.place}", error)) from None
        except errors.EntryNotFoundError:
            return None
        except Exception as error:
            raise _hf_error(owner, address, errors, error) from None

    configs = {name: path for name in CONFIGS if (path := get(name))}
    for name in WEIGHTS:
        path = get(name)
        if path is None:
            continue
        if name.endswith(".json"):
            _get_parts(owner, path, get)
        return PresetFiles(path, configs)
    if _is_offline(hub):
        raise ConnectionError(
            f"{owner}: hf://{address.place} is not in the cache, and HF_HUB_OFFLINE forbids the "
            "download; unset HF_HUB_OFFLINE for the first download"
        )
    raise ValueError(
        f"{owner}: the repository of a preset must have one of the files {list(WEIGHTS)}. "
        f"Received: hf://{address.place}"
    )


def _is_offline(hub: object) -> bool:
    constants = getattr(hub, "constants", None)
    return bool(getattr(constants, "HF_HUB_OFFLINE", False))


def _get_parts(owner: str, index: Path, get: Callable[[str], Path | None]) -> None:
    for name in parts_of(owner, index):
        if get(name) is None:
            raise ValueError(
                f"{owner}: the repository must have all files that {index.name} names. "
                f"Missing: {name}"
            )


def _hf_error(owner: str, address: Address, errors: ModuleType, error: Exception) -> Exception:
    """Return the error to raise for an error of the hub's library, with our own message."""
    place = f"hf://{address.place}"
    if isinstance(error, errors.GatedRepoError):
        return PermissionError(
            f"{owner}: {place} is gated. Accept its licence on its page of the hub, then log in "
            "with `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ValueError(
            f"{owner}: the revision must be a branch, tag or commit of {place}. "
            f"Received: revision={address.revision!r}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ValueError(
            f"{owner}: the repository does not exist or is private; check the spelling, or log "
            f"in with `hf auth login`. Received: preset={place!r}"
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return ConnectionError(
            f"{owner}: {place} is not in the cache, and HF_HUB_OFFLINE forbids the download; "
            "unset HF_HUB_OFFLINE for the first download"
        )
    return ConnectionError(_unreachable(owner, place, error))


def _unreachable(owner: str, place: str, error: Exception) -> str:
    return (
        f"{owner}: {place} could not be downloaded ({type(error).__name__}) and is not in the "
        "cache; check the network and try again"
    )
