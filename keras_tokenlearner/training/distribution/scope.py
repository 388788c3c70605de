import contextlib
import importlib
from collections.abc import Iterator

import keras

from keras_tokenlearner._checks import check_choice
from keras_tokenlearner.training.distribution.devices import Devices, check_keras_distribution

MODES = ("auto", "one_device", "data_parallel", "model_parallel")


@contextlib.contextmanager
def scope(mode: str = "auto") -> Iterator[Devices]:
    """Return a context in which to build and train a model on the available devices.

    * JAX: `keras.distribution`, `DataParallel` or `ModelParallel`, in one process or several.
    * TensorFlow: `MirroredStrategy`, `MultiWorkerMirroredStrategy` if `TF_CONFIG` is set, or
      `TPUStrategy` if `TPU_NAME` is set. Data parallel only.
    * PyTorch: `DistributedDataParallel`, under `torchrun`. Data parallel only.

    The batch size counts all devices together, so the learning rate stays the same.

    Args:
        mode: `"one_device"`, `"data_parallel"`, `"model_parallel:N"` or `"auto"`. Data parallel
            gives each device a part of every batch. Model parallel divides attention heads and
            hidden units over N devices, and batches over groups of N devices. N defaults to all
            devices of a process. `"auto"` is data parallel on several devices, else one device. On
            PyTorch, `"auto"` counts the processes of `torchrun`, not the GPUs.

    Yields:
        A `Devices`. Its `fit`, `evaluate` and `predict` also work in several processes.

    Raises:
        ValueError: If the backend does not support the mode, or a requirement is missing. Also if
            N does not divide the number of devices, attention heads or hidden units. Also if the
            size of a batch is not a multiple of the number of replicas.

    Example:

    >>> with scope("auto") as devices:
    ...     model = create_model("tokenlearner_pico8_4at1", classes=10)
    ...     answers = devices.predict(model, np.zeros((8, 32, 32, 3)))
    >>> answers.shape
    (8, 10)
    """
    name, _, count = str(mode).partition(":")
    check_choice("scope", "mode", name, MODES)
    if count and (name != "model_parallel" or not count.isdecimal() or not int(count)):
        raise ValueError(
            "scope: `mode` may have a number only for model_parallel, and the number must be a "
            f"positive integer, as in 'model_parallel:4'. Received: mode={mode!r}"
        )
    check_keras_distribution("scope")
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
