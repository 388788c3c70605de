"""CSV files of measurements: a run replaces its file, or adds rows of the same columns."""

import importlib.metadata
import inspect
import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from benchmarks import pipeline
from benchmarks.machine import machine
from benchmarks.rows import append_row, check_columns, data_name, read_rows

pytestmark = pytest.mark.once("torch")

RESULTS = Path(__file__).parents[2] / "benchmarks/results"
# module: options, and the result of a process of one backend
REPLACED = {
    "around": (["--what", "fit"], [["fit", 1.0, "%", ""]]),
    "block": (["--repeats", "1"], [{"part": "mlp"}]),
    "clips_speed": (["--repeats", "1"], [{"model": "vivit"}]),
    "growth": (["--sizes", "224"], {"tokens": 196}),
    "kernels": (["--steps", "inference"], [{"kernel": "all"}]),
    "realised": (["--pairs", "b16_224", "--steps", "inference"], {"saving": "1"}),
    "retrofit_speed": (["token_learner:3:8", "--batch-sizes", "2", "4"], [{"at": "3"}]),
    "vector_attention": (["--forms", "ours"], {"ms": "1"}),
}


@pytest.mark.parametrize("module", REPLACED)
def test_benchmark_with_an_earlier_file_replaces_its_rows_and_header(monkeypatch, tmp_path, module):
    benchmark, (options, found) = importlib.import_module(f"benchmarks.{module}"), REPLACED[module]

    def in_child(_, backend, case):
        assert {*json.loads(json.dumps(case))} == {*inspect.signature(benchmark.measure).parameters}
        return found

    monkeypatch.setattr(benchmark, "in_child", in_child)
    for name in {"fits", "plot", "draw_bars"} & set(vars(benchmark)):
        monkeypatch.setattr(benchmark, name, lambda *_, **__: [])
    output = tmp_path / "rows.csv"
    output.write_text("# earlier\nother\n1\n")
    benchmark.main([*options, "--backends", "torch", "jax", "--output", str(output)])
    backends = {row["backend"] for row in read_rows(output)}
    assert backends == {"torch", "jax"}  # a run keeps its rows of the other backend
    assert "earlier" not in output.read_text()


def test_pipeline_benchmark_with_an_earlier_file_replaces_its_rows(monkeypatch, tmp_path):
    for name in ("_write_images", "from_folder"):
        monkeypatch.setattr(pipeline, name, lambda *_: None)
    monkeypatch.setattr(pipeline, "_batches", lambda *_: [None])
    for name in ("_pipeline_rate", "_training_rate"):
        monkeypatch.setattr(pipeline, name, lambda *_: 1.0)
    output = tmp_path / "rows.csv"
    append_row(output, pipeline.COLUMNS, {"what": "earlier"})
    pipeline.main(["--threads", "1", "--output", str(output)])
    assert [row["what"] for row in read_rows(output)] == ["pipeline", "train"]


def test_machine_text_contains_the_version_of_a_nightly_library(monkeypatch):
    def version(name):
        if name == "keras-nightly":
            return "3.99.dev1"
        raise PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert machine("keras", "jax").endswith("keras 3.99.dev1, jax not installed")


def test_check_columns_unlike_the_csv_header_raises_and_leaves_the_file_unchanged(tmp_path):
    path = tmp_path / "rows.csv"
    check_columns("owner", path, ("seed", "accuracy"))  # a new file
    append_row(path, ("seed", "accuracy"), {"seed": 0, "accuracy": 0.5})
    check_columns("owner", path, ("seed", "accuracy"))
    with pytest.raises(ValueError, match=r"owner: `--output`.*another --output.*\['epochs'\]"):
        check_columns("owner", path, ("seed", "accuracy", "epochs"))
    with pytest.raises(ValueError, match="rows.csv.* order"):
        check_columns("owner", path, ("accuracy", "seed"))
    assert read_rows(path) == [{"seed": "0", "accuracy": "0.5"}]


@pytest.mark.parametrize(
    ("module", "file"),
    [
        ("clips_cross_validation", "clips_cross_validation"),
        ("paper_comparisons", "paper_comparisons"),
        ("peers", "peers"),
        ("retrofit_ablation", "retrofit_ablation"),
        ("retrofit_ablation", "retrofit_epochs"),
        ("rotary_tokens", "rotary_tokens"),
    ],
)
def test_committed_csv_file_has_the_columns_of_the_benchmark_that_resumes_it(module, file):
    columns = importlib.import_module(f"benchmarks.{module}").COLUMNS
    path = RESULTS / f"{file}.csv"
    check_columns(module, path, columns)
    assert all(set(row) == set(columns) and None not in row.values() for row in read_rows(path))


def test_data_name_omits_the_folder_of_a_known_data_set_and_keeps_other_folders():
    assert data_name("cifar10:/data/cifar") == data_name("cifar10") == "cifar10"
    assert data_name("tfds:cifar100") == "tfds-cifar100"
    assert data_name("folder:/a/b") == "folder-a-b" != data_name("folder:/a/c")
