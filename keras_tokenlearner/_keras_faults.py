"""Workarounds for faults of Keras 3.15. Remove a workaround once Keras has fixed the fault.

`tests/test_keras_faults.py` has a test for each fault. The test fails once Keras has fixed the
fault. These workarounds stay in other modules, because they are part of other code:

* `ReadBatches` of `data/batches.py` reads in its own threads. With `workers` of a `PyDataset`, the
  second epoch starts with a batch of the first epoch on JAX and PyTorch. A related issue is
  https://github.com/keras-team/keras/issues/23283.
* `_Workers` of `training/distribution/on_tensorflow.py` overrides `reduce` of TensorFlow's
  `MultiWorkerMirroredStrategy`. Without this override, `fit` fails. No public issue is known.
* `check_keras_distribution` of `training/distribution/devices.py` refuses `keras.distribution` on
  TensorFlow and PyTorch, where `keras.distribution` has no effect. For the same reason, `scope`
  of `devices.py` refuses `model_parallel` on these backends. For PyTorch, see
  https://github.com/keras-team/keras/issues/23418.
* `TensorFlowDevices` of `training/distribution/on_tensorflow.py` adds the gradients of all replicas
  before the optimizer clips them. Keras clips the gradients of each replica, then adds them. A
  related issue is https://github.com/tensorflow/tensorflow/issues/33929.
* `TensorFlowDevices` also refuses `gradient_accumulation_steps`. With a strategy of TensorFlow,
  `fit` fails. A related issue is https://github.com/keras-team/keras/issues/17429.
* `set_weights` of `models/state.py` also sets the constants by which an adapted `Normalization`
  normalises. A related issue is https://github.com/keras-team/keras/issues/20147.
* `HubBackbone` of `applications/hub.py` sets `trainable` after its constructor. The constructor of
  a functional model with `trainable=False` does not freeze the layers. No public issue is known.
"""

import contextlib
from collections.abc import Iterator

import keras

# Modes of `keras.RematScope` that train a transformer on each backend. For TensorFlow, see
# https://github.com/keras-team/keras/issues/21207. On PyTorch, the mode "full" computes layers
# again without their dtype policy. It also draws another mask of stochastic depth, so the gradients
# are wrong.
REMAT_MODES = {
    "jax": ("none", "activations"),
    "torch": ("none", "activations"),
    "tensorflow": ("none",),
}


@contextlib.contextmanager
def no_flash_attention_on_tpu() -> Iterator[None]:
    """Turn flash attention off on TPUs, where Keras calls it with a wrong mask and scale.

    The mask hides later tokens, and queries are not scaled. On TPUs, Keras uses flash attention for
    a multiple of 128 tokens without a mask, even in a layer with `flash_attention=False`. A related
    issue is https://github.com/keras-team/keras/issues/21116.
    """
    on_jax, enabled = keras.backend.backend() == "jax", keras.config.is_flash_attention_enabled()
    if on_jax and keras.distribution.list_devices()[0].startswith("tpu"):
        keras.config.disable_flash_attention()
    try:
        yield
    finally:
        if enabled is None:
            keras.config.enable_flash_attention()  # restores `None`: flash attention if possible
