"""Training on several devices, by the way of each framework, with errors for its limits."""

from keras_tokenlearner.training.distribution.devices import Devices
from keras_tokenlearner.training.distribution.scope import scope

__all__ = [
    "Devices",
    "scope",
]
