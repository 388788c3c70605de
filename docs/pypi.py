"""Write `docs/pypi.md`, the README for PyPI: `python docs/pypi.py`.

PyPI shows the page without the repository. Relative links therefore become plain text, and images
of the repository are removed.
"""

import re
from pathlib import Path

FOLDER = Path(__file__).parent


def pypi_page(readme: str) -> str:
    """Return the README without links and images that need the repository."""
    page = re.sub(r"!\[[^\]]*\]\((?!https?://)[^)]*\)\n+(?:\*[^*]*\*\n+)?", "", readme)
    return re.sub(r"\[([^\]]*)\]\((?!https?://|#)[^)]*\)", r"\1", page)


if __name__ == "__main__":
    (FOLDER / "pypi.md").write_text(pypi_page((FOLDER.parent / "README.md").read_text()))
