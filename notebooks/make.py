"""Run the notebooks: each `.py` source becomes the `.ipynb` next to it, with outputs.

python notebooks/make.py [NAME ...]
"""

import base64
import io
import sys
import tempfile
from pathlib import Path

import jupytext
import nbclient
import nbformat
from PIL import Image

FOLDER = Path(__file__).parent
NAMES = (
    "quickstart",
    "fine_tuning",
    "tokens",
    "faster_vit",
    "videos",
    "three_backends",
    "serving",
    "devices",
    "paper_costs",
)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def read(name):
    """Return the cells of a source as a notebook, the same each time."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    return notebook


def make(name):
    """Run a notebook in an empty folder and write it, without stderr."""
    notebook = read(name)
    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        nbclient.NotebookClient(notebook, resources=place, record_timing=False).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata = {}
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = smaller(output.data["image/png"])
    nbformat.write(notebook, FOLDER / f"{name}.ipynb")


def smaller(encoded):
    """Return a PNG in base64 with 256 colours, which takes a third of the bytes."""
    written = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
        few = picture.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)
        few.save(written, "PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


if __name__ == "__main__":
    for wanted in sys.argv[1:] or NAMES:
        print(wanted, flush=True)
        make(wanted)
