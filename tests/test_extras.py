"""What is not installed is asked for by the extra that brings it."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

from keras_tokenlearner import _extras, cli

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_what_is_missing_is_named():
    with pytest.raises(ImportError, match=r"nothing is needed .* 'keras-tokenlearner\[plot\]'"):
        _extras.require("nothing", "plot")


def test_extras_that_the_package_names_exist():
    sources = [path.read_text() for path in (ROOT / "keras_tokenlearner").rglob("*.py")]
    named = {
        extra
        for source in sources
        for extra in re.findall(r'require\("[\w.]+", "(\w+)"\)', source)
        + re.findall(r"the extras? `(\w+)`", source)
    }
    assert len(named) > 8
    assert named <= set(EXTRAS)


def test_the_command_line_without_typer(monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit, match=r"pip install 'keras-tokenlearner\[cli\]'"):
        importlib.reload(cli)
