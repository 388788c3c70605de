"""The package imports only the allowed modules."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import keras
import pytest

BACKENDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}


@pytest.fixture(scope="module")
def imported():
    """Return the names of the modules that the package imports, without the modules of Keras."""
    program = (
        "import sys, keras; before = set(sys.modules); import keras_tokenlearner;"
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return {*done.stdout.splitlines()[-1].split()}


def test_import_of_the_package_loads_only_the_selected_backend(imported):
    assert "keras_tokenlearner" in imported
    others = [module for name, module in BACKENDS.items() if name != keras.backend.backend()]
    assert not imported & {*others}


def test_import_of_the_package_imports_no_optional_library(imported):
    optional = {"matplotlib", "typer", "tensorflow_datasets", "PIL", "scipy", "kserve"}
    optional |= {"keras_cv", "keras_hub"}
    assert not {name.split(".")[0] for name in imported} & optional


@pytest.mark.once("torch")
@pytest.mark.parametrize("private", ["keras.src", "tf_keras"])
def test_package_uses_only_public_keras(private):
    import keras_tokenlearner

    sources = list(Path(keras_tokenlearner.__file__).parent.rglob("*.py"))
    assert len(sources) > 20
    assert [str(path) for path in sources if private in path.read_text()] == []


FOLDERS = (
    "layers",
    "models",
    "data",
    "weights",
    "presets",
    "applications",
    "analysis",
    "training",
    "evaluation",
    "serving",
    "quickstart",
    "cli",
)


def imported_folders(path):
    """Return the folders of the package that a file imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names = [f"{start}{alias.name}".split(".") for alias in node.names]
            found |= {name[1] for name in names if name[0] == "keras_tokenlearner" and name[1:]}
    return found & {*FOLDERS}


@pytest.mark.once("torch")
def test_package_folders_import_only_folders_listed_above_them():
    root, wrong = Path(__file__).parent.parent / "keras_tokenlearner", []
    for path in root.rglob("*.py"):
        folder = path.relative_to(root).parts[0].removesuffix(".py")
        if folder != "__init__":
            allowed = FOLDERS[: FOLDERS.index(folder) + 1] if folder in FOLDERS else ()
            wrong += [(str(path), target) for target in imported_folders(path) - {*allowed}]
    assert imported_folders(root / "weights/plan.py") == {"layers", "models", "weights"}
    assert wrong == []


def test_packages_and_public_modules_list_their_public_names():
    import keras_tokenlearner as kt

    assert dir(kt) == sorted(kt.__all__) and "_checks" not in dir(kt)
    found = list(pkgutil.walk_packages(kt.__path__, "keras_tokenlearner."))
    packages = [kt, *(importlib.import_module(one.name) for one in found if one.ispkg)]
    modules = {value for package in packages for value in _public_modules(package)}
    modules.add(importlib.import_module("keras_tokenlearner.quickstart"))
    assert len(packages) > 15 and kt.data.cifar10 in modules
    for one in {*packages, *modules}:
        listed = vars(one).get("__all__")
        assert listed is not None, one.__name__
        assert all(hasattr(one, name) for name in listed), one.__name__
        assert not any(name.startswith("_") for name in set(listed) - {"__version__"})
    for name in kt.__all__:
        assert not inspect.ismodule(getattr(kt, name)) or getattr(kt, name).__all__


def _public_modules(package):
    """Return the modules that a package exports by name."""
    values = [getattr(package, name) for name in getattr(package, "__all__", ())]
    return [value for value in values if inspect.ismodule(value)]


@pytest.mark.once("torch")
def test_processes_started_by_the_package_import_nothing_from_the_current_folder():
    """With `-c` or `-m`, Python puts the current folder first on `sys.path`, unless it has `-P`."""
    root, found, starters = Path(__file__).parent.parent / "keras_tokenlearner", [], set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = list(map(ast.unparse, node.elts)) if isinstance(node, ast.List) else []
            if "sys.executable" in parts:
                found.append((path.name, parts[0], parts[1]))
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [getattr(node, "module", None), *(alias.name for alias in node.names)]
                if {"subprocess", "multiprocessing", "ProcessPoolExecutor"} & {*names}:
                    starters.add(path.name)
    assert {name for name, *_ in found} == starters == {"local.py", "quickstart.py", "writing.py"}
    assert {tuple(start) for _, *start in found} == {("sys.executable", "'-P'")}
