"""On TensorFlow: the strategies of `tf.distribute`."""

import os

import tensorflow as tf

from keras_tokenlearner.training.distribution.devices import Devices


def several():
    """Return whether there is more than one GPU, or a cluster or TPU is named."""
    named = "TF_CONFIG" in os.environ or "TPU_NAME" in os.environ
    return named or len(tf.config.list_logical_devices("GPU")) > 1


def data_parallel():
    """Return the devices of the strategy that fits the environment."""
    if "TPU_NAME" in os.environ:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(os.environ["TPU_NAME"])
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return TensorFlowDevices(tf.distribute.TPUStrategy(resolver))
    if "TF_CONFIG" in os.environ:
        raise ValueError(
            "distribution: Keras 3.15 fails in `fit` under MultiWorkerMirroredStrategy. For "
            "several hosts set KERAS_BACKEND to jax or torch. Received: TF_CONFIG is set"
        )
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return TensorFlowDevices(tf.distribute.MirroredStrategy([device.name for device in devices]))


def model_parallel(count):
    """Refuse: Keras 3.15 has it on JAX alone, and takes it without effect on TensorFlow."""
    raise ValueError(
        "distribution: model_parallel is there on JAX alone; set KERAS_BACKEND=jax. "
        "Received: the backend 'tensorflow'"
    )


class TensorFlowDevices(Devices):
    """The replicas of a strategy in one process."""

    def __init__(self, strategy):
        self.strategy = strategy
        self.replicas = strategy.num_replicas_in_sync

    def scope(self):
        return self.strategy.scope()
