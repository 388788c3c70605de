"""Recipes of the small models whose accuracy the README reports. A laptop can run them."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from keras_tokenlearner._precision import dtype_policy
from keras_tokenlearner.applications import create_model
from keras_tokenlearner.data import ImageBatches, Images, open_named
from keras_tokenlearner.training.optimizers import muon
from keras_tokenlearner.training.recipes.recipe import RecipeFields


@dataclass(frozen=True)
class FashionMnistRecipe(RecipeFields):
    """Training of a small ViT or TokenLearner model on 28 x 28 images, with Muon.

    Command: `keras-tokenlearner train fashion_mnist --set model=NAME --set
    data=fashion_mnist:FOLDER`. NAME is `vit_nano4` or `tokenlearner_nano4_8at2`. FOLDER has the
    four `.gz` files. Training takes one to two hours per model on a CPU core. The README has the
    expected accuracy, measured by us.

    Attributes:
        model: Name in the catalogue, of a model for 28 x 28 x 1 images.
        learning_rate: The highest learning rate, after the warm-up. The rate then decays to zero by
            a cosine.
        warmup_epochs: Epochs of linear warm-up.
        weight_decay: Weight decay, except on biases, norms and positions.
        shift: Largest random shift, in pixels.
    """

    SIDE = 28  # pixels

    model: str = "tokenlearner_nano4_8at2"
    data: str = "fashion_mnist:sample"
    epochs: int = 28
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_epochs: int = 1
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    shift: int = 1

    def open(self) -> tuple[Images, Images]:
        """Return the training images and the test images."""
        return open_named(self.data)

    def build(self, classes: int) -> keras.Model:
        """Return the model, not yet compiled."""
        return create_model(self.model, classes=classes)

    def batches(self, images: Images, input_shape: Sequence[int], training: bool) -> ImageBatches:
        """Return the batches of images."""
        return ImageBatches(
            images,
            input_shape,
            self.batch_size,
            training,
            shift=self.shift / self.SIDE,
            augment=lambda seed: keras.layers.RandomFlip("horizontal", seed=seed),
            label_mode="categorical",
            seed=self.seed,
        )

    def optimizer(self, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        """Return Muon with warm-up and cosine decay over the whole run."""
        return muon(
            self.learning_rate,
            self.epochs * steps_per_epoch,
            self.warmup_epochs * steps_per_epoch,
            self.weight_decay,
        )


@dataclass(frozen=True)
class Cifar10Recipe(FashionMnistRecipe):
    """Training on 32 x 32 photographs as for Fashion-MNIST, with shifts of up to four pixels.

    Command: `KERAS_BACKEND=torch keras-tokenlearner train cifar10 --set model=NAME --set
    data=cifar10:FOLDER`. NAME is `tokenlearner_nano4_8at2` or `vit_nano4`. FOLDER is as for
    `load_cifar10`. Without `data`, Keras downloads the images. Training takes one to two hours per
    model on a CPU core. The README has the expected accuracy, measured by us.

    Attributes:
        model: Name in the catalogue, built for 32 x 32 x 3 images.
        precision: Name of a dtype policy of Keras.
    """

    SIDE = 32

    data: str = "cifar10:download"
    batch_size: int = 128
    learning_rate: float = 3e-3
    shift: int = 4
    precision: str = "mixed_bfloat16"

    def build(self, classes: int) -> keras.Model:
        """Return the model, not yet compiled."""
        shape = (self.SIDE, self.SIDE, 3)
        with dtype_policy(self.precision):
            return create_model(self.model, classes=classes, input_shape=shape)
