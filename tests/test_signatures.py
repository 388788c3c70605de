"""Public functions, classes and methods state their types. No type is `Any` or `object`."""

import importlib
import inspect
import pkgutil
import typing
from types import SimpleNamespace

import pytest

import keras_tokenlearner as kt
from keras_tokenlearner._json import JSON
from keras_tokenlearner.weights.formats.entries import Nested

pytestmark = pytest.mark.once("torch")


class Unloaded:
    """Replaces classes of libraries that the package imports only for type checkers."""


NAMES = {
    "Figure": Unloaded,
    "Nested": Unloaded,  # recursive: the last test of this file checks this type
    "torch": SimpleNamespace(nn=SimpleNamespace(Module=Unloaded)),
}


def public_items():
    """Return the public functions and classes of all packages by name."""
    packages = [kt] + [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(kt.__path__, "keras_tokenlearner.")
        if found.ispkg
    ]
    items = {}
    for package in packages:
        for name in getattr(package, "__all__", ()):
            item = getattr(package, name)
            if callable(item) and item.__module__.startswith("keras_tokenlearner."):
                items[f"{item.__module__}.{item.__qualname__}"] = item
    return items


def functions(item):
    """Return the functions of an item: a function itself, or the methods that a class defines."""
    if not inspect.isclass(item):
        return {item.__qualname__: item}
    found = {}
    for name, member in vars(item).items():
        member = getattr(member, "__func__", getattr(member, "fget", member))
        # Python adds an untyped `__init__` to protocols.
        is_init = name == "__init__" and not getattr(item, "_is_protocol", False)
        if inspect.isfunction(member) and (is_init or not name.startswith("_")):
            found[f"{item.__qualname__}.{name}"] = member
    return found


def loose(hint):
    """Return whether a type is or holds `Any`, `object`, or a container without element types."""
    if hint in (typing.Any, object, dict, list, tuple, set):
        return True
    # The arguments of numpy's types are types of elements.
    if str(getattr(hint, "__module__", "")).startswith("numpy"):
        return False
    return any(loose(part) for part in typing.get_args(hint) if not isinstance(part, str))


ITEMS = public_items()


def test_public_items_to_check_are_more_than_one_hundred():
    assert len(ITEMS) > 100 and "keras_tokenlearner.applications.create.create_model" in ITEMS


@pytest.mark.parametrize("name", sorted(ITEMS))
def test_public_signature_states_all_types_and_none_is_typing_any_or_object(name):
    for called, function in functions(ITEMS[name]).items():
        hints = typing.get_type_hints(function, localns=NAMES)
        parameters = inspect.signature(function).parameters
        missing = set(parameters) - set(hints) - {"self", "cls"}
        assert not missing and "return" in hints, called
        assert [part for part, hint in hints.items() if loose(hint)] == [], called


@pytest.mark.parametrize("name", sorted(name for name in ITEMS if inspect.isclass(ITEMS[name])))
def test_public_attribute_type_is_not_typing_any_or_object(name):
    hints = typing.get_type_hints(ITEMS[name], localns=NAMES)
    own = [part for part in vars(ITEMS[name]).get("__annotations__", ()) if part[0] != "_"]
    assert [part for part in own if loose(hints[part])] == []


def test_loose_type_check_finds_typing_any_object_and_bare_containers_only():
    assert all(map(loose, (typing.Any, list, dict[str, object], typing.Any | None)))
    assert not any(map(loose, (int | None, dict[str, JSON], Nested)))
