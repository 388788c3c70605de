"""Training on several devices on JAX: `keras.distribution`, in one process or several."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils

from keras_tokenlearner.training.distribution.devices import Devices, transformer_layout


def several() -> bool:
    """Return whether JAX has more than one device."""
    _initialize()
    return jax.device_count() > 1


def data_parallel() -> "JaxDevices":
    """Return a `JaxDevices` that gives each device a part of every batch."""
    _initialize()
    return JaxDevices(keras.distribution.DataParallel(auto_shard_dataset=False))


def model_parallel(count: int | None) -> "JaxDevices":
    """Return a `JaxDevices` that divides weights over `count` devices, and batches over groups.

    Args:
        count: Integer, devices of a group. `None` for all devices of a process.

    Raises:
        ValueError: If `count` does not divide the number of devices.
    """
    _initialize()
    count = count or jax.local_device_count()
    if jax.device_count() % count:
        raise ValueError(
            f"scope: N in model_parallel:N must divide the number of devices; pass another "
            f"`mode`. Received: model_parallel:{count} with {jax.device_count()} devices"
        )
    mesh = keras.distribution.DeviceMesh(
        (jax.device_count() // count, count), ["batch", "model"], jax.devices()
    )
    return JaxDevices(
        keras.distribution.ModelParallel(
            layout_map=transformer_layout(mesh), auto_shard_dataset=False
        )
    )


def _initialize() -> None:
    """Connect to the other processes of JAX, if environment variables name them."""
    named = any(name.startswith("KERAS_DISTRIBUTION_") for name in os.environ)
    slice_hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    if (named or "," in slice_hosts) and not jax.distributed.is_initialized():
        keras.distribution.initialize()


class JaxDevices(Devices):
    """The devices of a `keras.distribution.Distribution`."""

    def __init__(
        self, distribution: keras.distribution.DataParallel | keras.distribution.ModelParallel
    ) -> None:
        self.distribution = distribution
        self.replicas = distribution.num_model_replicas
        self.processes, self.process = jax.process_count(), jax.process_index()

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        with self.distribution.scope():
            try:
                yield
            except ValueError as error:
                if not re.search("divisible|evenly divide", str(error)):
                    raise
                shape = dict(
                    zip(
                        self.distribution.device_mesh.axis_names,
                        self.distribution.device_mesh.shape,
                        strict=True,
                    )
                )
                raise ValueError(
                    "scope: the size of every batch, also the last, must be a multiple of the "
                    "number of replicas. With model_parallel:N, the numbers of heads and hidden "
                    "units must be multiples of N. Change `batch_size` or N. "
                    f"Received: devices {shape}. Reason: {error}"
                ) from error

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        before = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(before)

    def to_numpy(self, variable: keras.Variable) -> np.ndarray:
        value = variable.value
        if value.is_fully_addressable or value.is_fully_replicated:
            return np.asarray(value)
        return multihost_utils.process_allgather(value, tiled=True)

    def _prepare(self, model: keras.Model) -> None:
        """Make `predict` return all outputs in every process, also outputs of remote devices."""
        if self.processes == 1 or "predict_step" in vars(model):
            return
        step, mesh = model.predict_step, self.distribution.device_mesh

        def predict_step(state: Any, data: Any) -> tuple[jax.Array, Any]:
            outputs, state = step(state, data)
            layout = keras.distribution.TensorLayout([None] * outputs.ndim, mesh)
            return keras.distribution.distribute_tensor(outputs, layout), state

        model.predict_step = predict_step

    def _shard(self) -> tuple[int, int]:
        parts = min(self.processes, self.replicas)
        return self.distribution.data_shard_id, parts
