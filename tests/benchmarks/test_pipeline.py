"""Throughput of reading and of training, on generated files."""

import csv

import keras
import pytest

from benchmarks import pipeline

pytestmark = pytest.mark.once("torch")


def test_pipeline_benchmark_writes_the_throughput_of_each_number_of_threads(tmp_path):
    pytest.importorskip("PIL", reason="the extra `image`")
    options = ["--model", "vit_pico8", "--size", "32", "--batch-size", "4", "--batches", "3"]
    output = tmp_path / "rows.csv"
    pipeline.main([*options, "--threads", "1", "2", "--output", str(output)])
    lines = output.read_text().splitlines()
    assert "python -m benchmarks." in lines[0] and keras.__version__ in lines[1]
    rows = list(csv.DictReader(lines[2:]))
    assert [(row["what"], row["threads"]) for row in rows] == [
        ("pipeline", "1"),
        ("pipeline", "2"),
        ("train", ""),
    ]
    assert all(float(row["images_per_second"]) > 0 for row in rows)
