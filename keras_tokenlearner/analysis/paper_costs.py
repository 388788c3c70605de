import csv
from collections.abc import Collection, Iterator
from importlib import resources
from typing import Unpack

from keras_tokenlearner._checks import check_choice, check_is
from keras_tokenlearner._errors import own_errors
from keras_tokenlearner.analysis.costs import ModelCosts, costs
from keras_tokenlearner.applications import create_model
from keras_tokenlearner.applications.arguments import LoadArguments
from keras_tokenlearner.models import X2Plus1DConfig, bottleneck_module
from keras_tokenlearner.models.weightless import without_weights

MODULE = "module:"  # prefix of the unit of a bottleneck module, in the column "model"
COLUMNS = ("table", "row", "paper_gflops", "gflops", "paper_mparams", "mparams", "note")


@own_errors
def catalog_costs(model: str, **arguments: Unpack[LoadArguments]) -> ModelCosts:
    """Count the costs of a model of the catalogue, without allocating its weights.

    Args:
        model: Name in the catalogue.
        **arguments: Arguments of `create_model`, except for `weights`.

    Returns:
        A `ModelCosts`.

    Example:

    >>> f"{catalog_costs('tokenlearner_b16_8at6').paper_gflops:.1f} GFLOPs"
    '28.4 GFLOPs'
    """
    return without_weights(lambda: costs(create_model(model, **arguments)))


def module_costs(unit: str) -> ModelCosts:
    """Count the costs of a bottleneck module on the input of the paper's Tables 11 and 12.

    Args:
        unit: Parts of the module, the field `unit` of `keras_tokenlearner.models.X2Plus1DConfig`,
            such as `"conv2d+joint"`.

    Returns:
        A `ModelCosts`.

    Example:

    >>> f"{module_costs('conv2d+conv1d').bottleneck_gflops:.1f} GFLOPs"
    '18.3 GFLOPs'
    """
    return without_weights(lambda: costs(bottleneck_module(X2Plus1DConfig(unit))))


def paper_costs(tables: Collection[str] | None = None) -> Iterator[dict[str, str]]:
    """Return our count next to each cost that the paper prints for its own models.

    Args:
        tables: Numbers of tables as strings, such as `("1", "4")`; all if `None`.

    Returns:
        An iterator over the printed rows. The iterator counts a row on request. A row is a
        dictionary with the keys `COLUMNS`. `paper_gflops` and `paper_mparams` are the printed
        values, or empty. `gflops` and `mparams` (millions) are counted from the built model. `note`
        is empty or has a remark, for example where the paper contradicts itself. Image models have
        1000 classes. Video models have 400 classes, or 887 in Table 10. Tables 10 to 12 are counted
        by `Cost.bottleneck_flops`, others by `paper_flops`.

    Raises:
        ValueError: If `tables` is no collection of tables with costs.

    Example:

    >>> next(paper_costs(("1",)))["gflops"]
    '3.44'
    """
    file = resources.files("keras_tokenlearner.analysis") / "paper_costs.csv"
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    if tables is not None:
        kinds = (tuple, list, set, frozenset)
        check_is("paper_costs", "tables", tables, kinds, "a tuple of strings")
        known = dict.fromkeys(row["table"] for row in rows)
        for one in tables:
            check_choice("paper_costs", "tables", one, known, whole=tables)
        rows = [row for row in rows if row["table"] in tables]
    return map(_counted, rows)


def _counted(row: dict[str, str]) -> dict[str, str]:
    """Return a row of the file with our count."""
    model = row["model"]
    if model.startswith(MODULE):
        found = module_costs(model.removeprefix(MODULE))
    else:
        classes = 887 if "x2plus1d" in model else 400 if "vivit" in model else 1000
        found = catalog_costs(model, classes=classes)
    if int(row["table"]) < 10:
        row |= {"gflops": f"{found.paper_gflops:.2f}", "mparams": f"{found.params / 1e6:.1f}"}
    else:
        gflops, mparams = found.bottleneck_gflops, found.params / 1e6
        row |= {"gflops": f"{gflops:.2f}", "mparams": f"{mparams:.3f}"}
    return {column: row[column] for column in COLUMNS}
