"""Recipes: how the models that we report were trained, each a frozen dataclass with a command.

And what makes a ViT that exists faster: `retrofit` and `distill`.
"""

from keras_tokenlearner.training import distribution, fashion_mnist
from keras_tokenlearner.training.distill import distill
from keras_tokenlearner.training.fashion_mnist import FashionMnistRecipe
from keras_tokenlearner.training.optimizers import adamw, muon
from keras_tokenlearner.training.resume import Resume
from keras_tokenlearner.training.retrofit import retrofit
from keras_tokenlearner.training.settings import with_settings

# Names on the command line, each with its recipe and the function that trains by it.
RECIPES = {"fashion_mnist": (FashionMnistRecipe, fashion_mnist.train)}
