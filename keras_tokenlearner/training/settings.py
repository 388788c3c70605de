import dataclasses
import inspect
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar, cast

from keras_tokenlearner._checks import check_choice, check_is, own_errors
from keras_tokenlearner.training.check_recipe import check_recipe

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Recipe = TypeVar("Recipe", bound="DataclassInstance")


@own_errors
def with_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Return a recipe whose fields are set from strings of a command line.

    Args:
        recipe: A frozen dataclass whose fields are `str`, `int` or `float`.
        settings: Strings of the form `"field=value"`.

    Returns:
        A recipe of the same class.

    Raises:
        ValueError: If a field does not exist, or a value has another type.

    Example:

    >>> from keras_tokenlearner.training import FashionMnistRecipe
    >>> with_settings(FashionMnistRecipe(), ["epochs=3"]).epochs
    3
    """
    check_recipe("with_settings", recipe)
    fields = {field.name: cast("type", field.type) for field in dataclasses.fields(recipe)}
    changes = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        check_choice("with_settings", "field", name, list(fields))
        try:
            changes[name] = fields[name](text)
        except ValueError as error:
            raise ValueError(
                f"with_settings: `{name}` must have the type {fields[name].__name__}, as in "
                f"{name}={getattr(recipe, name)}. Received: {setting!r}"
            ) from error
    return dataclasses.replace(recipe, **changes)


def describe(kind: type) -> dict[str, str]:
    """Return the descriptions of a recipe's fields, from the docstrings of its class and bases.

    Args:
        kind: The class of a recipe.

    Returns:
        Dictionary from names of fields to descriptions.

    Example:

    >>> from keras_tokenlearner.training import Cifar10Recipe
    >>> describe(Cifar10Recipe)["epochs"]
    'Epochs over the training data.'
    """
    check_is("describe", "kind", kind, type, "the class of a recipe")
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        section = (inspect.getdoc(base) or "").partition("\nAttributes:\n")[2]
        entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
        found |= {name: " ".join(text.split()) for name, text in entries}
    return found
