"""Training on several devices on TensorFlow: the strategies of `tf.distribute`."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NoReturn

import keras
import tensorflow as tf

from keras_tokenlearner.training.distribution.devices import (
    Devices,
    batch_normalizations,
    optimizers_of,
)

# Arguments of Keras's optimizers that clip gradients.
_CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")


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

    def check_accumulation(self, owner: str, steps: int | None) -> None:
        if steps is not None and steps > 1:
            raise ValueError(
                f"{owner}: `gradient_accumulation_steps` must be None, or 1 in a recipe, in "
                "scope('data_parallel') of TensorFlow, where Keras 3.15 fails. On one device, use "
                "scope('one_device'). On several devices, set KERAS_BACKEND=jax or torch, or use a "
                f"smaller `batch_size`. Received: gradient_accumulation_steps={steps}"
            )

    @contextlib.contextmanager
    def _fitting(self, model: keras.Model) -> Iterator[None]:
        """Make replicas normalise and clip by the whole batch, as on JAX."""
        apart = [layer for layer in batch_normalizations(model) if not layer.synchronized]
        clips = any(getattr(each, name) for each in optimizers_of(model) for name in _CLIPS)
        if self.replicas == 1 or not (apart or clips):
            yield
            return
        for layer in apart:
            layer.synchronized = True
        model.train_function = None  # `model.fit` may have traced a step of separate replicas
        try:
            with _clipping_sums(model.optimizer) if clips else contextlib.nullcontext():
                yield
        finally:
            model.train_function = None  # a later `model.fit` must not use this step
            for layer in apart:  # a saved model with this flag would not load on other backends
                layer.synchronized = False


@contextlib.contextmanager
def _clipping_sums(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Make an optimizer clip the sum of the gradients of all replicas.

    Keras 3.15 clips the gradients of each replica, then adds them. In this context, the first
    replica gets the sum of the gradients and the other replicas get zeros.
    """
    apply, of_user = optimizer.apply, vars(optimizer).get("apply")

    def apply_sums(
        grads: Sequence[tf.Tensor | None],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        apply(_sums(grads), trainable_variables)

    optimizer.apply = apply_sums
    try:
        yield
    finally:
        del optimizer.apply  # uncovers the method of the class
        if of_user is not None:
            optimizer.apply = of_user


def _sums(gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """Return the gradients summed over all replicas on the first replica, zeros on other replicas.

    Infinite sums and NaN stay on all replicas. Every replica then skips the step, if the optimizer
    is a `LossScaleOptimizer`.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None:
        return list(gradients)
    # An embedding has sparse gradients, with several rows for one variable's row.
    dense = [tf.convert_to_tensor(each) for each in gradients if each is not None]
    sums = replica.all_reduce(tf.distribute.ReduceOp.SUM, dense) if dense else []
    is_first = tf.equal(replica.replica_id_in_sync_group, 0)
    ours = (
        tf.where(is_first | ~tf.math.is_finite(each), each, tf.zeros_like(each)) for each in sums
    )
    return [None if each is None else next(ours) for each in gradients]


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
