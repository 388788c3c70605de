"""Holds the version of a model that answers requests, and replaces it by newer versions."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypedDict

import numpy as np

from keras_tokenlearner.serving.batching import Batcher
from keras_tokenlearner.serving.served_model import Key, ServedModel
from keras_tokenlearner.serving.versions import is_version, newest_version

SECONDS = 2.0  # between two checks for a newer version
RETRY_SECONDS = 60.0  # from a failed load of a version to the next attempt

Arrays: TypeAlias = dict[str, np.ndarray]


class VersionStatus(TypedDict):
    """State of a version, in the format of TensorFlow Serving."""

    version: str
    state: str
    status: dict[str, str]


# Device, inode number and modification time of a folder, to detect a new folder of the same name.
Identity: TypeAlias = tuple[int, int, int]


class Loaded(NamedTuple):
    """A loaded version of a model, and the batcher that answers its requests."""

    model: ServedModel
    batcher: Batcher[Key, Arrays, Arrays]
    identity: Identity | None = None

    @property
    def version(self) -> str:
        """Name of the version's folder, or `"1"` if this name is not a version number."""
        name = self.model.folder.name
        return name if is_version(name) else "1"

    def answers_for(self, version: str | None) -> bool:
        """Return whether a request for a version, or without one, gets answers of this version."""
        return version in (None, "", self.version)


class Failure(NamedTuple):
    """A version that could not be loaded. `retry` is the time of the next attempt."""

    identity: Identity
    reason: str
    retry: float


class CurrentModel:
    """The newest version of an exported model. A running server replaces it by newer versions.

    A request reads the attribute `now` once and uses this version to the end of the request. An
    older version therefore finishes its requests. Its memory is freed after its last request.

    Args:
        path: `pathlib.Path` of the folder of the versions, or of one version. If `path` is one
            version, newer versions are ignored.
        max_batch: Integer, largest number of rows in a batch.
        observe: Function that is called for each batch, with a list of the seconds that each row
            waited.
        warms_up: Boolean, whether a version runs batches of 1, 2, 4, ... rows before it answers
            requests.
        check: Function that is called with the `ServedModel` of each version. If it raises
            `ValueError` for a newer version, the older version stays.

    Raises:
        ValueError: If the folder contains no exported model, or a model without the signature
            `serving_default`. Also if `check` raises `ValueError`.
    """

    def __init__(
        self,
        path: Path,
        max_batch: int = 32,
        observe: Callable[[Sequence[float]], None] | None = None,
        warms_up: bool = True,
        check: Callable[[ServedModel], None] | None = None,
    ) -> None:
        self.path = path
        self.max_batch = max_batch
        self.observe = observe
        self.warms_up = warms_up
        self.check = check
        self.stopping = threading.Event()
        self.now = self._load(path)
        self.ended: list[str] = []
        self.failed: dict[Path, Failure] = {}
        self.unread = ""  # the error of the last check, to log it once

    def warm_up(self) -> None:
        """Run the current version with batches of 1, 2, 4, ... rows."""
        if self.warms_up:
            self.now.model.warm_up(self.max_batch, self.stopping)

    async def follow(self, seconds: float = SECONDS) -> None:
        """Replace the current version by the newest version, whenever they differ, until cancelled.

        A folder that was deleted and exported again is a new version, although its name is old.

        If the folder of the current version is deleted, an older version becomes current. Without
        an older version, the deleted version stays current.

        If a newer version cannot be loaded, the error is logged and the older version stays. The
        next attempt follows after a minute, or when the folder changes.

        Args:
            seconds: Time between two checks.
        """
        while True:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self._replace)

    def status(self) -> list[VersionStatus]:
        """Return `model_version_status` in the format of TensorFlow Serving.

        Source: GetModelStatusResponse of TensorFlow Serving.
        """
        states = [(self.now.version, "AVAILABLE", "OK", "")]
        states += [(version, "END", "OK", "") for version in self.ended]
        states += [
            (folder.name, "END", "UNKNOWN", failure.reason)
            for folder, failure in self.failed.items()
        ]
        return [
            {
                "version": version,
                "state": state,
                "status": {"error_code": code, "error_message": message},
            }
            for version, state, code, message in states
        ]

    def _load(self, path: Path) -> Loaded:
        folder = newest_version(path)
        identity = None if folder is None else _identity(folder)  # before the files are read
        model = ServedModel(path)
        if self.check is not None:
            self.check(model)
        batcher = Batcher(
            model.answer, self.max_batch, max_weight=model.max_pixels, observe=self.observe
        )
        return Loaded(model, batcher, identity)

    def _replace(self) -> None:
        try:
            folder = newest_version(self.path)
        except OSError as error:  # for example of a network folder; the next check may succeed
            if str(error) != self.unread:
                logging.getLogger(__name__).exception("%s cannot be read", self.path)
            self.unread = str(error)
            return
        self.unread = ""
        if folder is None:
            return
        identity = _identity(folder)
        current = folder == self.now.model.folder and identity == self.now.identity
        failed = self.failed.get(folder)
        if identity is None or current:
            return
        if failed and failed.identity == identity and time.monotonic() < failed.retry:
            return
        try:
            loaded = self._load(folder)
            if self.warms_up:
                loaded.model.warm_up(self.max_batch, self.stopping)
        except Exception as error:  # noqa: BLE001, the older version stays
            # A copy into a subfolder does not change the identity of the folder.
            retry = time.monotonic() + RETRY_SECONDS
            self.failed[folder] = Failure(identity, str(error), retry)
            if failed is None or failed.reason != str(error):
                logging.getLogger(__name__).exception(
                    "version %s cannot be loaded; the current version stays", folder.name
                )
            return
        self.failed.pop(folder, None)
        ended = [*self.ended, self.now.version]
        self.ended = [version for version in ended if version != loaded.version]
        self.now = loaded


def _identity(folder: Path) -> Identity | None:
    """Return the identity of a folder, or `None` for a deleted folder."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns
