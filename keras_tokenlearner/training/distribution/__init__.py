"""Training on several devices, by the method of each backend. Unsupported cases raise errors."""

from keras_tokenlearner.training.distribution.devices import Devices
from keras_tokenlearner.training.distribution.scope import scope

__all__ = [
    "Devices",
    "scope",
]
