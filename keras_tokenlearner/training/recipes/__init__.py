"""How models are trained: a frozen dataclass for each experiment.

`train` asks a recipe for its data (`open`, `batches`), its model (`build`) and its `optimizer`, and
reads `model`, `epochs`, `batch_size`, `learning_rate`, `label_smoothing` and `seed`; any object
with these is a recipe. One with a method `fit`, which takes the model, the path of a backup and
callbacks, trains the model by that, on one device, and needs no `optimizer` and `label_smoothing`.
One with a method `learner`, which takes the model and returns another around it, such as a
`Distiller`, has that one trained in its place, on any number of devices.
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
    "VideosRecipe",
]
