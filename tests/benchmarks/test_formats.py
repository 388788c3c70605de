"""The table of formats: differences of working formats, reasons of failing ones."""

import csv

import keras
import pytest

from benchmarks import formats

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.slow  # each row runs in a process of its own


def rows(folder, *arguments):
    output = folder / "rows.csv"
    options = ["--repeats", "1", "--backends", BACKEND, "--output", str(output)]
    formats.main(["tokenlearner_pico8_4at1", *options, *arguments])
    lines = output.read_text().splitlines()
    assert lines[0].startswith("# ") and f"keras {keras.__version__}" in lines[1]
    return list(csv.DictReader(lines[2:]))


def test_format_row_of_a_working_format_has_latency_and_difference(tmp_path):
    same, quantized = rows(tmp_path, "--formats", "keras", "int8")
    assert [(row["works"], row["batch"]) for row in (same, quantized)] == [("yes", "any")] * 2
    assert float(same["max_difference"]) < 1e-5 < float(quantized["max_difference"]) < 0.3
    assert int(quantized["bytes"]) < int(same["bytes"])
    assert float(same["ms_1"]) > 0 and float(same["ms_32"]) > 0
    assert "embedding/projection/kernel" in quantized["note"]


@pytest.mark.parametrize(
    ("kind", "library", "backends"),
    [
        ("onnx", "onnxruntime", ("tensorflow", "torch")),
        ("openvino", "openvino", ("tensorflow", "torch")),
        ("litert", "ai_edge_litert", ("tensorflow",)),
        ("torch", "torch", ("torch",)),
    ],
)
def test_exported_format_returns_the_outputs_of_the_model(tmp_path, kind, library, backends):
    pytest.importorskip(library, reason="of the extra `formats`")
    if BACKEND not in backends:
        pytest.skip(f"only on {' and '.join(backends)}: Keras writes it there")
    (row,) = rows(tmp_path, "--formats", kind)
    assert row["works"] == "yes", row["note"]
    assert float(row["max_difference"]) < 1e-4 and int(row["bytes"]) > 10_000


@pytest.mark.skipif(BACKEND == "torch", reason="only on tensorflow and jax: it works on torch")
def test_format_row_of_a_failing_format_has_the_error(tmp_path):
    (row,) = rows(tmp_path, "--formats", "torch")
    assert (row["works"], row["bytes"]) == ("no", "")
    assert "requires PyTorch backend" in row["note"]
