"""Keras's optimizers without weight decay for some variables, also after loading.

`exclude_from_weight_decay` is a method of a Keras optimizer, by design (keras-team/keras pull
request 16274: https://github.com/keras-team/keras/pull/16274), so that its config does not list the
excluded variables. The optimizer of a loaded `.keras` file would therefore decay all variables.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

# Words in the names of variables: biases, norms and positions.
UNDECAYED = ("bias", "gamma", "beta", "table")

if TYPE_CHECKING:
    from keras.optimizers import Optimizer as _Optimizer
else:
    _Optimizer = object


class _Sparing(_Optimizer):
    """Before a Keras optimizer: keeps in its config which variables it spares weight decay.

    Args:
        *args: Of the optimizer.
        undecayed: Words; variables with one of them in their name are spared weight decay.
        **kwargs: Of the optimizer.
    """

    def __init__(self, *args, undecayed: Sequence[str] = UNDECAYED, **kwargs) -> None:
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
