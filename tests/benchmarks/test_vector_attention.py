"""The benchmark of vector attention writes a row for each implementation."""

import keras
import pytest

from benchmarks import vector_attention
from benchmarks.rows import read_rows


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only on torch: same rows elsewhere")
def test_vector_attention_benchmark_writes_a_row_per_implementation(tmp_path):
    backend = keras.backend.backend()
    sizes = ["--batch", "1", "--tokens", "9", "--channels", "4", "--repeats", "1"]
    forms = ["ours", "direct_gamma"]
    output = tmp_path / "rows.csv"
    vector_attention.main(
        [*sizes, "--backends", backend, "--forms", *forms, "--output", str(output)]
    )
    lines = output.read_text().splitlines()
    assert "python -m benchmarks." in lines[0] and "keras" in lines[1]
    rows = read_rows(output)
    assert [(row["backend"], row["form"]) for row in rows] == [(backend, form) for form in forms]
    assert all(float(row["first_s"]) >= 0 and int(row["peak_mib"]) >= 0 for row in rows)
