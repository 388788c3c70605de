"""Simultaneous clients: correct and wrong answers are counted."""

import csv

import numpy as np
import pytest

from benchmarks import load
from keras_tokenlearner import create_model, export

pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
pytest.importorskip("kserve", reason="the server is KServe")

pytestmark = pytest.mark.once("tensorflow")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    model = create_model("tokenlearner_pico8_4at1", classes=5)
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.2, w.shape) for w in model.get_weights()])
    folder = tmp_path_factory.mktemp("load") / "pico"
    export(model, folder, check=False)
    return folder


def test_load_benchmark_of_correct_responses_counts_no_wrong_responses(path, tmp_path):
    output = tmp_path / "rows.csv"
    load.main([str(path), "--clients", "1", "6", "--seconds", "1", "--output", str(output)])
    lines = output.read_text().splitlines()
    assert "python -m benchmarks." in lines[0] and "kserve" in lines[1]
    rows = list(csv.DictReader(lines[2:]))
    assert [(row["clients"], row["wrong"]) for row in rows] == [("1", "0"), ("6", "0")]
    assert all(int(row["requests"]) > 0 for row in rows)
    assert all(0 < float(row["p50_ms"]) <= float(row["p99_ms"]) for row in rows)


def test_load_benchmark_of_wrong_responses_counts_every_response(path, monkeypatch, tmp_path):
    questions = load._questions(path)
    other = [(body, right + 0.1) for body, right in questions]
    monkeypatch.setattr(load, "_questions", lambda _: other)
    output = tmp_path / "rows.csv"
    load.main([str(path), "--clients", "2", "--seconds", "0.5", "--output", str(output)])
    row = next(csv.DictReader(output.read_text().splitlines()[2:]))
    assert row["wrong"] == row["requests"] != "0"
