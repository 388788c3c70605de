"""Recipes. A recipe is a frozen dataclass that states how the models of an experiment are trained.

`train` calls the methods `open` and `batches` for the data, `build` for the model, and `optimizer`.
A recipe also has `model`, `epochs`, `batch_size`, `learning_rate`, `label_smoothing` and `seed`.
Any frozen dataclass with these members is a `Recipe`.

An optional method `learner(model)` returns another model that contains `model`, such as a
`Distiller`. `train` then fits this other model. An optional attribute `output_name` is the start of
the names of the results, instead of `model`.
"""

from keras_tokenlearner.training.recipes.ablations import (
    FuserAlternativesRecipe,
    FuserRecipe,
    PlaceRecipe,
    PoolingRecipe,
)
from keras_tokenlearner.training.recipes.distillation import DistillationRecipe
from keras_tokenlearner.training.recipes.fine_tuning import ImageNet384Recipe, ImageNet512Recipe
from keras_tokenlearner.training.recipes.pretraining import PretrainingRecipe
from keras_tokenlearner.training.recipes.recipe import Recipe
from keras_tokenlearner.training.recipes.small import Cifar10Recipe, FashionMnistRecipe
from keras_tokenlearner.training.recipes.videos import (
    AvidRecipe,
    CharadesRecipe,
    KineticsRecipe,
    VideosRecipe,
)

# Names on the command line.
RECIPES = {
    "fashion_mnist": FashionMnistRecipe,
    "cifar10": Cifar10Recipe,
    "videos": VideosRecipe,
    "kinetics": KineticsRecipe,
    "charades": CharadesRecipe,
    "avid": AvidRecipe,
    "pretraining": PretrainingRecipe,
    "imagenet_384": ImageNet384Recipe,
    "imagenet_512": ImageNet512Recipe,
    "place": PlaceRecipe,
    "fuser": FuserRecipe,
    "pooling": PoolingRecipe,
    "fuser_alternatives": FuserAlternativesRecipe,
    "distill": DistillationRecipe,
}

__all__ = [
    "AvidRecipe",
    "CharadesRecipe",
    "Cifar10Recipe",
    "DistillationRecipe",
    "FashionMnistRecipe",
    "FuserAlternativesRecipe",
    "FuserRecipe",
    "ImageNet384Recipe",
    "ImageNet512Recipe",
    "KineticsRecipe",
    "PlaceRecipe",
    "PoolingRecipe",
    "PretrainingRecipe",
    "RECIPES",
    "Recipe",
    "VideosRecipe",
]
