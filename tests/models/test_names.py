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
# Layers with a number after the name: a digit, a placeholder or a regular expression.
NUMBERED = ("block", "stage", names.JOIN, names.REJOIN, names.ROTARY)
NUMBERED += (names.TOKEN_LEARNER, names.TOKEN_FUSER)
PATH = re.compile(
    rf"^(?:{'|'.join(sorted(LAYERS))})/|(?:^|[^a-z_])(?:{'|'.join(NUMBERED)})_(?:\d|\\d|\(|\{{|$)"
)
CALLS = ("get_layer", "startswith", "numbered", "convolution", "_norm", "_normalise")


def written_names(source, tables=False, literals=False):
    """Return the layer names in a file's source.

    With `tables`, skip the tables of the module. With `literals`, return every text that names a
    new layer.
    """
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
        if is_text and node not in left_out and PATH.search(node.value):
            found.append(node.value)
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = list(node.args) if called in CALLS else []
            given += [one.value for one in node.keywords if one.arg == "name"]
            parts = [one.values[0] if isinstance(one, ast.JoinedStr) else one for one in given]
            texts = [one.value for one in parts if isinstance(getattr(one, "value", None), str)]
            if node not in left_out:
                found += [text for text in texts if literals or text in LAYERS]
    return found


def _is_part(node):
    """Return whether a statement assigns `self.part`: layers name their own parts."""
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)


def test_written_names_finds_layer_names_in_source_code():
    source = "a['head/kernel'], f'block_{i}', get_layer('norm'), Dense(name='head'), head('head')"
    assert sorted(written_names(source)) == ["block_", "head", "head/kernel", "norm"]
    assert written_names("TABLE = {'head/kernel': 1}", tables=True) == []
    source = "Add(name='join'), f'rejoin_{i}', r'.*block_\\d+/', 'rotary_(', f'stage_{s}_unit_{u}'"
    assert sorted(written_names(source)) == [
        ".*block_\\d+/",
        "join",
        "rejoin_",
        "rotary_(",
        "stage_",
    ]
    source = (
        "Add(name='new'), Add(name=f'new_{i}'), Add(name=f'{layer}_sum'), convolution(x, 'new')"
    )
    assert written_names(source) == [] and len(written_names(source, literals=True)) == 3


def test_layer_names_are_written_only_in_models_names_py_and_tables_of_weight_sources():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        folder = path.relative_to(PACKAGE).parts
        if folder == ("models", "names.py"):
            continue
        source, in_sources = path.read_text(), folder[:2] == ("weights", "sources")
        texts = written_names(source, tables=in_sources, literals=folder[0] == "models")
        if texts:
            found["/".join(folder)] = texts
    assert found == {}
