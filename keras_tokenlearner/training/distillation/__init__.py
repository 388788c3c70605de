"""Training students to reproduce the outputs of their teacher."""

from keras_tokenlearner.training.distillation.needs import needs

__all__ = [
    "needs",
]
