"""Training on several devices on PyTorch: `DistributedDataParallel`, started by `torchrun`."""

import os
from typing import Any, NoReturn

import keras
import numpy as np
import torch
from torch import distributed

from keras_tokenlearner.training.distribution.devices import Data, Devices, batch_normalizations


def several() -> bool:
    """Return whether torchrun started more than one process."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def data_parallel() -> "TorchDevices":
    """Return the device of this process, which torchrun started."""
    if not distributed.is_torchelastic_launched():
        raise ValueError(
            "scope: data_parallel on PyTorch needs one process per device; start the "
            "processes with `torchrun --nproc-per-node=N -m keras_tokenlearner.cli train RECIPE`. "
            "Received: no environment variable TORCHELASTIC_RUN_ID; torchrun sets it"
        )
    if not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group()
    return TorchDevices()


def model_parallel(count: int | None) -> NoReturn:
    """Raise `ValueError`: in Keras 3.15, model parallelism works on JAX only."""
    raise ValueError(
        "scope: model_parallel needs JAX; set KERAS_BACKEND=jax. Received: KERAS_BACKEND=torch"
    )


class TorchDevices(Devices):
    """The device of this process, and the devices of the other processes of `torchrun`."""

    def __init__(self) -> None:
        self.processes = self.replicas = distributed.get_world_size()
        self.process = distributed.get_rank()

    def _callbacks(self) -> list[keras.callbacks.Callback]:
        return [_MeanOfLogs()]

    def evaluate(
        self,
        model: keras.Model,
        data: Data,
        batch_size: int = 500,
    ) -> dict[str, float]:
        return _mean(super().evaluate(model, data, batch_size))

    def _prepare(self, model: keras.Model) -> None:
        """Call a model through DistributedDataParallel, which averages its gradients."""
        if any(batch_normalizations(model)):
            raise ValueError(
                "Devices: `model` must not have trainable BatchNormalization on PyTorch, where "
                "each process would normalise its part of a batch alone. Freeze these layers, or "
                "train on JAX or TensorFlow. "
                f"Received: model {model.name!r}"
            )
        if "call" not in vars(model):
            forward = torch.nn.parallel.DistributedDataParallel(_Forward(model))
            object.__setattr__(model, "call", forward)

    def _gather(self, outputs: np.ndarray, batch_size: int) -> np.ndarray:
        parts: list[Any] = [None] * self.processes
        distributed.all_gather_object(parts, outputs)
        size = batch_size // self.processes
        batches = [np.split(part, range(size, len(part), size)) for part in parts]
        return np.concatenate([part for batch in zip(*batches, strict=True) for part in batch])


class _Forward(torch.nn.Module):
    """A model's call as a PyTorch module, for DistributedDataParallel."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.model, self.call = model, model.call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)


class _MeanOfLogs(keras.callbacks.Callback):
    """Averages the logs of an epoch over all processes. It runs before other callbacks."""

    # `fit` and `evaluate` create the metrics of `compile` before the first callback.
    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        _check_means(self.model)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        _check_means(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        logs.update(_mean(logs))


def _check_means(model: keras.Model) -> None:
    for metric in model.metrics:
        for part in getattr(metric, "metrics", [metric]):
            if not isinstance(part, keras.metrics.Mean):
                raise ValueError(
                    "Devices: a metric must be a mean, because several processes average it; "
                    f"compute other metrics from `predict`. Received: {part.name}"
                )


def _mean(logs: dict[str, float]) -> dict[str, float]:
    values = torch.tensor(list(logs.values()), dtype=torch.float64)
    values = values.to(keras.ops.zeros(()).device)
    distributed.all_reduce(values)
    return dict(zip(logs, (values / distributed.get_world_size()).tolist(), strict=True))
