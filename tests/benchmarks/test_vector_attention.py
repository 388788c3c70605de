"""Every form runs, as a row."""

import csv

import keras

from benchmarks import vector_attention


def test_rows(capsys):
    backend = keras.backend.backend()
    sizes = ["--batch", "1", "--tokens", "9", "--channels", "4", "--repeats", "1"]
    forms = ["ours", "direct_gamma"]
    vector_attention.main([*sizes, "--backends", backend, "--forms", *forms])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("# python -m benchmarks.") and "keras" in lines[1]
    rows = list(csv.DictReader(lines[2:]))
    assert [(row["backend"], row["form"]) for row in rows] == [(backend, form) for form in forms]
    assert all(float(row["first_s"]) >= 0 and int(row["peak_mib"]) >= 0 for row in rows)
