"""Configures Sphinx for `make docs`. The repository is the root, so links are paths of files."""

import inspect
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from keras_tokenlearner._version import __version__  # noqa: E402

project = "keras_tokenlearner"
author = "The authors of keras_tokenlearner"
copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "tables",
]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "benchmarks/*.md",
    "docs/**.md",
    "docs/api/*.rst",
    "notebooks/*.ipynb",
]
exclude_patterns = [".*", "build", "dist", "site", "docs/pypi.md"]
templates_path = [str(Path(__file__).parent / "_templates")]

# Docstrings: Google style, with names of code between single backticks.
default_role = "py:obj"
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Call arguments", "params_style")]
autodoc_inherit_docstrings = False
autosummary_imported_members = True

# Markdown and notebooks keep their stored outputs.
nb_execution_mode = "off"
myst_heading_anchors = 3

# The copy button copies commands and code, without prompts and printed results.
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"keras_tokenlearner {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# At this size, lines of 100 columns fit.
html_theme_options = {"light_css_variables": {"code-font-size": "0.72rem"}}
html_extra_path = ["front"]  # redirects from the root of the site to docs/index.html


def signature_of_init(app, what, name, found, options, signature, returns):
    """Show the arguments of a layer's `__init__`, which Keras's `__new__` hides."""
    if what == "class" and signature == "(*args, **kwargs)":
        _, *arguments = inspect.signature(found.__init__).parameters.values()
        signature = str(inspect.Signature(arguments))
    return signature, returns


def setup(app):
    app.connect("autodoc-process-signature", signature_of_init)
