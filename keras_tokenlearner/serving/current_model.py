"""Holds the version of a model that answers requests, and replaces it by newer versions."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypedDict

import numpy as np

from keras_tokenlearner.serving.batching import Batcher
from keras_tokenlearner.serving.served_model import Key, ServedModel
from keras_tokenlearner.serving.versions import is_version, newest_version

SECONDS = 2.0  # between two checks for a newer version

Arrays: TypeAlias = dict[str, np.ndarray]


class VersionStatus(TypedDict):
    """State of a version, in the format of TensorFlow Serving."""

    version: str
    state: str
    status: dict[str, str]


class Loaded(NamedTuple):
    """A loaded version of a model, and the batcher that answers its requests."""

    model: ServedModel
    batcher: Batcher[Key, Arrays, Arrays]

    @property
    def version(self) -> str:
        """Name of the version's folder, or `"1"` if this name is not a version number."""
        name = self.model.folder.name
        return name if is_version(name) else "1"


class CurrentModel:
    """The newest version of an exported model. A running server replaces it by newer versions.

    A request reads the attribute `now` once and uses this version to the end of the request. An
    older version therefore finishes its requests. Its memory is freed after its last request.

    Args:
        path: `pathlib.Path` of the folder of the versions, or of one version, which is never
            replaced.
        max_batch: Integer, rows of the largest batch.
        observe: Function that is called for each batch, with a list of the seconds that each row
            waited.
        warms_up: Boolean, whether a version runs batches of 1, 2, 4, ... rows before it answers
            requests.

    Raises:
        ValueError: If the folder contains no exported model.
    """

    def __init__(
        self,
        path: Path,
        max_batch: int = 32,
        observe: Callable[[Sequence[float]], None] | None = None,
        warms_up: bool = True,
    ) -> None:
        self.path = path
        self.max_batch = max_batch
        self.observe = observe
        self.warms_up = warms_up
        self.stopping = threading.Event()
        self.now = self._load(path)
        self.ended: list[str] = []
        self.failed: dict[Path, str] = {}

    def warm_up(self) -> None:
        """Run the current version with batches of 1, 2, 4, ... rows."""
        if self.warms_up:
            self.now.model.warm_up(self.max_batch, self.stopping)

    async def follow(self, seconds: float = SECONDS) -> None:
        """Replace the current version by the newest version, whenever they differ, until cancelled.

        If the folder of the current version is deleted, an older version becomes current.

        If a newer version cannot be loaded, the error is logged and the older version stays.

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
            (folder.name, "END", "UNKNOWN", reason) for folder, reason in self.failed.items()
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
        model = ServedModel(path)
        batcher = Batcher(
            model.answer, self.max_batch, max_weight=model.max_pixels, observe=self.observe
        )
        return Loaded(model, batcher)

    def _replace(self) -> None:
        folder = newest_version(self.path)
        if folder is None or folder == self.now.model.folder or folder in self.failed:
            return
        try:
            loaded = self._load(folder)
            if self.warms_up:
                loaded.model.warm_up(self.max_batch, self.stopping)
        except Exception as error:  # noqa: BLE001, the older version stays
            self.failed[folder] = str(error)
            logging.getLogger(__name__).exception(
                "version %s cannot be loaded; the current version stays", folder.name
            )
            return
        self.ended = [x for x in self.ended if x != loaded.version] + [self.now.version]
        self.now = loaded
