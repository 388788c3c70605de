"""Reads and writes CSV files of measurements. A run replaces its file, or adds missing rows."""

import csv
import re

from benchmarks.machine import command, machine


def read_rows(path):
    """Return the rows of a file as dictionaries of strings, or no rows without a file."""
    return list(csv.DictReader(_table(path)))


def check_columns(owner, path, columns, argument="--output"):
    """Raise `ValueError` if a file exists and has other columns than a run would append."""
    found = next(csv.reader(_table(path)), None)
    if found is not None and found != list(columns):
        differing = sorted(set(found) ^ set(columns)) or "their order"
        raise ValueError(
            f"{owner}: `{argument}` must be a new file, or have the columns of this version; "
            f"pass another {argument}. Received: {argument}={path}, which differs in {differing}"
        )


def replace_file(path):
    """Remove the file of an earlier run, because its header has another command and machine."""
    path.unlink(missing_ok=True)


def append_row(path, columns, row, libraries=("keras", "tensorflow", "jax", "torch")):
    """Append a row to a CSV file. The file starts with the command, the machine and libraries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.is_file()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            file.write(f"# {command()}\n# {machine(*libraries)}\n")
            writer.writeheader()
        writer.writerow(row)
    print(row, flush=True)


def data_name(data):
    """Return the name of a data set for a column or a file, without the folder of a known set."""
    name = data.partition(":")[0]
    return re.sub(r"[^\w.-]+", "-", name if name in ("cifar10", "fashion_mnist") else data)


def _table(path):
    """Return the lines of a file without its comments, or no lines without a file."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return [line for line in lines if not line.startswith("#")]
