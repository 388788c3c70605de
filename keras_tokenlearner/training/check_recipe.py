"""Checks the fields of a recipe before `train` opens the data and builds the model."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

from keras_tokenlearner._checks import (
    check_int,
    check_not_negative,
    check_positive,
    check_positive_fraction,
    check_rate,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def _at_least(minimum: int) -> Callable[[str, str, int], int]:
    return lambda owner, name, value: check_int(owner, name, value, minimum)


# Checks by name of field. Recipes of users may have further fields.
_CHECKS: dict[str, Callable[[str, str, int], float]] = {
    "epochs": _at_least(1),
    "batch_size": _at_least(1),
    "gradient_accumulation_steps": _at_least(1),
    "learning_rate": check_positive,
    "warmup_epochs": check_not_negative,
    "warmup_steps": _at_least(0),
    "weight_decay": check_not_negative,
    "layer_decay": check_positive_fraction,
    "label_smoothing": check_rate,
    "ema_momentum": check_rate,
    "drop_path_rate": check_rate,
    "dropout_rate": check_rate,
    "shift": _at_least(0),
    "threads": _at_least(1),
    "seed": _at_least(0),
}


def check_recipe(owner: str, recipe: "DataclassInstance") -> None:
    """Raise `ValueError` if a number in a recipe is out of range.

    Args:
        owner: Name of the caller, for the error message.
        recipe: A dataclass, such as a `FashionMnistRecipe`.

    Raises:
        ValueError: If a field is of another type, not finite or out of range.

    Example:

    >>> from keras_tokenlearner.training import FashionMnistRecipe
    >>> check_recipe("train", FashionMnistRecipe(label_smoothing=0.2))
    """
    if isinstance(recipe, type) or not is_dataclass(recipe):
        raise ValueError(
            f"{owner}: `recipe` must be an instance of a recipe, such as FashionMnistRecipe(). "
            f"Received: recipe={repr(recipe)[:200]}"
        )
    for field in fields(recipe):
        if field.name in _CHECKS:
            _CHECKS[field.name](owner, field.name, getattr(recipe, field.name))
