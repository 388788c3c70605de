import csv
from importlib import resources

import keras

from keras_tokenlearner.analysis.costs import costs
from keras_tokenlearner.applications import create_model

COLUMNS = ("table", "row", "paper_gflops", "gflops", "paper_mparams", "mparams", "note")


def catalog_costs(name, **arguments):
    """Count the costs of a model of the catalogue, without memory or time for its weights.

    Args:
        name: Name in the catalogue.
        **arguments: For `create_model`.

    Returns:
        A `ModelCosts`.

    Example:

    >>> f"{catalog_costs('tokenlearner_b16_8at6').paper_gflops:.1f} GFLOPs"
    '28.4 GFLOPs'
    """
    with keras.StatelessScope(initialize_variables=False):
        return costs(create_model(name, **arguments))


def paper_costs(tables=None):
    """Count every printed cost of the paper's own models, and yield it beside the printed one.

    Args:
        tables: Tables to count, such as `("1", "4")`; all if `None`.

    Yields:
        A dictionary with the keys `COLUMNS` for every printed row: `paper_gflops` and
        `paper_mparams` as printed (empty where the paper prints none), `gflops` and `mparams`
        (millions) as counted from the built model with 1000 classes for images and 400 for videos,
        and a note where the paper contradicts itself.
    """
    file = resources.files("keras_tokenlearner.analysis") / "paper_costs.csv"
    with file.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if not tables or row["table"] in tables]
    for row in rows:
        found = catalog_costs(row["model"], classes=400 if "vivit" in row["model"] else 1000)
        row |= {"gflops": f"{found.paper_gflops:.2f}", "mparams": f"{found.params / 1e6:.1f}"}
        yield {column: row[column] for column in COLUMNS}
