"""The tables in CONTRIBUTING.md list every folder, and all files of `weights/` and `presets/`."""

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.once("torch")

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keras_tokenlearner"
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def table(heading):
    """Return the rows of the first table at or after `heading`, as lists of cells."""
    lines = TEXT[TEXT.index(heading) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def named(cell):
    """Return the names in backticks in a cell of a table."""
    return re.findall(r"`([\w./]+)`", cell)


def contents(folder):
    """Return the names of the files and folders in a folder of the package."""
    found = [path for path in (PACKAGE / folder).iterdir() if path.name[0] not in "_."]
    return {path.name + "/" * path.is_dir() for path in found}


def raises(path):
    """Return whether the code of a file has a statement that raises an error with a message."""
    tree = ast.parse(path.read_text())
    return any(isinstance(node, ast.Raise) and node.exc for node in ast.walk(tree))


def test_contributing_layout_table_names_every_folder():
    text = " ".join(row[0] for row in table("| folder | holds"))
    for path in PACKAGE.glob("*/__init__.py"):
        assert f"{path.parent.name}/`" in text


@pytest.mark.parametrize("folder", ["weights", "presets"])
def test_contributing_file_table_names_every_file_of_the_folder(folder):
    listed = [name for row in table(f"Files of `{folder}/`") for name in named(row[0])]
    assert len(listed) == len(set(listed))
    assert set(listed) | {"files/"} == contents(folder)


def test_contributing_error_table_lists_every_file_that_raises():
    listed = {name for row in table("| the error says") for name in named(row[1])}
    found = set()
    for path in [*PACKAGE.glob("weights/**/*.py"), *PACKAGE.glob("presets/*.py")]:
        name = str(path.relative_to(PACKAGE))
        if raises(path):
            found.add("weights/formats/" if name.startswith("weights/formats/") else name)
    assert len(found) > 10 and listed == found
