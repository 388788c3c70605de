"""Keras's optimizers without weight decay for some variables, also after loading.

`exclude_from_weight_decay` is a method of a Keras optimizer, by design: see keras-team/keras pull
request 16274 (https://github.com/keras-team/keras/pull/16274). The config does not list the
excluded variables, so the optimizer of a loaded `.keras` file would decay all variables.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

# Words in the names of variables: biases, norms and positions.
UNDECAYED = ("bias", "gamma", "beta", "table")

if TYPE_CHECKING:
    from keras.optimizers import Optimizer as _Optimizer
else:
    _Optimizer = object


class _Sparing(_Optimizer):
    """Base class before a Keras optimizer: its config lists the variables without weight decay.

    Args:
        *args: Arguments of the optimizer.
        undecayed: Words. Variables with one of them in their name have no weight decay.
        **kwargs: Arguments of the optimizer.
    """

    def __init__(self, *args: Any, undecayed: Sequence[str] = UNDECAYED, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.undecayed = tuple(undecayed)
        self.exclude_from_weight_decay(var_names=list(self.undecayed))

    def get_config(self) -> dict:
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
