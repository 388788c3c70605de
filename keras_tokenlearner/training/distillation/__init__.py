"""Training students to reproduce the outputs of their teacher."""

from keras_tokenlearner.training.distillation.distiller import Distiller
from keras_tokenlearner.training.distillation.needs import needs

__all__ = [
    "Distiller",
    "needs",
]
