"""Training on several devices on TensorFlow: the strategies of `tf.distribute`."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NoReturn

import keras
import tensorflow as tf

from keras_tokenlearner.training.distribution.devices import Devices, batch_normalizations


def several() -> bool:
    """Return whether this machine has several GPUs, or `TF_CONFIG` or `TPU_NAME` is set."""
    named = "TF_CONFIG" in os.environ or "TPU_NAME" in os.environ
    return named or len(tf.config.list_logical_devices("GPU")) > 1


def data_parallel() -> "TensorFlowDevices":
    """Return the devices of the `tf.distribute` strategy that fits the environment."""
    if "TPU_NAME" in os.environ:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(os.environ["TPU_NAME"])
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return TensorFlowDevices(tf.distribute.TPUStrategy(resolver))
    if "TF_CONFIG" in os.environ:
        return WorkerDevices(_Workers())
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return TensorFlowDevices(tf.distribute.MirroredStrategy([device.name for device in devices]))


def model_parallel(count: int | None) -> NoReturn:
    """Raise `ValueError`: in Keras 3.15, model parallelism works on JAX only."""
    raise ValueError(
        "scope: model_parallel needs JAX; set KERAS_BACKEND=jax. Received: KERAS_BACKEND=tensorflow"
    )


class TensorFlowDevices(Devices):
    """The replicas of a `tf.distribute` strategy that runs in one process."""

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy
        self.replicas = strategy.num_replicas_in_sync

    def scope(self) -> AbstractContextManager[None]:
        return self.strategy.scope()

    @contextlib.contextmanager
    def _fitting(self, model: keras.Model) -> Iterator[None]:
        """Make BatchNormalization use the mean and variance of the global batch, as on JAX."""
        apart = [layer for layer in batch_normalizations(model) if not layer.synchronized]
        for layer in apart:
            layer.synchronized = True
        try:
            yield
        finally:
            for layer in apart:  # a saved model with this flag would not load on other backends
                layer.synchronized = False


class _Workers(tf.distribute.MultiWorkerMirroredStrategy):
    """`MultiWorkerMirroredStrategy`, with the attributes that `fit` of Keras 3.15 needs."""

    def reduce(
        self,
        reduce_op: tf.distribute.ReduceOp,
        value: "tf.Tensor | tuple[tf.Tensor, ...]",
        axis: int | None,
    ) -> "tf.Tensor | tuple[tf.Tensor, ...]":
        if isinstance(value, tuple):  # a batch, from which Keras reads only the shapes
            return tf.nest.map_structure(lambda v: self.experimental_local_results(v)[0], value)
        return super().reduce(reduce_op, value, axis=None)  # a loss is a scalar, without axis 0


class WorkerDevices(TensorFlowDevices):
    """The replicas of a strategy in several processes. The strategy itself divides the batches."""

    def __init__(self, strategy: _Workers) -> None:
        super().__init__(strategy)
        resolver = strategy.cluster_resolver
        self.processes = len(resolver.cluster_spec().as_dict()["worker"])
        self.process = resolver.task_id

    def _shard(self) -> tuple[int, int]:
        return 0, 1
