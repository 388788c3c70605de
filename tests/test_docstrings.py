"""The examples in the docstrings run and give what they say."""

import doctest
import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest

import keras_tokenlearner
from keras_tokenlearner import layers, models


def _modules(package):
    yield package
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(info.name)


def _documented():
    """Return public classes and functions, where they are defined."""
    return {
        f"{module.__name__}.{name}": value
        for module in _modules(keras_tokenlearner)
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


def _examples(value):
    names = {"keras": keras, "np": np, **vars(layers), **vars(models)}
    names |= vars(keras_tokenlearner)
    names |= vars(inspect.getmodule(value))
    finder = doctest.DocTestFinder(recurse=False)
    return [test for test in finder.find(value, value.__name__, globs=names) if test.examples]


DOCUMENTED = _documented()


def test_every_public_name_has_a_docstring():
    assert len(DOCUMENTED) > 30
    assert [name for name, value in DOCUMENTED.items() if not inspect.getdoc(value)] == []


def test_every_public_layer_and_model_has_an_example():
    public = [value for value in vars(layers).values() if inspect.isclass(value)]
    public += [value for value in vars(models).values() if inspect.isfunction(value)]
    assert len(public) > 15
    assert [value.__name__ for value in public if not _examples(value)] == []


@pytest.mark.parametrize("name", [name for name in DOCUMENTED if _examples(DOCUMENTED[name])])
def test_examples(name):
    for test in _examples(DOCUMENTED[name]):
        output = []
        result = doctest.DocTestRunner().run(test, out=output.append)
        assert result.attempted and not result.failed, "".join(output)
