"""A callback that stops training if the loss or a weight is NaN or infinite."""

import keras
import numpy as np

from keras_tokenlearner.training.distribution import Devices


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends training with an error after an epoch whose loss or weights are not finite.

    Before the error, the model gets back its weights from the start of training. Put this callback
    first in the list, so `Resume` and `keras.callbacks.ModelCheckpoint` save no NaN.

    Args:
        model: The `keras.Model` to restore, such as the student of a distillation. Defaults to the
            trained model.
        owner: Name of the caller, for the error message.
        devices: The result of `keras_tokenlearner.training.distribution.scope`.

    Raises:
        FloatingPointError: In training, if the loss or a weight is not finite.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> callbacks = [StopOnNonFinite()]
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 1)), callbacks=callbacks, verbose=0)
    """

    def __init__(
        self,
        model: keras.Model | None = None,
        owner: str = "fit",
        devices: Devices | None = None,
    ) -> None:
        super().__init__()
        self.restored = model
        self.owner = owner
        self.devices = devices or Devices()
        self._before: list[np.ndarray] = []

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._before = [np.array(array) for array in self.devices.weights(self._restored())]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        found = None if np.isfinite(loss) else f"the loss became {loss}"
        for variable in self._restored().variables:
            if found is None and "float" in variable.dtype and not _is_finite(variable):
                found = f"the variable {variable.path} became NaN or infinite"
        if found is None:
            return
        self._restored().set_weights(self._before)
        _restart_averages(self.model)
        raise FloatingPointError(
            f"{self.owner}: {found} in epoch {epoch}. The model has its weights from before "
            "training. Lower the learning rate, or check the inputs for NaN and infinite values"
        )

    def _restored(self) -> keras.Model:
        return self.model if self.restored is None else self.restored


def _restart_averages(model: keras.Model) -> None:
    """Set the averages of an optimizer with `use_ema` to the weights.

    On JAX, `fit` copies the averages to the weights even after an error.
    """
    waiting: dict[str, list[keras.Variable]] = {}
    for variable in model.trainable_variables:
        waiting.setdefault(f"{variable.path.replace('/', '_')}_average", []).append(variable)
    optimizer = getattr(model, "optimizer", None)  # a model may have its own `train_step`
    for average in () if optimizer is None else optimizer.variables:
        if waiting.get(average.name):
            average.assign(waiting[average.name].pop(0))


def _is_finite(variable: keras.Variable) -> bool:
    return bool(keras.ops.all(keras.ops.isfinite(variable.value)))
