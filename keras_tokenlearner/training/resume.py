import contextlib
import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import keras
import numpy as np

from keras_tokenlearner._checks import check_bool, check_int, check_is, check_path
from keras_tokenlearner._extras import require
from keras_tokenlearner._files import move
from keras_tokenlearner._json import JSON
from keras_tokenlearner.data import Batches
from keras_tokenlearner.models.state import update_constants
from keras_tokenlearner.training.distribution import Devices
from keras_tokenlearner.weights.formats.npz import read_npz


class _Place(TypedDict):
    """The position that training has reached, and the logs of the earlier epochs."""

    epoch: int
    batch: int
    history: list[dict[str, float | list[float]]]


class Resume(keras.callbacks.Callback):
    """Saves the whole state of a training run. A killed run continues to the same result.

    `keras.callbacks.BackupAndRestore` saves weights, optimizer and epoch, in two files. `Resume`
    also saves random states, metrics of an interrupted epoch, the position in the data and the
    history. `Resume` writes one file, completely or not at all. On one device, the continued run
    has bitwise the same weights and history as an uninterrupted run.

    The file is written when training starts, so a path without write access fails early. Later
    writes follow every epoch, and every `save_freq` batches. The file is as large as the weights
    and the optimizer's state. During a write, two files exist. The last file remains after
    training. Delete it when the results are saved.

    Args:
        path: Path of the file, which ends in `.npz`.
        batches: `keras_tokenlearner.data.Batches`, as passed to `fit`.
        save_freq: `"epoch"`, or an integer: save also after this number of batches. With
            `steps_per_execution`, the save follows the end of the execution.
        loggers: Callbacks such as `keras.callbacks.CSVLogger`. A continued run reports the earlier
            epochs to these callbacks again. Pass the callbacks to `fit` too.
        devices: The result of `keras_tokenlearner.training.distribution.scope`. All processes read
            the file, but only one process writes it.
        run: Dictionary of JSON values that determine the run, such as its settings. The file
            contains this dictionary, and a run with other values raises an error.
        restart: Boolean, whether to ignore an existing file, which the new run replaces when
            training starts.

    Attributes:
        initial_epoch: Integer for `fit`, the epoch at which training continues.

    Raises:
        ValueError: If the file is damaged, or was saved with other values of `run`. In training, if
            the file was saved with another model, or another run has overwritten the file. Also if
            `fit` has another `initial_epoch`, or an epoch has more or fewer steps than `batches`.
        FloatingPointError: In training, if the loss is not finite. The file contains the last
            finite state.
        OSError: In training, if the file cannot be written. The previous file remains.

    Example:

    >>> import tempfile
    >>> from keras_tokenlearner.data import Batches
    >>> path = tempfile.mkdtemp() + "/backup.npz"
    >>> batches = Batches((np.ones((8, 4)), np.ones((8, 1))), batch_size=4)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> resume = Resume(path, batches)
    >>> history = model.fit(batches, epochs=2, callbacks=[resume], verbose=0)
    >>> Resume(path, batches).initial_epoch
    2
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        batches: Batches,
        save_freq: Literal["epoch"] | int = "epoch",
        loggers: Sequence[keras.callbacks.Callback] = (),
        devices: Devices | None = None,
        run: Mapping[str, JSON] | None = None,
        restart: bool = False,
    ) -> None:
        super().__init__()
        check_bool("Resume", "restart", restart)
        self.path = check_path("Resume", "path", path)
        wanted = "a keras_tokenlearner.data.Batches"
        self.batches = check_is("Resume", "batches", batches, Batches, wanted)
        self.save_freq: Literal["epoch"] | int = (
            save_freq if save_freq == "epoch" else _freq(save_freq)
        )
        try:
            self.run = json.loads(json.dumps(run or {}))
        except (TypeError, ValueError) as error:
            raise ValueError(
                "Resume: `run` must be a dictionary of JSON values; pass str(path) for a path. "
                f"Received: run={repr(run)[:200]}"
            ) from error
        self.batches.start = 0  # an interrupted run may have left another value
        self.loggers = loggers
        self.devices = devices or Devices()
        self.place: _Place = {"epoch": 0, "batch": 0, "history": []}
        self._quiet = contextlib.ExitStack()
        self._last: list[tuple[keras.Variable, np.ndarray]] = []
        self._saved = self._read() if self.path.is_file() and not restart else None
        self._written = self._stamp()
        if self._saved and run is not None:
            self._check_run(self._saved)

    def _read(self) -> dict[str, np.ndarray]:
        """Return the arrays of the file, and set `place` from it. Raise if the file was edited."""
        arrays = read_npz(self.path, "Resume")
        try:
            place, paths = (json.loads(str(arrays[name])) for name in ("place", "paths"))
            run = json.loads(str(arrays.get("run", "{}")))
            numbers = [arrays[str(index)] for index in range(len(paths))]
            fits = (
                _is_place(place, len(self.batches))
                and isinstance(run, dict)
                and all(isinstance(path, str) for path in paths)
                and all(found.dtype.kind in "fiub" or found.dtype == "V2" for found in numbers)
            )
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"Resume: {self.path} is damaged or was edited; delete the file to start training "
                f"again. Reason: {error!r}"
            ) from error
        if not fits:
            raise ValueError(
                f"Resume: {self.path} was edited, or was saved by a run with other batches; delete "
                "the file to start training again"
            )
        self.place = place
        return arrays

    def _stamp(self) -> tuple[int, int, int] | None:
        """Return values that change with each write of the file, or `None` without a file."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _check_run(self, arrays: dict[str, np.ndarray]) -> None:
        """Raise a `ValueError` that lists the differences if the file has other values of `run`."""
        saved = json.loads(str(arrays["run"])) if "run" in arrays else {}
        changed = changes(saved, self.run)
        if changed:
            raise ValueError(
                f"Resume: {self.path} was saved by a run with other settings. Use the same "
                "settings, delete the file, or pass `restart=True` (`--restart`) to `train`. "
                "Received: " + "; ".join(changed)
            )

    @property
    def initial_epoch(self) -> int:
        return self.place["epoch"]

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if self.params["steps"] != len(self.batches):
            raise ValueError(
                "Resume: every epoch of `fit` must have all `batches`; pass the same `batches` to "
                "`fit`, without `steps_per_epoch`. For shorter epochs, make `batches` of fewer "
                f"rows. Received: {self.params['steps']} steps per epoch, {len(self.batches)} "
                "batches"
            )
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        if self._saved:
            self._restore(self._saved)
        else:
            self._save(0, 0)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if epoch != self.place["epoch"]:
            raise ValueError(
                f"Resume: `initial_epoch` of `fit` must be {self.initial_epoch}, the epoch at "
                f"which {self.path} continues; pass initial_epoch=resume.initial_epoch. Received: "
                f"initial_epoch={epoch}"
            )
        self.batches.epoch, self.batches.start = epoch, self.place["batch"]
        if self.batches.start and self._saved:
            self._quiet.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Your input ran out of data")
            self._restore(self._saved)  # above all the metrics, which Keras has reset
        if self._saved:
            self._replay()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if keras.backend.backend() == "torch":  # on PyTorch, Dropout uses the global random state
            place = (self.batches.seed, self.place["epoch"], self.batches.start + batch)
            random = np.random.default_rng((*place, self.devices.process))
            require("torch", "torch").manual_seed(int(random.integers(2**63)))

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        # With `steps_per_execution`, Keras counts the last execution as full, even if it is not.
        last = batch + 1 >= len(self.batches)
        done = self.batches.start + batch + 1
        if last and self.batches.start and keras.backend.backend() == "tensorflow":
            self._last = [(v, self.devices.to_numpy(v)) for v in self._variables()]
        passed = self.save_freq != "epoch" and (
            done // self.save_freq > self.place["batch"] // self.save_freq
        )
        if passed and not last:
            self._check(logs or {})
            self._save(self.place["epoch"], done)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        self._undo()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        self._quiet.close()
        self._undo()
        self._check(logs)
        self.batches.start = 0
        self.place["history"].append({name: _plain(value) for name, value in logs.items()})
        self._save(epoch + 1, 0)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self._saved:  # no epoch remained
            self._replay()

    def _undo(self) -> None:
        """Undo the partial step that TensorFlow runs at the end of a continued epoch."""
        for variable, value in self._last:
            variable.assign(value)
        self._last = []

    def _replay(self) -> None:
        """Report the earlier epochs to the history and the loggers."""
        self._saved = None
        for epoch, logs in enumerate(self.place["history"]):
            for callback in (self.model.history, *self.loggers):
                found = {name: _restored(value) for name, value in logs.items()}
                callback.on_epoch_end(epoch, found)

    def _check(self, logs: dict[str, float]) -> None:
        if not np.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"Resume: the loss became {logs['loss']} in epoch {self.place['epoch']}. "
                f"{self.path} has the last finite weights. Train with a lower learning rate or "
                "with gradient clipping"
            )

    def _variables(self) -> list[keras.Variable]:
        model = self.model
        return [
            *model.trainable_variables,
            *model.non_trainable_variables,  # these include the random states
            *model.optimizer.variables,
            *model.metrics_variables,
        ]

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        paths = json.loads(str(arrays["paths"]))
        if len(self._variables()) < len(paths):
            # TensorFlow creates the metrics in the first step.
            self.model.test_on_batch(*self.batches[0])
        variables = self._variables()
        fits = _unnumbered(variable.path for variable in variables) == _unnumbered(paths)
        shapes = [arrays[str(index)].shape for index in range(len(paths))]
        if not fits or [tuple(variable.shape) for variable in variables] != shapes:
            raise ValueError(
                f"Resume: {self.path} was saved with another model, optimizer or backend. Train "
                "with the same settings, or delete the file to start training again"
            )
        for index, variable in enumerate(variables):
            value = arrays[str(index)]
            if value.dtype.kind == "V":  # restores bfloat16, which numpy stores as raw bytes
                value = value.view(keras.ops.convert_to_numpy(variable).dtype)
            variable.assign(value)
        update_constants(self.model)

    def _save(self, epoch: int, batch: int) -> None:
        self.place["epoch"], self.place["batch"] = epoch, batch
        variables = self._variables()
        arrays: dict[str, Any] = {
            str(index): self.devices.to_numpy(v) for index, v in enumerate(variables)
        }
        if not self.devices.writes:
            return
        arrays["run"] = json.dumps(self.run)
        arrays["place"] = json.dumps(self.place)
        arrays["paths"] = json.dumps([variable.path for variable in variables])
        if self._stamp() not in (None, self._written):
            raise ValueError(
                f"Resume: another run overwrote {self.path} during this run. The file now has the "
                "state of the other run. End the other run, or pass another `path`"
            )
        unfinished = self.path.with_suffix(".unfinished")
        try:
            with open(unfinished, "wb") as stream:
                np.savez(stream, **arrays)
            move(unfinished, self.path)
            self._written = self._stamp()
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            last = "The previous backup is unchanged" if self.path.is_file() else "No backup exists"
            raise OSError(
                f"Resume: {self.path} cannot be written. {last}. Free disk space, or pass another "
                f"`path`. Reason: {error}"
            ) from error


