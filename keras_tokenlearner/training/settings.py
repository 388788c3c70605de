import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from keras_tokenlearner._checks import check_choice, check_is
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner.training.check_recipe import check_recipe

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Recipe = TypeVar("Recipe", bound="DataclassInstance")


@own_errors
def with_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Return a recipe whose fields are set from strings of a command line.

    Args:
        recipe: A frozen dataclass. The fields to set have the type `str`, `int`, `float` or
            `bool`. The type may also include `None`.
        settings: Strings of the form `"field=value"`. Booleans are `True` and `False`. The text
            `None` sets a field to `None` if its type allows `None`.

    Returns:
        A recipe of the same class.

    Raises:
        ValueError: If a field does not exist, or a value has another type. Also if a field has a
            type that cannot be read from text, such as a tuple.

    Example:

    >>> from keras_tokenlearner.training import FashionMnistRecipe
    >>> with_settings(FashionMnistRecipe(), ["epochs=3"]).epochs
    3
    """
    check_recipe("with_settings", recipe)
    fields = {field.name: field for field in dataclasses.fields(recipe)}
    changes = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        check_choice("with_settings", "field", name, list(fields))
        kind = _type_of(recipe, name, setting)
        known, optional = _without_none(kind)
        shown = kind.__name__ if type(kind) is type else str(kind)
        if known not in _READERS:
            raise ValueError(
                f"with_settings: `{name}` cannot be set from text, because its type is {shown}; "
                "set the field in a subclass of the recipe. Text can set fields of type str, int, "
                f"float or bool. Received: {setting!r}"
            )
        try:
            changes[name] = None if optional and text == "None" else _READERS[known](text)
        except ValueError as error:
            raise ValueError(
                f"with_settings: `{name}` must have the type {shown}, as in "
                f"{name}={getattr(recipe, name)}. Received: {setting!r}"
            ) from error
    return dataclasses.replace(recipe, **changes)


def _bool(text: str) -> bool:
    """Return the boolean that a text states. `bool("False")` would be `True`."""
    if text.lower() not in ("true", "false"):
        raise ValueError(f"neither True nor False: {text!r}")
    return text.lower() == "true"


_READERS: dict[object, Callable[[str], object]] = {
    str: str,
    int: int,
    float: float,
    bool: _bool,
}


def _type_of(recipe: "DataclassInstance", name: str, setting: str) -> object:
    """Return the type of a field, even if the recipe's module stores annotations as strings."""
    try:
        return typing.get_type_hints(type(recipe))[name]
    except NameError as error:
        (declared,) = (one.type for one in dataclasses.fields(recipe) if one.name == name)
        raise ValueError(
            f"with_settings: the type {declared} of `{name}` cannot be read; import the types of "
            f"all fields outside `if TYPE_CHECKING`. Received: {setting!r}. Reason: {error}"
        ) from error


def _without_none(kind: object) -> tuple[object, bool]:
    """Return `(X, True)` for the type `X | None`, and `(kind, False)` for other types."""
    parts = typing.get_args(kind)
    is_union = typing.get_origin(kind) in (types.UnionType, typing.Union)
    if is_union and len(parts) == 2 and types.NoneType in parts:
        return next(part for part in parts if part is not types.NoneType), True
    return kind, False


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
