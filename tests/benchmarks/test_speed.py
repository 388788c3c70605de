"""Speed benchmarks of cases whose results are known in advance."""

import argparse
import itertools
import re
from pathlib import Path

import keras
import pytest

from benchmarks import around, bars, growth, kernels, matrix_rate, peers, realised, speed, timing
from benchmarks.rows import append_row, read_rows
from keras_tokenlearner import create_model

BENCHMARKS = Path(peers.__file__).parent


def test_timed_calls_of_two_models_alternate_and_omit_the_warm_up(monkeypatch):
    clock = itertools.accumulate([0, 9, 0, 7, 0, 1, 0, 1, 0, 2, 0, 4, 0, 3, 0, 5, 0, 8, 0, 6])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    order = []
    one, other = timing.take_turns([lambda: order.append(1), lambda: order.append(2)], 3)
    assert order == [1, 2] * 4 + [1, 2]
    assert one == timing.Times(9, (2, 3, 8)) and other == timing.Times(7, (4, 5, 6))


def test_realised_saving_is_the_time_ratio_divided_by_the_cost_ratio(monkeypatch):
    pair = ((32, 32, 3), 2, ("vit_pico8", {}), ("tokenlearner_pico8_4at1", {}))
    monkeypatch.setitem(realised.PAIRS, "pico", pair)
    times = [timing.Times(5.0, (0.9, 1.0, 1.2)), timing.Times(4.0, (0.5, 0.5, 0.5))]
    monkeypatch.setattr(realised, "take_turns", lambda *_: times)
    row = realised.measure("pico", "inference", "float32", None, 3)
    assert float(row["saving"]) == 2 and float(row["plain_spread"]) == pytest.approx(0.3)
    assert float(row["realised"]) == pytest.approx(2 / float(row["counted"]), rel=1e-3)
    assert float(row["counted"]) > 1


def test_matrix_rate_grows_matrices_until_a_product_takes_long_enough(monkeypatch):
    sides = []

    def one_second_for_a_side_of_32(calls, repeats):
        sides.append(calls[0])
        return [timing.Times(9.0, (1.0 if calls[0] == 32 else 1e-4, 2.0))]

    monkeypatch.setattr(matrix_rate, "_product", lambda a, b: a.shape[0])
    monkeypatch.setattr(matrix_rate, "take_turns", one_second_for_a_side_of_32)
    assert matrix_rate.matrix_rate(size=8) == 32**3 and sides == [8, 16, 32]


def test_peers_benchmark_compiles_only_timm_and_trains_in_float32_only():
    options = argparse.Namespace(
        backends=("torch", "jax"),
        peers=("timm", "keras_hub"),
        size=224,
        modes=peers.MODES,
        steps=("inference", "training"),
        batch_sizes=[8, 1],
        policies=peers.POLICIES,
    )
    cases = peers.cases(options)
    compiled = [case for case in cases if case["mode"] == "compiled"]
    assert {case["peer"] for case in compiled} == {"timm"}
    assert [case["policy"] for case in compiled] == list(peers.POLICIES)
    training = [case for case in cases if case["step"] == "training"]
    assert {(case["policy"], case["batch_size"]) for case in training} == {("float32", 8)}
    assert [case["backend"] for case in training] == ["torch", "torch", "jax"]
    assert len(cases) == 3 * 6 + 3 + 3  # inference, training, compiled


def test_profiled_kernels_are_grouped_by_their_source():
    events = [("add_1", 3.0), ("add_12", 6.0), ("sm90_gemm_128x64", 9.0), ("fusion.4", 1.5)] * 3
    found = kernels.grouped(events)
    assert found == {"add": (2, 9), "sm90_gemm_128x64": (1, 9), "fusion": (1, 1.5)}


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only on torch: JAX needs a GPU")
def test_profiled_kernels_of_a_training_step_are_sorted_by_time(monkeypatch):
    pair = ((32, 32, 3), 2, ("vit_pico8", {}), ("tokenlearner_pico8_4at1", {}))
    monkeypatch.setitem(realised.PAIRS, "pico", pair)
    rows = kernels.measure("pico", "training", "float32", None, 20)
    assert [row["kernel"] for row in rows[::21]] == ["all", "all"] and len(rows) == 42
    for together, *longest in (rows[:21], rows[21:]):
        ms = [float(row["ms"]) for row in longest]
        assert ms == sorted(ms, reverse=True) and sum(ms) <= float(together["ms"])
        assert any("mm" in row["kernel"] for row in longest)


