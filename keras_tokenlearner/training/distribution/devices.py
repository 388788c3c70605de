import contextlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias, TypedDict, Unpack, cast

import keras
import numpy as np

from keras_tokenlearner.data import Batches
from keras_tokenlearner.data.batches import reading_errors
from keras_tokenlearner.layers.composite import parts_of
from keras_tokenlearner.models.names import BLOCKS
from keras_tokenlearner.training.check_callbacks import check_callbacks

# The divided axis of each weight, by the end of its path: heads in attention, hidden units in MLPs.
# The last kernel of an attention or MLP is divided along its inputs, other kernels along their
# outputs. Devices then exchange only two sums per block: one for the attention, one for the MLP.
_AXES = {
    r"self_attention/(query|key|value)/kernel": (None, "model", None),  # (C, heads, d)
    r"self_attention/(query|key|value)/bias": ("model", None),
    r"self_attention/attention_output/kernel": ("model", None, None),  # (heads, d, C)
    r"mlp/(hidden|gate)/kernel": (None, "model"),
    r"mlp/(hidden|gate)/bias": ("model",),
    r"mlp/output/kernel": ("model", None),
}


# Data of `fit` and `evaluate`. Iterables are other data sets of Keras.
Data: TypeAlias = (
    Batches | Sequence[np.ndarray] | keras.utils.PyDataset | Iterable[Sequence[np.ndarray]]
)


class FitArguments(TypedDict, total=False):
    """Keyword arguments that `Devices.fit` passes to `model.fit`."""

    epochs: int
    initial_epoch: int
    verbose: str | int
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None
    class_weight: dict[int, float]
    steps_per_epoch: int
    validation_steps: int
    validation_freq: int


