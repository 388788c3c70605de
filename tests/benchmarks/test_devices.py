"""Memory and communication per device, against printed formulas and counts of the model."""

import csv

import keras
import pytest

from benchmarks import devices
from keras_tokenlearner import create_model
from keras_tokenlearner.analysis import costs

pytestmark = pytest.mark.once("torch")


def test_activation_memory_without_dropout_equals_the_formula_of_korthikanti():
    block = create_model("vit_pico8").get_layer("block_0")
    _, tokens, channels = block.input.shape
    heads, hidden = block.num_heads, block.mlp.mlp_dim
    block.mlp.mlp_dim = 4 * channels  # the value in the formula
    for parts in (1, 2, 4):
        squared = 2 * heads * tokens / channels  # the printed 5 includes dropout
        printed = tokens * channels * (8 + 24 / parts + squared / parts)  # 10 includes two masks
        assert devices.activations(block, parts) == pytest.approx(printed)
    block.mlp.mlp_dim = hidden


def test_devices_benchmark_with_fewer_devices_than_parts_raises_and_keeps_the_file(
    capsys, tmp_path
):
    output = tmp_path / "rows.csv"
    output.write_text("earlier")
    with pytest.raises(SystemExit):
        devices.main(["--parts", "4", "--devices", "1", "2", "--output", str(output)])
    assert "--devices" in capsys.readouterr().err and output.read_text() == "earlier"


def test_devices_benchmark_rows_equal_a_manual_count_of_memory_and_communication(tmp_path):
    name, output = "tokenlearner_pico8_4at1", tmp_path / "rows.csv"
    options = ["--models", name, "--parts", "1", "2", "--devices", "1", "4"]
    devices.main([*options, "--output", str(output)])
    lines = output.read_text().splitlines()
    assert "python -m benchmarks." in lines[0] and keras.__version__ in lines[1]
    rows = list(csv.DictReader(lines[2:]))
    assert [(row["mode"], row["devices"], row["examples"]) for row in rows] == [
        ("data_parallel", "1", "1"),
        ("data_parallel", "4", "4"),
        ("model_parallel:2", "4", "2"),
    ]
    model = create_model(name)
    one, four, divided = ({k: float(row[k]) for k in devices.COLUMNS[4:]} for row in rows)
    assert one["state_gib"] == pytest.approx(16 * model.count_params() / 2**30, rel=0.01)
    assert one["tera_macs"] == pytest.approx(3e-12 * costs(model).macs, rel=0.01)
    assert one["exchanged_gib"] == 0
    gradients = 2 * model.count_params()
    assert four["exchanged_gib"] == pytest.approx(2 * 3 / 4 * gradients / 2**30, rel=0.01)
    assert one["state_gib"] / 2 < divided["state_gib"] < one["state_gib"]
    assert one["tera_macs"] / 2 < divided["tera_macs"] < one["tera_macs"]
