"""Recipes of fine-tuning on ImageNet, as in section 3 of the paper, which follows ViT."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import keras

from keras_tokenlearner._checks import check_int
from keras_tokenlearner._keras_faults import REMAT_MODES
from keras_tokenlearner._precision import dtype_policy
from keras_tokenlearner.applications import create_model
from keras_tokenlearner.applications.arguments import ConfigChanges
from keras_tokenlearner.data import ImageBatches, Images, open_named
from keras_tokenlearner.models import names
from keras_tokenlearner.training.optimizers import sgd
from keras_tokenlearner.training.recipes.recipe import RecipeFields

_CROP = 0.05  # smallest share of an image's area, from ViT's code


class CommonArguments(TypedDict):
    """Optimizer arguments for layer decay, gradient accumulation and weight averages."""

    layer_decay: float
    gradient_accumulation_steps: int | None
    use_ema: bool
    ema_momentum: float


@dataclass(frozen=True)
class ImageNet384Recipe(RecipeFields):
    """Fine-tuning of S and B models on ImageNet at 384 pixels: Tables 1 and 4.

    Command: `keras-tokenlearner train imagenet_384 --set model=NAME --set weights=FILE`.

    Requirements: ImageNet prepared by tensorflow-datasets (or `data=FOLDER`), pre-trained weights,
    and accelerators with memory for a batch of 512 images, or `gradient_accumulation_steps`.

    Expected after pre-training on JFT-300M, which is not public, from Table 1 (top-1, in percent):

        vit_s32 77.87                     tokenlearner_s32_8at6 76.13
        vit_b32 80.69                     tokenlearner_s32_22_8at11 79.42
        vit_b16 84.73                     tokenlearner_b32_20_8at10 82.74
        tokenlearner_b16_8at6 83.65       tokenlearner_b16_21_8at10 85.21
                                          tokenlearner_b16_21_16at10 85.45

    The paper follows "the exact training protocols" of ViT. These are SGD with momentum, 20,000
    steps of 512 images (8 epochs), cosine decay and no weight decay. Gradients are clipped at a
    global norm of 1. ViT tried the learning rates 0.003, 0.01, 0.03 and 0.06. The paper does not
    state its rate; we take 0.03. 500 steps of warm-up and the inception crop follow ViT's code.

    Attributes:
        weights: Weights for `create_model`. The head of the weights is not used and may have any
            number of classes. Empty for random weights.
        size: Height and width of the images.
        gradient_accumulation_steps: Parts of a batch. The gradients of the parts are averaged. On
            several devices, this needs JAX or PyTorch.
        warmup_steps: Steps of linear warm-up.
        layer_decay: Learning rate of a block divided by the rate of the next block. ViT has 1.
        ema_momentum: Momentum of the average of the weights; 0 for no average.
        precision: Name of a dtype policy of Keras, such as `mixed_bfloat16`.
        remat: `none` or `activations`, a mode of `keras.RematScope`. With `activations`, the
            backward pass computes activation functions again to save memory. TensorFlow supports
            only `none`.
        threads: Threads that read images.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, appendix B.1.1.
    """

    model: str = "tokenlearner_b16_8at6"
    weights: str = ""
    data: str = "tfds:imagenet2012"
    size: int = 384
    epochs: int = 8
    batch_size: int = 512
    gradient_accumulation_steps: int = 1
    learning_rate: float = 0.03
    warmup_steps: int = 500
    layer_decay: float = 1.0
    ema_momentum: float = 0.0
    precision: str = "float32"
    remat: str = "none"
    threads: int = 16

    def __post_init__(self) -> None:
        check_int(
            type(self).__name__, "gradient_accumulation_steps", self.gradient_accumulation_steps
        )
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError(
                f"{type(self).__name__}: `gradient_accumulation_steps` must divide `batch_size`. "
                f"Received: batch_size={self.batch_size}, "
                f"gradient_accumulation_steps={self.gradient_accumulation_steps}"
            )

    def open(self) -> tuple[Images, Images]:
        """Return the training images and the test images."""
        return open_named(self.data)

    def build(self, classes: int) -> keras.Model:
        """Return the model, not yet compiled."""
        backend = keras.backend.backend()
        if self.remat not in REMAT_MODES[backend]:
            raise ValueError(
                f"{type(self).__name__}: `remat` must be one of {REMAT_MODES[backend]} on "
                f"{backend}. Received: remat={self.remat!r}"
            )
        mode = None if self.remat == "none" else self.remat
        with dtype_policy(self.precision), keras.RematScope(mode=mode):
            return self._build(classes)

    def _build(self, classes: int) -> keras.Model:
        shape, changes = (self.size, self.size, 3), self.changes()
        if not self.weights:
            return create_model(self.model, classes=classes, input_shape=shape, **changes)
        body = create_model(
            self.model,
            include_top=False,
            pooling="avg",
            weights=self.weights,
            input_shape=shape,
            **changes,
        )
        head = keras.layers.Dense(classes, kernel_initializer="zeros", name=names.HEAD)
        scores = keras.layers.Activation("softmax", dtype="float32", name=names.PREDICTIONS)(
            head(body.output)
        )
        return keras.Model(body.input, scores, name=self.model)

    def changes(self) -> ConfigChanges:
        """Return the config fields that differ from the catalogue."""
        return {}

    def batches(self, images: Images, input_shape: Sequence[int], training: bool) -> ImageBatches:
        """Return the batches of images."""
        return ImageBatches(
            images,
            input_shape,
            self.batch_size // self.gradient_accumulation_steps,
            training,
            crop=_CROP,
            augment=self.augmentation,
            label_mode="categorical",
            seed=self.seed,
            threads=self.threads,
        )

    def augmentation(self, seed: int) -> keras.layers.Layer:
        """Return the layers that augment a batch of training images."""
        return keras.layers.RandomFlip("horizontal", seed=seed)

    def optimizer(self, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        """Return SGD with momentum, warm-up and cosine decay over the whole run."""
        steps = self.epochs * steps_per_epoch // self.gradient_accumulation_steps
        return sgd(self.learning_rate, steps, self.warmup_steps, **self.common())

    def common(self) -> CommonArguments:
        """Return optimizer arguments for layer decay, gradient accumulation and weight averages."""
        return {
            "layer_decay": self.layer_decay,
            "gradient_accumulation_steps": self.gradient_accumulation_steps
            if self.gradient_accumulation_steps > 1
            else None,
            "use_ema": self.ema_momentum > 0,
            # Keras updates the average after each part of a batch.
            "ema_momentum": self.ema_momentum ** (1 / self.gradient_accumulation_steps),
        }


@dataclass(frozen=True)
class ImageNet512Recipe(ImageNet384Recipe):
    """Fine-tuning of L models on ImageNet at 512 pixels: Tables 2, 3 and 4.

    Command: `keras-tokenlearner train imagenet_512 --set model=NAME --set weights=FILE`.

    The requirements are the same as for `ImageNet384Recipe`. L/8 and L/10 need much more memory
    than L/16: see `gradient_accumulation_steps`, `precision` and `remat`.

    Expected after pre-training on JFT-300M, from Tables 2 and 3 (top-1, in percent):

        vit_l16 87.35                     tokenlearner_l16_30_8at18 88.11
        tokenlearner_l16_16at12 87.68     tokenlearner_l14_35_16at18 88.37
        tokenlearner_l16_35_16at12 87.47  tokenlearner_l10_35_16at18 88.5 (ReaL 90.75)
                                          tokenlearner_l8_35_16at18 88.87 (ReaL 91.05)

    ViT averages weights with a momentum of 0.9999 at 512 pixels.
    """

    model: str = "tokenlearner_l16_16at12"
    size: int = 512
    ema_momentum: float = 0.9999
