"""The documentation site is complete; `make docs` builds it."""

import inspect
import pkgutil
import re
import runpy
from importlib import import_module
from pathlib import Path

import pytest

import keras_tokenlearner
from keras_tokenlearner.applications import list_models
from tests.skips import peer

pytestmark = pytest.mark.once("torch")

ROOT = Path(__file__).parent.parent
INDEX = (ROOT / "docs/index.md").read_text()


def test_docs_reference_lists_every_package_with_public_names():
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
    # `keras-tokenlearner train --list` and `--help` describe these packages.
    described = {f"{name}.training.recipes", f"{name}.cli"}
    assert set(public) - described == set(listed)


def test_docs_index_lists_every_guide_and_notebook():
    assert set(re.findall(r"^/notebooks/(\w+)$", INDEX, re.M)) == {
        path.stem for path in ROOT.glob("notebooks/*.ipynb")
    }
    guides = {path.stem for path in ROOT.glob("docs/*.md")} - {"index", "pypi"}
    assert guides <= set(INDEX.splitlines())


def test_docs_model_pages_list_every_model_once():
    models = (ROOT / "docs/models.md").read_text()
    pages = sorted((ROOT / "docs/models").glob("*.md"))
    assert re.findall(r"^models/(\w+)$", models, re.M) != []
    assert set(re.findall(r"^models/(\w+)$", models, re.M)) == {page.stem for page in pages}
    patterns = [
        pattern for page in pages for pattern in re.findall(r"{models} (\S+)", page.read_text())
    ]
    listed = [name for pattern in patterns for name in list_models(pattern)]
    assert sorted(listed) == sorted(list_models())


@pytest.mark.peers
def test_docs_model_tables_equal_the_catalogue_and_the_weight_table():
    peer("sphinx")
    tables = runpy.run_path(str(ROOT / "docs/tables.py"))
    row = tables["model_row"]("tokenlearner_nano4_8at2")
    assert row[1:] == ("28x28x1", "0.0243", "0.87", "`fashion_mnist`, `cifar10`")
    rows = tables["checkpoint_rows"]("tokenlearner_*")
    assert [found[:2] for found in rows] == [
        ("`tokenlearner_nano4_8at2`", "`fashion_mnist`"),
        ("`tokenlearner_nano4_8at2`", "`cifar10`"),
        ("`tokenlearner_s14_16at5`", "`cifar10`"),
    ]
    node = tables["table"](("model", "weights"), [found[:2] for found in rows])
    assert [literal.astext() for literal in node.findall(nodes_literal())][1] == "fashion_mnist"


def nodes_literal():
    return pytest.importorskip("docutils.nodes", reason="comes with sphinx").literal


@pytest.mark.parametrize("page", ["models/vit", "models/tokenlearner", "checkpoints", "costs"])
def test_docs_python_blocks_of_each_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some blocks write files
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / f"docs/{page}.md").read_text(), re.DOTALL)
    assert blocks
    names: dict = {}
    for block in blocks:
        if "FILE" not in block and ".npz" not in block:
            exec("import keras_tokenlearner as kt\n" + block, names)  # noqa: S102
    assert names["model"].output_shape[-1] in (5, 10)


def test_docs_first_block_of_the_retrofit_page_distills_a_student():
    block = re.search(r"```python\n(.*?)```", (ROOT / "docs/retrofit.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(block[1], names)  # noqa: S102
    costs = [keras_tokenlearner.costs(names[model]).macs for model in ("teacher", "student")]
    assert costs[1] < costs[0]
    assert names["student"].output_shape == names["teacher"].output_shape
