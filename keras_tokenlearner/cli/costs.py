import csv
import sys
from enum import StrEnum
from typing import Annotated

import typer


class Format(StrEnum):
    """The format of a table."""

    table = "table"
    csv = "csv"


def costs(
    model: Annotated[
        str | None, typer.Argument(help="A .keras file, a preset, or the name of a model.")
    ] = None,
    paper: Annotated[
        bool, typer.Option(help="Count the costs of every row of the paper's tables.")
    ] = False,
    format: Annotated[
        Format | None, typer.Option(help="Output format of --paper; table by default.")
    ] = None,
) -> None:
    """Count the multiply-adds, the paper's GFLOPs and the parameters of a model, from its graph."""
    if paper and model:
        raise typer.BadParameter(f"pass either --paper or the name of a model; got {model}")
    if format and not paper:
        raise typer.BadParameter("--format has an effect with --paper only; leave it out")
    if paper:
        _print_paper_costs(format or Format.table)
    elif model:
        from keras_tokenlearner.analysis import catalog_costs, costs
        from keras_tokenlearner.applications import CATALOG
        from keras_tokenlearner.applications.load import load_model

        known = model in CATALOG
        print(catalog_costs(model) if known else costs(load_model(model, owner="costs")))
    else:
        raise typer.BadParameter(
            "pass the name of a model (`keras-tokenlearner models` lists the names), or --paper"
        )


def _print_paper_costs(format: Format) -> None:
    from keras_tokenlearner.analysis.paper_costs import COLUMNS, paper_costs

    if format is Format.csv:
        writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
        writer.writeheader()
    else:
        print(f"{'table':6}{'row':40}{'printed':>9}{'ours':>9}{'differ':>8}{'M params':>10}  note")
    for row in paper_costs():
        if format is Format.csv:
            writer.writerow(row)
            sys.stdout.flush()
            continue
        printed, ours = row["paper_gflops"], row["gflops"]
        differ = f"{100 * (float(ours) / float(printed) - 1):+.1f}%" if printed else ""
        print(
            f"{row['table']:6}{row['row']:40}{printed:>9}{ours:>9}{differ:>8}"
            f"{row['mparams']:>10}  {row['note']}",
            flush=True,
        )
