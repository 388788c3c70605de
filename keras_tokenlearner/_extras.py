"""Libraries that are not needed to run a model, imported where they are used."""

import importlib


def require(module, extra):
    """Import and return a module, or say which extra of the package brings it.

    Raises:
        ImportError: If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{module} is needed here and not installed; "
            f"run: pip install 'keras-tokenlearner[{extra}]'"
        ) from error
