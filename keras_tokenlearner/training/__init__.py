"""Training by recipes. A recipe is a frozen dataclass with the settings of a training run.

The docstring of each recipe has the command to run. `retrofit` and `distill` make a trained ViT
faster.
"""

from keras_tokenlearner.training import distribution
from keras_tokenlearner.training.distill import distill
from keras_tokenlearner.training.distillation.distiller import Distiller
from keras_tokenlearner.training.optimizers import adamw, muon
from keras_tokenlearner.training.recipes import RECIPES, Cifar10Recipe, FashionMnistRecipe
from keras_tokenlearner.training.resume import Resume
from keras_tokenlearner.training.settings import describe, with_settings
from keras_tokenlearner.training.train import train

__all__ = [
    "adamw",
    "Cifar10Recipe",
    "describe",
    "distill",
    "Distiller",
    "distribution",
    "FashionMnistRecipe",
    "muon",
    "RECIPES",
    "Resume",
    "train",
    "with_settings",
]
