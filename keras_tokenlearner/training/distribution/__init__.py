"""Training on more than one device, each framework's own way: which one, and its limits."""

from keras_tokenlearner.training.distribution.devices import Devices
from keras_tokenlearner.training.distribution.scope import scope

__all__ = [
    "Devices",
    "scope",
]
