"""Checks the fields of a recipe before `train` opens the data and builds the model."""

import json
import os
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_tokenlearner._checks import (
    check_int,
    check_not_negative,
    check_positive,
    check_positive_fraction,
    check_rate,
)
from keras_tokenlearner._json import JSON

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
    """Raise `ValueError` if a number in a recipe is out of range, or a field cannot be saved.

    Args:
        owner: Name of the caller, for the error message.
        recipe: A dataclass, such as a `FashionMnistRecipe`.

    Raises:
        ValueError: If a field is of another type, not finite or out of range. Also if a field
            cannot be written to a JSON file.

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
    fields_of(owner, recipe)


def fields_of(owner: str, recipe: "DataclassInstance") -> dict[str, JSON]:
    """Return the fields of a recipe as they are written to a JSON file. Paths become strings.

    Args:
        owner: Name of the caller, for the error message.
        recipe: A dataclass, such as a `FashionMnistRecipe`.

    Raises:
        ValueError: If a field cannot be written to a JSON file.

    Example:

    >>> from keras_tokenlearner.training import FashionMnistRecipe
    >>> fields_of("train", FashionMnistRecipe())["epochs"]
    28
    """
    found: dict[str, JSON] = {}
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        try:
            found[field.name] = json.loads(json.dumps(value, default=_plain))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{owner}: `{field.name}` must be a JSON value: a string, number, boolean, "
                "None, list or dictionary. Paths and numbers of numpy are valid too. Received: "
                f"{field.name}={repr(value)[:200]}"
            ) from error
    return found


def _plain(value: object) -> object:
    """Return the JSON value of a path, a number of numpy or a dataclass."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(type(value).__name__)