def changes(saved: Mapping[str, JSON], run: Mapping[str, JSON]) -> list[str]:
    """Return a text for each value of a saved run that differs from the same value of this run.

    Example:

    >>> changes({"seed": 0, "epochs": 2}, {"seed": 1, "epochs": 2})
    ['seed: 0, now 1']
    """
    return [
        f"{name}: {saved.get(name)!r}, now {run.get(name)!r}"
        for name in sorted(saved.keys() | run.keys())
        if saved.get(name) != run.get(name)
    ]


def _freq(save_freq: int) -> int:
    return check_int("Resume", "save_freq", save_freq)


def _is_place(place: _Place, steps: int) -> bool:
    """Return whether a saved position is possible in a run with this number of steps per epoch."""
    epoch, batch, history = place["epoch"], place["batch"], place["history"]
    values = [value for logs in history for value in logs.values()] if history else []
    return (
        type(epoch) is type(batch) is int
        and epoch == len(history)
        and 0 <= batch < max(1, steps)
        and all(isinstance(value, (int, float, list)) for value in values)
    )


def _unnumbered(paths: Iterable[str]) -> list[str]:
    """Return paths without the numbers that Keras gives to names.

    Keras counts names per process: a second Muon optimizer is called `muon_1`.
    """
    return [re.sub(r"_\d+(?=[_/]|$)", "", path) for path in paths]


def _plain(value: float | keras.KerasTensor) -> float | list[float]:
    """Return a metric as a JSON value: a float, or a list for a metric with a value per class."""
    return np.asarray(keras.ops.convert_to_numpy(value)).tolist()


def _restored(value: float | list[float]) -> float | np.ndarray:
    """Convert a metric from JSON to its type in the logs of `fit`: a list becomes an array."""
    return np.array(value, "float32") if isinstance(value, list) else value
