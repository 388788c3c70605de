"""Recipes of the ablations in sections 3.3 and 3.5 of the paper. Each changes another recipe."""

from dataclasses import dataclass

from keras_tokenlearner.applications.arguments import ConfigChanges
from keras_tokenlearner.training.recipes.fine_tuning import ImageNet384Recipe, ImageNet512Recipe
from keras_tokenlearner.training.recipes.pretraining import PretrainingRecipe


@dataclass(frozen=True)
class PlaceRecipe(PretrainingRecipe):
    """Pre-training with the TokenLearner at different positions: Figure 4.

    Command: `keras-tokenlearner train place --set at=BLOCKS --output FOLDER`, for 0, 3, 6, 9 of 12
    blocks, each with its own folder. Compare with the plain model, `train pretraining --set
    model=vit_b16`. Afterwards run `evaluate` with the metric `few_shot`.

    Expected, from section 3.3: after half of the blocks, almost the accuracy of the plain model at
    almost half its cost. After three quarters of the blocks, a higher accuracy than the plain
    model. The figure prints no numbers and does not name the model. We take B/16.

    Attributes:
        at: Blocks before the TokenLearner.
    """

    at: int = 6

    def changes(self) -> ConfigChanges:
        """Return the changed config field, `at`: the position of the TokenLearner."""
        return {"at": self.at}


@dataclass(frozen=True)
class FuserRecipe(ImageNet384Recipe):
    """Fine-tuning with and without TokenFuser: Table 4. For L models use `imagenet_512`.

    Command: `keras-tokenlearner train fuser --set model=NAME --set weights=FILE`.

    Expected top-1 and ReaL accuracy in percent, from Table 4:

        tokenlearner_b16_8at6   83.2 88.1    tokenlearner_b16_8at6_fuser   83.7 88.4
        tokenlearner_b16_16at6  83.2 88.0    tokenlearner_b16_16at6_fuser  83.9 88.7
        tokenlearner_l16_16at12 87.6 90.4    tokenlearner_l16_16at12_fuser 87.6 90.5
        tokenlearner_l16_8at18  87.9 90.8    tokenlearner_l16_8at18_fuser  88.2 90.9

    Table 1 prints 83.65 for the first model. The paper does not explain the difference.
    """

    model: str = "tokenlearner_b16_8at6_fuser"


@dataclass(frozen=True)
class PoolingRecipe(ImageNet512Recipe):
    """Fine-tuning of ViT L/16 with alternatives to the TokenLearner: Table 5.

    Command: `keras-tokenlearner train pooling --set reducer=NAME --set weights=FILE --output
    FOLDER`. Give each reducer its own FOLDER.

    Expected, from section 3.5: pooling is less accurate than the plain model. The TokenLearner is a
    little more accurate than the plain model. The paper does not state the position of pooling. We
    take half of the depth.

    Attributes:
        reducer: The `reducer` of `VisionTransformerConfig`, such as `spatial_pooling`.
        at: Blocks before the reducer.
    """

    model: str = "vit_l16"
    reducer: str = "spatial_pooling"
    at: int = 12

    def changes(self) -> ConfigChanges:
        """Return the changed config fields: the reducer and its position."""
        return {"reducer": self.reducer, "at": self.at}


@dataclass(frozen=True)
class FuserAlternativesRecipe(ImageNet384Recipe):
    """Fine-tuning of ViT B/16 with alternatives to the TokenFuser: Figure 7.

    Command: `keras-tokenlearner train fuser_alternatives --set fuser=NAME --set weights=FILE
    --output FOLDER`. Run the command once for each NAME: `token_fuser`, `unpool` and `reproject`.
    Give each run its own FOLDER.

    Expected, from section 3.5: `unpool` is less accurate than the TokenFuser. `reproject` is as
    accurate as the TokenFuser, at a higher cost. The figure prints no numbers.

    Attributes:
        fuser: The `fuser` of `VisionTransformerConfig`.
    """

    fuser: str = "reproject"

    def changes(self) -> ConfigChanges:
        """Return the changed config field: the fuser."""
        return {"fuser": self.fuser}
