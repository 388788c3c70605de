"""Keras's optimizers without weight decay for some variables, also after loading.

Keras excludes variables by a method, `exclude_from_weight_decay`, and not in the config. See
keras-team/keras pull request 16274 (https://github.com/keras-team/keras/pull/16274). The optimizer
of a loaded `.keras` file would therefore decay all variables.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias, TypedDict, Unpack

import keras

from keras_tokenlearner._json import JSON

# Words in the names of variables: biases, norms and positions.
UNDECAYED = ("bias", "gamma", "beta", "table")

if TYPE_CHECKING:
    from keras.optimizers import Optimizer as _Optimizer
else:
    _Optimizer = object


Rate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule


class UpdateArguments(TypedDict, total=False):
    """Arguments of Keras's optimizers for accumulated gradients and averaged weights."""

    gradient_accumulation_steps: int | None
    use_ema: bool
    ema_momentum: float


class OptimizerArguments(UpdateArguments, total=False):
    """Arguments of AdamW, SGD and Muon in this module, in addition to `UpdateArguments`."""

    weight_decay: float
    adam_weight_decay: float | None
    exclude_layers: Sequence[str]
    momentum: float
    global_clipnorm: float | None


class _Sparing(_Optimizer):
    """Mixin that adds `undecayed` to the arguments and the config of a Keras optimizer.

    Args:
        learning_rate: Learning rate, or its schedule.
        undecayed: Words. Variables with one of these words in their name have no weight decay.
        **arguments: Other arguments of the optimizer.
    """

    def __init__(
        self,
        learning_rate: Rate,
        undecayed: Sequence[str] = UNDECAYED,
        **arguments: Unpack[OptimizerArguments],
    ) -> None:
        super().__init__(learning_rate, **arguments)
        self.undecayed = tuple(undecayed)
        self.exclude_from_weight_decay(var_names=list(self.undecayed))

    def get_config(self) -> dict[str, JSON]:
        return {**super().get_config(), "undecayed": list(self.undecayed)}


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class AdamW(_Sparing, keras.optimizers.AdamW):
    """Keras's AdamW without weight decay of biases, norms and positions."""


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class SGD(_Sparing, keras.optimizers.SGD):
    """Keras's SGD without weight decay of biases, norms and positions."""


@keras.saving.register_keras_serializable(package="keras_tokenlearner")
class Muon(_Sparing, keras.optimizers.Muon):
    """Keras's Muon without weight decay of biases, norms and positions."""
