"""The error for a missing library names the library and the extra that installs it."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

from keras_tokenlearner import _extras, cli

pytestmark = pytest.mark.once("torch")

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SOURCES = [
    path.read_text()
    for folder in ("keras_tokenlearner", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
]


def test_require_of_a_missing_module_raises_and_names_library_and_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install scikit-learn \(extra `dev`\)"):
        _extras.require("sklearn.cluster", "dev")


def test_check_installed_of_a_missing_parent_package_names_library_and_extra():
    with pytest.raises(ImportError, match=r"pip install absent_package.*`dev`"):
        _extras.check_installed("absent_package.module", "dev")


def test_extras_named_in_the_package_exist_in_pyproject():
    named = {
        extra
        for source in SOURCES
        for extra in re.findall(r'(?:require|missing)\("[\w.]+", "(\w+)"\)', source)
        + re.findall(
            r"`(\w+)`", " ".join(re.findall(r"the extras? (?:`\w+`(?:,| and| or)? ?)+", source))
        )
    }
    assert len(named) > 8
    assert named <= set(EXTRAS)


def test_required_libraries_belong_to_their_extra():
    required = {
        found
        for source in SOURCES
        for found in re.findall(r"""(?:require|missing)\(["']([\w.]+)["'], ["'](\w+)["']""", source)
    }
    assert len(required) > 10
    for module, extra in required:
        included = {re.split("[<>=~!]", requirement)[0] for requirement in EXTRAS[extra]}
        assert _extras.library_of(module) in included, (module, extra)


def test_repository_texts_never_install_the_package_from_pypi():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.py")]
    texts = [*SOURCES, *(path.read_text() for path in pages)]
    assert [text for text in texts if re.search(r"install ['\"]*keras-tokenlearner", text)] == []


def test_command_line_without_typer_exits_and_names_the_library_and_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit, match=r"pip install typer \(extra `cli`\)"):
        importlib.reload(cli)
