"""Sphinx directives for tables of models and checkpoints, written during the build."""

import fnmatch
from collections.abc import Iterable, Sequence

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from keras_tokenlearner.analysis import catalog_costs
from keras_tokenlearner.applications import CATALOG, list_models
from keras_tokenlearner.presets import list_checkpoints
from keras_tokenlearner.weights import store


class Models(Directive):
    """List the models whose names fit a pattern, with their costs."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        rows = [model_row(name) for name in list_models(self.arguments[0])]
        return [table(("name", "input", "GFLOPs", "parameters (M)", "included weights"), rows)]


class Checkpoints(Directive):
    """List the included weights of the models whose names fit a pattern."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        rows = checkpoint_rows(self.arguments[0])
        return [table(("model", "weights", "input", "result", "size", "licence"), rows)]


class Published(Directive):
    """List the published checkpoints whose names fit a pattern."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        rows = published_rows(self.arguments[0])
        return [table(("name", "input", "published top-1", "licence", "compared here"), rows)]


def published_rows(pattern: str) -> list[tuple[str, ...]]:
    """Return the table rows of the published checkpoints whose names fit a pattern."""
    return [
        (
            f"`{row.name}`",
            "x".join(str(size) for size in row.input_size),
            row.top1 or "-",
            row.licence,
            "yes" if row.is_checked else "no",
        )
        for row in list_checkpoints(pattern)
    ]


def model_row(name: str) -> tuple[str, ...]:
    """Return name, input, GFLOPs, parameters and included weights of a model."""
    shape = "x".join(str(size) for size in CATALOG[name].input_shape)
    found = catalog_costs(name)
    gflops = (
        f"{found.paper_gflops:.3g}" if found.paper_gflops < 1000 else f"{found.paper_gflops:.0f}"
    )
    weights = ", ".join(f"`{weights}`" for weights in store.names(name)) or "-"
    return f"`{name}`", shape, gflops, f"{found.params / 1e6:.2f}", weights


def checkpoint_rows(pattern: str) -> list[tuple[str, ...]]:
    """Return the table rows of the included weights of the models that fit a pattern."""
    return [
        (
            f"`{model}`",
            f"`{name}`",
            "x".join(str(size) for size in found.input_shape),
            found.metric,
            f"{found.size / 1e6:.1f} MB",
            found.licence,
        )
        for (model, name), found in store.STORE.items()
        if fnmatch.fnmatchcase(model, pattern)
    ]


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> nodes.table:
    """Return a table. Cells in backticks are code."""
    group = nodes.tgroup(cols=len(titles))
    group += [nodes.colspec(colwidth=1) for _ in titles]
    head, body = nodes.thead(), nodes.tbody()
    head += _row(titles)
    body += [_row(cells) for cells in rows]
    group += [head, body]
    return nodes.table("", group)


def _row(cells: Sequence[str]) -> nodes.row:
    row = nodes.row()
    for cell in cells:
        paragraph = nodes.paragraph()
        for index, part in enumerate(cell.split("`")):
            if part:
                paragraph += nodes.literal(text=part) if index % 2 else nodes.Text(part)
        row += nodes.entry("", paragraph)
    return row


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("models", Models)
    app.add_directive("checkpoints", Checkpoints)
    app.add_directive("published", Published)
    return {"parallel_read_safe": True}
