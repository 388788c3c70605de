"""Training on several devices with each framework's own method, and errors for its limits."""

from keras_tokenlearner.training.distribution.devices import Devices
from keras_tokenlearner.training.distribution.scope import scope

__all__ = [
    "Devices",
    "scope",
]
