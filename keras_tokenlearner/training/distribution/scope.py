import contextlib
import importlib

import keras

from keras_tokenlearner._checks import check_choice
from keras_tokenlearner.training.distribution.devices import Devices, check_keras_distribution

MODES = ("auto", "one_device", "data_parallel", "model_parallel")


@contextlib.contextmanager
def scope(mode="auto"):
    """Return a context to build and train a model in, on the available devices.

    * JAX: `keras.distribution`, `DataParallel` or `ModelParallel`, in one process or several.
    * TensorFlow: `MirroredStrategy`; `MultiWorkerMirroredStrategy` where `TF_CONFIG` is set,
      `TPUStrategy` where `TPU_NAME` is. Data parallel alone.
    * PyTorch: `DistributedDataParallel`, under `torchrun`. Data parallel alone.

    The batch size counts all devices together, so the learning rate stays the same.

    Args:
        mode: `"one_device"`; `"data_parallel"`, a part of every batch for each device;
            `"model_parallel:N"`, attention heads and hidden units over N devices and batches over
            the others, where N defaults to all devices of a process; or `"auto"`, data parallel
            where there is more than one accelerator or process.

    Yields:
        A `Devices`. Its `fit`, `evaluate` and `predict` also work in several processes.

    Raises:
        ValueError: If the backend does not have the mode, or its requirements are missing; and in
            place of JAX's error for sizes that the devices do not divide.

    Example:

    >>> with scope("auto") as devices:
    ...     model = create_model("tokenlearner_pico8_4at1", classes=10)
    ...     answers = devices.predict(model, np.zeros((8, 32, 32, 3)))
    >>> answers.shape
    (8, 10)
    """
    name, _, count = str(mode).partition(":")
    check_choice("distribution", "mode", name, MODES)
    if count and (name != "model_parallel" or not count.isdecimal() or not int(count)):
        raise ValueError(
            "distribution: only model_parallel takes a number, as in 'model_parallel:4'. "
            f"Received: mode={mode!r}"
        )
    check_keras_distribution()
    backend = importlib.import_module(f"{__package__}.on_{keras.backend.backend()}")
    if name == "auto":
        name = "data_parallel" if backend.several() else "one_device"
    if name == "one_device":
        devices = Devices()
    elif name == "data_parallel":
        devices = backend.data_parallel()
    else:
        devices = backend.model_parallel(int(count) if count else None)
    with devices.scope():
        yield devices
