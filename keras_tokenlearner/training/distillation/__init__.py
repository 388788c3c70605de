"""Students that learn to answer as their teacher does."""

from keras_tokenlearner.training.distillation.distiller import Distiller
from keras_tokenlearner.training.distillation.needs import needs
