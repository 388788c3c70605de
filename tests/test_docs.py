"""The documentation site has a page for everything that there is; `make docs` builds it."""

import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import keras_tokenlearner

ROOT = Path(__file__).parent.parent
INDEX = (ROOT / "docs/index.md").read_text()


def test_every_package_with_public_names_is_in_the_reference():
    listed = re.findall(r"^   (keras_tokenlearner\S+)$", (ROOT / "docs/api.md").read_text(), re.M)
    name = keras_tokenlearner.__name__
    walked = pkgutil.walk_packages(keras_tokenlearner.__path__, f"{name}.")
    packages = [import_module(found.name) for found in walked if found.ispkg]
    public = [
        package.__name__
        for package in packages
        if any(inspect.isclass(x) or inspect.isfunction(x) for x in vars(package).values())
    ]
    assert len(public) > 8
    # By `keras-tokenlearner train --list` and `--help`.
    described = {f"{name}.training.recipes", f"{name}.cli"}
    assert set(public) - described == set(listed)


def test_every_guide_and_notebook_is_in_the_index():
    assert set(re.findall(r"^/notebooks/(\w+)$", INDEX, re.M)) == {
        path.stem for path in ROOT.glob("notebooks/*.ipynb")
    }
    guides = {path.stem for path in ROOT.glob("docs/*.md")} - {"index"}
    assert guides <= set(INDEX.splitlines())
