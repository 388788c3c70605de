"""Write `docs/pypi.md`, the README for PyPI: `python docs/pypi.py`.

PyPI shows the page without the repository. Relative links therefore become plain text, and images
of the repository are removed. The package on PyPI is installed from there, not from a clone.
"""

import re
from pathlib import Path

FOLDER = Path(__file__).parent
# Parts of the README, and the parts of the page that replace them.
INSTALL = {
    "The package is not on PyPI. Install it from a clone, with": "Install it with",
    'pip install -e ".[jax]" ': 'pip install "keras-tokenlearner[jax]" ',
    "\nWith `make`, two commands": "\nIn a clone with `make`, two commands",
}


def pypi_page(readme: str) -> str:
    """Return the README without links and images that need the repository."""
    page = readme
    for part, other in INSTALL.items():
        if part not in page:
            raise ValueError(f"README.md must have {part!r}; or change INSTALL")
        page = page.replace(part, other)
    page = re.sub(r"!\[[^\]]*\]\((?!https?://)[^)]*\)\n+(?:\*[^*]*\*\n+)?", "", page)
    return re.sub(r"\[([^\]]*)\]\((?!https?://|#)[^)]*\)", r"\1", page)


if __name__ == "__main__":
    (FOLDER / "pypi.md").write_text(pypi_page((FOLDER.parent / "README.md").read_text()))
