"""Reads and extends a CSV file of measurements, so that an interrupted run continues."""

import csv

from benchmarks.machine import command, machine


def read_rows(path):
    """Return the rows of a file as dictionaries of strings, or no rows without a file."""
    if not path.is_file():
        return []
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


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