class Devices:
    """Training on one device. Subclasses are for several devices. `scope` selects the class.

    In one process, Keras's own `fit`, `evaluate` and `predict` work inside the scope too. On
    TensorFlow, BatchNormalization and gradient clipping need the method `fit` of this class. The
    methods of this class also work in several processes. These methods raise an error where Keras
    would fail or train on one device only.

    Attributes:
        replicas: Integer, number of parts of a batch that are computed in parallel.
        processes: Integer, number of processes.
        process: Integer, index of this process.

    Example:

    >>> devices = Devices()
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> devices.predict(model, np.ones((5, 2)), batch_size=4).shape
    (5, 1)
    """

    replicas, processes, process = 1, 1, 0

    @property
    def writes(self) -> bool:
        """Whether this process writes files. Only one process of a run does."""
        return self.process == 0

    def scope(self) -> AbstractContextManager[None]:
        """Return the context in which models are built and trained."""
        return contextlib.nullcontext()

    def alone(self) -> AbstractContextManager[None]:
        """Return a context in which this process creates models and arrays on its own.

        Use the context inside `scope`. On JAX, the context turns off `keras.distribution`.
        """
        return contextlib.nullcontext()

    def fit(
        self,
        model: keras.Model,
        batches: Batches,
        validation_data: Data | None = None,
        validation_batch_size: int = 500,
        **arguments: Unpack[FitArguments],
    ) -> keras.callbacks.History:
        """Train a model as `model.fit` does, with each batch divided among the processes.

        Args:
            model: A compiled `keras.Model`, built inside the scope.
            batches: `keras_tokenlearner.data.Batches`. Its `batch_size` is the global batch size.
            validation_data: `Batches`, or a tuple of arrays: inputs and targets. In one process,
                also other data sets of Keras, such as a `keras.utils.PyDataset`.
            validation_batch_size: Integer, examples per batch if `validation_data` are arrays,
                rounded up to a multiple of `replicas`.
            **arguments: Arguments of `model.fit`. `callbacks` may be one callback.

        Returns:
            The `keras.callbacks.History`.

        Raises:
            ValueError: If an argument has another type, or the batches cannot be divided. Also if
                `keras.distribution` is set on a backend that ignores it. Also if the optimizer
                cannot accumulate gradients on these devices.
        """
        check_keras_distribution("Devices.fit")
        callbacks = check_callbacks("Devices.fit", arguments.get("callbacks"))
        data = [batches]
        if validation_data is not None:
            validation_data = self._batches(
                "validation_data", validation_data, validation_batch_size
            )
            data.append(validation_data)
        for optimizer in optimizers_of(model):
            self.check_accumulation("Devices.fit", optimizer.gradient_accumulation_steps)
        if not self.writes:
            arguments["verbose"] = 0
        arguments["callbacks"] = [*self._callbacks(), *callbacks]
        with self._sharing(*data):
            self._prepare(model)
            with reading_errors(*data), self._fitting(model):
                return model.fit(
                    batches, shuffle=False, validation_data=validation_data, **arguments
                )

    def evaluate(self, model: keras.Model, data: Data, batch_size: int = 500) -> dict[str, float]:
        """Return the results of `model.evaluate` for all examples, as a dictionary.

        Args:
            model: A compiled `keras.Model`.
            data: `Batches`, or a tuple of arrays: inputs and targets. In one process, also other
                data sets of Keras, such as a `keras.utils.PyDataset`.
            batch_size: Integer, examples per batch if `data` are arrays, rounded up to a multiple
                of `replicas`.

        Raises:
            ValueError: If `data` has another type, or cannot be divided.
        """
        batches = self._batches("data", data, batch_size)
        with self._sharing(batches):
            self._prepare(model)
            with reading_errors(batches):
                return model.evaluate(
                    batches, callbacks=self._callbacks(), verbose=0, return_dict=True
                )

    def predict(self, model: keras.Model, x: np.ndarray, batch_size: int = 500) -> np.ndarray:
        """Return the result of `model.predict` for all examples, on every process."""
        self._prepare(model)
        padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % self.replicas, axis=0)])
        batches = self._batches("x", (padded,), batch_size)
        with self._sharing(batches):
            outputs = model.predict(batches, verbose=0)
        return self._gather(outputs, batches.batch_size)[: len(x)]

    def weights(self, model: keras.Model) -> list[np.ndarray]:
        """Return the result of `model.get_weights`, collected from all devices."""
        return [self.to_numpy(weight) for weight in model.weights]

    def to_numpy(self, variable: keras.Variable) -> np.ndarray:
        """Return the whole value of a variable. All processes must call this method."""
        return keras.ops.convert_to_numpy(variable)

    def check_accumulation(self, owner: str, steps: int | None) -> None:
        """Raise `ValueError` if optimizers cannot accumulate gradients on these devices.

        Args:
            owner: Name of the caller, for the error message.
            steps: The `gradient_accumulation_steps` of an optimizer. `None` or 1 for none.
        """

    def _prepare(self, model: keras.Model) -> None:
        """Prepare a model for several processes, once."""

    def _callbacks(self) -> list[keras.callbacks.Callback]:
        """Return callbacks for `fit` and `evaluate` that run before the callbacks of the user."""
        return []

    def _fitting(self, model: keras.Model) -> AbstractContextManager[None]:
        """Return the context in which `fit` trains a model."""
        return contextlib.nullcontext()

    def _gather(self, outputs: np.ndarray, batch_size: int) -> np.ndarray:
        """Return the outputs of all processes in the order of the examples."""
        return outputs

    @contextlib.contextmanager
    def _sharing(self, *data: Batches) -> Iterator[None]:
        """Return a context in which each batch has only the part of this process.

        Raises:
            ValueError: If the batches cannot be divided.
        """
        for batches in data:
            self._check_share(batches)
        ours = [batches for batches in data if isinstance(batches, Batches)]
        before = [(batches.shard, batches.alone, batches.ordered) for batches in ours]
        for batches in ours:
            batches.shard, batches.alone, batches.ordered = self._shard(), self.alone, True
        try:
            yield
        finally:  # the user may pass the batches to `model.fit` afterwards
            for batches, state in zip(ours, before, strict=True):
                batches.shard, batches.alone, batches.ordered = state

    def _check_share(self, batches: Batches) -> None:
        """Raise `ValueError` for batches that cannot be divided among the processes."""
        if isinstance(batches, Batches):
            last = batches.batch_size * len(batches) - len(batches.arrays[0])
            for size in (batches.batch_size, max(last, 0)):
                if size % self.replicas:
                    raise ValueError(
                        "Devices: the size of every batch, also the last, must be a multiple "
                        f"of {self.replicas} replicas; change `batch_size`, or remove examples. "
                        f"Received: {len(batches.arrays[0])} examples, "
                        f"batch_size={batches.batch_size}"
                    )
        elif self.processes > 1:
            raise ValueError(
                "Devices: `batches` must be a keras_tokenlearner.data.Batches for training in "
                f"several processes. Received: {type(batches).__name__}"
            )

    def _shard(self) -> tuple[int, int]:
        """Return the index of this process's part of every batch, and the number of parts."""
        return self.process, self.processes

    def _batches(self, name: str, data: Data, batch_size: int) -> Batches:
        """Return batches of all examples in some arrays, with about `batch_size` examples each.

        Args:
            name: Name of the argument of the caller, for the error message.
            data: Batches, which stay unchanged, or arrays. In one process, other data sets stay
                unchanged too.
            batch_size: Integer, rounded up to a multiple of `replicas`.

        Raises:
            ValueError: If `data` is of another type.
        """
        if isinstance(data, (tuple, list)) and data and all(map(_is_array, data)):
            batch_size = -(-min(batch_size, len(data[0])) // self.replicas) * self.replicas
            return Batches(tuple(data), batch_size, shuffle=False, partial=True)
        if not isinstance(data, Batches) and (self.processes > 1 or not _is_data_set(data)):
            raise ValueError(
                f"Devices: `{name}` must be a keras_tokenlearner.data.Batches, or a tuple of "
                "arrays such as (x, y). In one process, other data sets of Keras are valid too. "
                f"Received: {name}={repr(data)[:200]}"
            )
        return cast("Batches", data)  # or a data set, which only Keras reads


def _is_array(value: object) -> bool:
    """Return whether a value is an array with rows, or a list of rows."""
    return isinstance(value, (tuple, list)) or bool(getattr(value, "shape", ()))


def _is_data_set(value: object) -> bool:
    """Return whether Keras may read batches from a value, as from a `tf.data.Dataset`."""
    if hasattr(value, "shape") or isinstance(value, (tuple, list, dict, set, str, bytes)):
        return False
    return isinstance(value, keras.utils.PyDataset) or hasattr(value, "__iter__")


def optimizers_of(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Return the optimizers of a model that clip, accumulate and average, without wrappers."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:  # the model is not compiled
        return []
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if hasattr(inner, "optimizers") and model.built and not optimizer.built:
        optimizer.build(model.trainable_variables)  # asks its function for the optimizers
    return getattr(inner, "optimizers", [inner])


def check_keras_distribution(owner: str) -> None:
    """Raise `ValueError` for `keras.distribution` on TensorFlow and PyTorch, which ignore it."""
    found, backend = keras.distribution.distribution(), keras.backend.backend()
    if found is not None and backend != "jax":
        raise ValueError(
            f"{owner}: keras.distribution has no effect on {backend}, which would train on one "
            "device. Call keras.distribution.set_distribution(None), and use "
            "keras_tokenlearner.training.distribution.scope('data_parallel'). Or set "
            f"KERAS_BACKEND=jax. Received: {type(found).__name__}"
        )


def batch_normalizations(model: keras.Model) -> Iterator[keras.layers.BatchNormalization]:
    """Yield the BatchNormalization layers that learn, also inside other layers.

    Frozen layers normalise by a stored mean and variance, not by the statistics of a batch.
    """
    for _, part, _ in parts_of(model):
        if isinstance(part, keras.layers.BatchNormalization) and part.trainable:
            yield part


def transformer_layout(mesh: keras.distribution.DeviceMesh) -> keras.distribution.LayoutMap:
    """Return the layout that divides weights of our transformers over the `model` axis of a mesh.

    Args:
        mesh: A `keras.distribution.DeviceMesh` with an axis `"model"`.

    Returns:
        A `keras.distribution.LayoutMap`. Other weights are on every device.

    Source: Shoeybi et al., "Megatron-LM: Training Multi-Billion Parameter Language Models Using
    Model Parallelism", 2019, section 3.
    """
    layout = keras.distribution.LayoutMap(mesh)
    for path, axes in _AXES.items():
        layout[rf".*{BLOCKS}/{path}"] = axes
    return layout
