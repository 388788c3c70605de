"""The notebooks equal their sources, were run to the end, and run on this backend."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once("torch")

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
REMEDY = "run `make notebooks`"


def _cells(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]


def test_notebook_sources_have_exactly_one_notebook_each():
    assert len(NAMES) > 4
    assert [path.stem for path in sorted(FOLDER.glob("*.py")) if path.stem != "make"] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_notebook_equals_its_source(name):
    jupytext = pytest.importorskip("jupytext")
    sources = [(cell.cell_type, cell.source) for cell in jupytext.read(FOLDER / f"{name}.py").cells]
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in _cells(name)]
    assert found == sources, REMEDY


@pytest.mark.parametrize("name", NAMES)
def test_notebook_first_code_cell_sets_the_backend_and_imports_the_package(name):
    """A missing backend then gives this package's error, not Keras's."""
    first = next("".join(cell["source"]) for cell in _cells(name) if cell["cell_type"] == "code")
    backend = r'os\.environ(?:\.setdefault\(|\[)"KERAS_BACKEND"(?:, |\] = )"jax"'
    assert re.search(backend, first)
    imported = re.findall(r"^(?:import|from) (\w+)", first, re.MULTILINE)
    assert imported[:2] == ["os", "keras_tokenlearner"]


@pytest.mark.parametrize("name", NAMES)
def test_notebook_was_run_from_top_to_bottom_and_is_a_small_file(name):
    code = [cell for cell in _cells(name) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), REMEDY
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    assert sum(len("".join(output.get("text", ""))) for output in outputs) > 50
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 300_000


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_notebook_source_runs(name, tmp_path):
    """The source runs as a program, in an empty folder."""
    done = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py"],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(FOLDER.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout) > 50
