"""Only `models/names.py` and the tables of `weights/sources` spell layer names."""

import ast
import re
from pathlib import Path

import pytest

import keras_tokenlearner
from keras_tokenlearner.models import names

pytestmark = pytest.mark.once("torch")

PACKAGE = Path(keras_tokenlearner.__file__).parent
NAMES = {value for name, value in vars(names).items() if name.isupper() and name[0] != "_"}
LAYERS = {name for name in NAMES if "/" not in name}
PATH = re.compile(
    rf"(?:{'|'.join(sorted(LAYERS))})/|(?:block|{names.TOKEN_LEARNER}|{names.TOKEN_FUSER})_(?:\d|$)"
)
CALLS = ("get_layer", "startswith", "numbered")


def written_names(source, tables=False):
    """Return the layer names in a file's source; `tables` leaves its tables out."""
    tree = ast.parse(source)
    left_out = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring
            left_out.add(node.value)
        if isinstance(node, ast.Raise) or _is_part(node):
            left_out.update(ast.walk(node))
    for node in tree.body if tables else ():
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            left_out.update(ast.walk(node))
    found = []
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and node not in left_out and PATH.match(node.value):
            found.append(node.value)
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = list(node.args) if called in CALLS else []
            given += [one.value for one in node.keywords if one.arg == "name"]
            texts = [one.value for one in given if isinstance(one, ast.Constant)]
            found += [text for text in texts if text in LAYERS] if node not in left_out else []
    return found


def _is_part(node):
    """Return whether a statement assigns `self.part`: layers name their own parts."""
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)


def test_written_names_finds_layer_names_in_source_code():
    source = "a['head/kernel'], f'block_{i}', get_layer('norm'), Dense(name='head'), head('head')"
    assert sorted(written_names(source)) == ["block_", "head", "head/kernel", "norm"]
    assert written_names("TABLE = {'head/kernel': 1}", tables=True) == []


def test_layer_names_are_spelt_in_one_file_only():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        folder = path.relative_to(PACKAGE).parts
        if folder == ("models", "names.py"):
            continue
        texts = written_names(path.read_text(), tables=folder[:2] == ("weights", "sources"))
        if texts:
            found["/".join(folder)] = texts
    assert found == {}
