"""Sphinx makes the site: `make docs`. Its root is the repository, so that all links are files'."""

import inspect
from pathlib import Path

from keras_tokenlearner._version import __version__

project = "keras_tokenlearner"
author = "the authors of keras_tokenlearner"
copyright = author
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = ["*.md", "benchmarks/*.md", "docs/*.md", "docs/api/*.rst", "notebooks/*.ipynb"]
exclude_patterns = [".*", "build", "dist", "site"]
templates_path = [str(Path(__file__).parent / "_templates")]

# Docstrings: Google style, with names of code between single backticks.
default_role = "py:obj"
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Call arguments", "params_style")]
autodoc_inherit_docstrings = False
autosummary_imported_members = True

# Markdown and notebooks: shown with the outputs that they have.
nb_execution_mode = "off"
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"keras_tokenlearner {version}"
html_theme_options = {"light_css_variables": {"code-font-size": "0.72rem"}}  # 100 columns fit
html_extra_path = ["front"]  # from the root of the site to docs/index.html


def signature_of_init(app, what, name, found, options, signature, returns):
    """Give a layer its own arguments, which Keras's `__new__` hides."""
    if what == "class" and signature == "(*args, **kwargs)":
        _, *arguments = inspect.signature(found.__init__).parameters.values()
        signature = str(inspect.Signature(arguments))
    return signature, returns


def setup(app):
    app.connect("autodoc-process-signature", signature_of_init)
