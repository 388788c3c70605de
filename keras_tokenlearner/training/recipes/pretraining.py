"""A recipe of ViT's pre-training on JFT-300M, a data set that is not public."""

from dataclasses import dataclass

import keras

from keras_tokenlearner.training.optimizers import adamw_linear
from keras_tokenlearner.training.recipes.fine_tuning import ImageNet384Recipe


@dataclass(frozen=True)
class PretrainingRecipe(ImageNet384Recipe):
    """Pre-training on JFT-300M at 224 pixels, as in the ViT paper and the TokenLearner paper.

    Command: `keras-tokenlearner train pretraining --set model=NAME --set data=DATA`.

    Requirements: a large set of images, and accelerators with memory for a batch of 4,096 images,
    or `gradient_accumulation_steps`. JFT-300M has 300 million images and is not public. `data` is
    ImageNet by default, for which the 7 epochs of this recipe are far too few. On ImageNet, ViT
    takes 300 epochs, a learning rate of 0.003 and a weight decay of 0.3.

    Expected after JFT-300M: the few-shot accuracies of Figure 6 of the TokenLearner paper, which
    prints no numbers. Measure them with `keras-tokenlearner evaluate trained/NAME.keras --metrics
    few_shot`. We have not trained these models.

    Adam with decoupled weight decay 0.1, 10,000 steps of warm-up and linear decay are ViT's values.
    B models take 7 epochs at a learning rate of 8e-4. L/16 takes 4e-4, and 7 or 14 epochs. Neither
    the ViT paper nor the TokenLearner paper states values for S models. We take the values for B.

    Attributes:
        weight_decay: Weight decay, except on biases, norms and positions.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, Table 3.
    """

    size: int = 224
    epochs: int = 7
    batch_size: int = 4096
    learning_rate: float = 8e-4
    warmup_steps: int = 10_000
    weight_decay: float = 0.1

    def optimizer(self, steps_per_epoch: int) -> keras.optimizers.Optimizer:
        """Return AdamW with warm-up and linear decay over the whole run."""
        steps = self.epochs * steps_per_epoch // self.gradient_accumulation_steps
        return adamw_linear(
            self.learning_rate, steps, self.warmup_steps, self.weight_decay, **self.common()
        )
