"""The format benchmark: agreement of working formats, and errors of failing formats."""

import csv

import keras
import pytest

from benchmarks import formats

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.slow  # each row runs in a process of its own


def rows(folder, *arguments):
    output = folder / "rows.csv"
    options = ["--repeats", "1", "--backends", BACKEND, "--output", str(output)]
    formats.main(["tokenlearner_pico8_4at1", *arguments, *options])
    lines = output.read_text().splitlines()
    assert lines[0].startswith("# ") and f"keras {keras.__version__}" in lines[1]
    return list(csv.DictReader(lines[2:]))


@pytest.mark.parametrize(
    ("kind", "library"),
    [
        ("keras", "keras"),
        ("saved_model", "tensorflow"),
        ("onnx", "onnxruntime"),
        ("openvino", "openvino"),
        ("litert", "ai_edge_litert"),
        ("pt2", "torch"),
    ],
)
def test_format_benchmark_row_of_each_precision_has_speed_and_difference_from_keras(
    tmp_path, kind, library
):
    pytest.importorskip(library, reason="of the extra `formats`")
    exact, reduced = rows(tmp_path, "--formats", kind)
    assert [row["works"] for row in (exact, reduced)] == ["yes", "yes"], (exact, reduced)
    assert (exact["precision"], reduced["precision"]) == formats.KINDS[kind]
    assert float(exact["difference"]) < 1e-4 and exact["same_top_1"] == "8/8"
    assert float(reduced["difference"]) < 0.1
    assert all(float(row["ms_1"]) > 0 for row in (exact, reduced))
    assert int(exact["best_batch"]) in formats.BATCHES


def test_format_benchmark_row_of_a_failing_format_has_the_error(tmp_path):
    (row, _) = rows(tmp_path, "--formats", "onnx", "--weights", "missing.weights.h5")
    assert (row["works"], row["mib"]) == ("no", "")
    assert "missing.weights.h5" in row["note"]