def test_speed_benchmark_with_the_option_quick_runs_the_quick_parts_only(monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(speed.subprocess, "run", lambda command, check: started.append(command))
    (tmp_path / "block.csv").write_text("old")
    speed.main(["--quick", "--parts", "growth", "block", "--output", str(tmp_path)])
    assert [command[2] for command in started] == ["benchmarks.block", "benchmarks.growth"]
    assert not (tmp_path / "block.csv").exists()
    speed.main(["--parts", "realised_bfloat16", "--output", str(tmp_path)])
    assert started[-1][2] == "benchmarks.realised"
    assert started[-1][-2:] == ["--output", str(tmp_path / "realised_bfloat16.csv")]


@pytest.mark.once("torch")
def test_speed_benchmark_option_quick_with_a_part_without_quick_form_raises(monkeypatch, capsys):
    monkeypatch.setattr(speed.subprocess, "run", None)  # no part is started
    for part in set(speed.PARTS) - set(speed.QUICK):
        with pytest.raises(SystemExit):
            speed.main(["--quick", "--parts", "block", part])
        assert f"Received: --quick --parts {part}\n" in capsys.readouterr().err


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "options",
    [["--pairs", "b16_224", "--trained", "l16_512"], ["--pairs", "b16_224", "--steps", "training"]],
    ids=" ".join,
)
def test_realised_benchmark_without_a_pair_for_the_training_step_raises_and_keeps_the_file(
    tmp_path, capsys, options
):
    output = tmp_path / "rows.csv"
    output.write_text("earlier")
    with pytest.raises(SystemExit):
        realised.main([*options, "--output", str(output)])
    assert "--trained" in capsys.readouterr().err and output.read_text() == "earlier"


@pytest.mark.once("torch")
def test_peers_benchmark_without_any_case_raises_and_states_the_options(capsys):
    with pytest.raises(SystemExit):
        peers.main(["--peers", "timm", "--backends", "jax"])
    assert "--peers timm" in capsys.readouterr().err


@pytest.mark.once("torch")
def test_peers_plot_shows_only_the_rows_with_the_image_size_given_by_the_size_option(
    monkeypatch, tmp_path
):
    drawn, output = [], tmp_path / "rows.csv"
    monkeypatch.setattr(peers, "draw_bars", lambda rows, *_, **__: drawn.extend(rows))
    for size in (224, 384):
        values = ("torch", "timm", "compiled", "inference", "float32", size, 8)
        append_row(output, peers.COLUMNS, dict(zip(peers.CASE, values, strict=True)))
    options = ["--peers", "timm", "--modes", "compiled", "--policies", "float32", "--size", "384"]
    peers.main([*options, "--output", str(output)])
    assert [row["size"] for row in drawn] == ["384"]


@pytest.mark.once("torch")
def test_around_benchmark_goals_of_import_times_equal_the_csv_file_and_the_notes(monkeypatch):
    done = argparse.Namespace(stdout="0.08\n")
    monkeypatch.setattr(around.subprocess, "run", lambda *_, **__: done)
    goals = {name: goal for name, _, _, goal in around.imports(1)}
    assert goals == {
        "import after keras": "at most 300",
        "keras-tokenlearner --help": "at most 1000",
    }
    rows = read_rows(BENCHMARKS / "results/around.csv")
    imported = {(row["what"], row["goal"]) for row in rows if "import" in row["what"]}
    assert imported <= goals.items() and imported
    notes = (BENCHMARKS / "NOTES.md").read_text()
    for name, goal in goals.items():
        (found,) = re.findall(rf"^\| `{name}` \| .* \| (\d+) ms \|$", notes, re.MULTILINE)
        assert goal == f"at most {found}"


def test_overhead_of_calls_with_varying_times_is_computed_from_the_fastest_calls():
    more, less = timing.Times(9, (1.05, 3.0, 2.0)), timing.Times(9, (1.5, 1.0))
    assert around.overhead(more, less) == pytest.approx(5)


def test_growth_fit_finds_the_exponent_of_a_power_law():
    rows = [
        {
            "backend": "jax",
            "axis": "resolution",
            "model": "plain",
            "size": 16 * side,
            "tokens": side**2,
            "ms": 3 * side**2.5,
            "step_mib": 0.01 * side**2,
            "weights_mib": 100,
        }
        for side in (8, 12, 16, 24, 32, 48)
    ]
    rows.append(rows[-1] | {"size": 1600, "tokens": 10_000, "ms": "", "step_mib": 500})
    rows.append(rows[-1] | {"size": 3200, "tokens": 40_000, "step_mib": 2000})
    (found,) = growth.fits(rows)
    assert float(found["time_exponent"]) == 1.25 and float(found["memory_exponent"]) == 1
    side = float(found["largest_for_16_gb"]) / 16  # from the two rows that were only compiled
    assert 100 + 0.05 * side**2 == pytest.approx(16e9 / 2**20, rel=0.02)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only on jax: asks its compiler")
def test_training_step_memory_grows_with_the_image_size():
    needed = [
        growth.compiled_mib(create_model("vit_pico8", input_shape=(side, side, 3)))
        for side in (64, 128)
    ]
    values = 4 * 16 * 16 * 32 / 2**20  # one copy of the tokens of the larger image
    assert needed[1] > max(2 * needed[0], values)


def test_bar_chart_of_several_series_has_grouped_bars(tmp_path):
    pytest.importorskip("matplotlib")
    texts = [("a", "jax", "1"), ("a", "torch", "2"), ("b", "torch", "3")]
    rows = [dict(zip(("pair", "backend", "ratio"), text, strict=True)) for text in texts]
    path = tmp_path / "bars.png"
    (axis,) = bars.draw_bars(rows, path, ["pair"], ["backend"], "ratio", goal=1).axes
    found = {
        group.get_label(): [(bar.get_center()[0], bar.get_height()) for bar in group]
        for group in axis.containers
    }
    assert found["jax"] == [pytest.approx((-0.2, 1))]
    assert found["torch"] == [pytest.approx((0.2, 2)), pytest.approx((1.2, 3))]
    assert path.stat().st_size > 1000
