from collections.abc import Sequence
from dataclasses import Field, dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import keras

from keras_tokenlearner.data import Batches


class Examples(Protocol):
    """Labelled data of a recipe, such as `keras_tokenlearner.data.Images`."""

    @property
    def class_names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...


Data = TypeVar("Data", bound=Examples)


@dataclass(frozen=True)
class RecipeFields:
    """The fields of all recipes of this package. Each recipe sets their values.

    Attributes:
        model: Name in the catalogue.
        data: Name of a data set for `open_named`.
        epochs: Epochs over the training data.
        batch_size: Examples per optimizer step.
        learning_rate: The highest learning rate, after the warm-up.
        label_smoothing: Label smoothing of the cross-entropy.
        seed: Decides initial weights, order of the examples and augmentation.
    """

    model: str
    data: str
    epochs: int
    batch_size: int
    learning_rate: float
    label_smoothing: float = 0.0
    seed: int = 0


class Recipe(Protocol[Data]):
    """The members that `train` needs in every recipe. A recipe is a frozen dataclass.

    Attributes:
        model: Name of the model. The names of the results start with it.
        epochs: Epochs over the training data.
        batch_size: Examples per step.
        learning_rate: The highest learning rate.
        label_smoothing: Label smoothing of the cross-entropy.
        seed: Decides initial weights, order of the examples and augmentation.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def model(self) -> str: ...

    @property
    def epochs(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def label_smoothing(self) -> float: ...

    @property
    def seed(self) -> int: ...

    def open(self) -> tuple[Data, Data]:
        """Return the training data and the test data."""
        ...

    def build(self, classes: int, /) -> keras.Model:
        """Return the model, not yet compiled."""
        ...

    def batches(self, data: Data, input_shape: Sequence[int], /, training: bool) -> Batches:
        """Return the batches of training data or of test data."""
        ...

    def optimizer(self, steps_per_epoch: int, /) -> keras.optimizers.Optimizer:
        """Return the optimizer. Its learning-rate schedule covers all epochs of the run."""
        ...
