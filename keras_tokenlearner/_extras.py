"""Imports optional libraries where they are used, or states how to install them."""

import importlib
import importlib.util
from types import ModuleType

# Libraries whose name for pip differs from the name of the module.
LIBRARIES = {
    "PIL": "pillow",
    "ai_edge_litert": "ai-edge-litert",
    "keras_cv": "keras-cv",
    "keras_hub": "keras-hub",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}


def library_of(module: str) -> str:
    """Return the name under which pip installs a module.

    Args:
        module: Name of a module, with dots if it is inside a package.

    Example:

    >>> library_of("sklearn.cluster")
    'scikit-learn'
    """
    package = module.partition(".")[0]
    return LIBRARIES.get(package, package)


def require(module: str, extra: str) -> ModuleType:
    """Import and return a module of an optional library.

    Users install this package from a clone of its repository, not from PyPI. The error therefore
    names the library to install, and the extra in `pyproject.toml` that includes the library.

    Args:
        module: Name of the module.
        extra: Name of the extra.

    Raises:
        ImportError: If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(missing(module, extra)) from error


def check_installed(module: str, extra: str) -> None:
    """Raise `ImportError` if a module is not installed, without importing it.

    Args:
        module: Name of the module.
        extra: Name of the extra.
    """
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # the parent package is missing
        found = None
    if found is None:
        raise ImportError(missing(module, extra))


def missing(module: str, extra: str) -> str:
    """Return the error message for a module that is not installed."""
    library = library_of(module)
    return f"{module} is not installed; run: pip install {library} (extra `{extra}`)"
