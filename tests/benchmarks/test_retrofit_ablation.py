"""The retrofit ablation with a tiny teacher on noise: its batches, and one row for each run."""

import keras
import numpy as np
import pytest

from benchmarks import retrofit_ablation
from benchmarks.retrofit_students import (
    Cell,
    ViewBatches,
    bfloat16,
    cells,
    float32,
    keep_views,
    view,
)
from benchmarks.rows import append_row, read_rows
from benchmarks.two_stages import two_stages
from keras_tokenlearner import create_model, retrofit
from keras_tokenlearner.analysis import costs
from tests.models.test_retrofit import teacher as small_teacher

pytestmark = pytest.mark.once("torch")

torch_alone = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="only on torch: rows do not depend on the backend"
)


def test_bfloat16_rounding_equals_the_rounding_of_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.random.default_rng(0).normal(size=1000).astype("float32")
    wanted = values.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(bfloat16(values), wanted.view(np.uint16))
    np.testing.assert_array_equal(float32(bfloat16(values)), wanted.astype("float32"))


def test_retrofit_ablation_runs_are_unique_and_cover_each_seed():
    found = cells(((6, 8), (3, 8)), seeds=3)
    assert len({tuple(cell.key.items()) for cell in found}) == len(found)
    assert {cell.seed for cell in found} == {0, 1, 2}
    main = [cell for cell in found if cell.part == "main" and cell.seed == 0]
    pooled = [cell for cell in cells(((6, 16), (6, 8)), 1) if cell.reducer == "spatial_pooling"]
    assert [cell.part for cell in pooled] == ["main", "ablation"]
    assert {cell.reducer for cell in main} == {
        "token_learner",
        "spatial_pooling",
        "token_merging",
    }
    assert any(cell.budgets == (4, 8, 16) for cell in found)


def test_view_batches_contain_every_image_and_its_mirror_image():
    kept = bfloat16(np.arange(2 * 12, dtype="float32").reshape(12, 2, 1, 1))
    batches = ViewBatches(kept, np.arange(12), batch_size=4, seed=0)
    sides = set()
    for _ in range(3):
        rows = [batches[index] for index in range(len(batches))]
        assert sorted(np.concatenate([labels for _, labels in rows])) == list(range(12))
        for x, labels in rows:
            sides |= set((x[:, 0, 0] - 2 * labels).tolist())
        batches.on_epoch_end()
    assert sides == {0.0, 1.0}


def test_view_batches_with_mixup_keep_every_second_image_and_mix_the_others():
    kept = bfloat16(np.arange(8, dtype="float32").reshape(8, 1, 1, 1))
    batches = ViewBatches(kept, np.arange(8), batch_size=8, seed=0, mixup=True)
    x, labels = batches[0]
    np.testing.assert_array_equal(x[::2, 0, 0], labels[::2])
    neighbours = np.roll(labels, 1)[1::2]
    shares = (x[1::2, 0, 0] - neighbours) / (labels[1::2] - neighbours)
    assert ((shares > 0) & (shares < 1)).all()
    assert len(set(shares)) == len(shares)


def test_image_views_are_the_image_its_mirror_image_and_then_different_crops():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype="uint8")
    views = [view(image, 5, number) for number in range(4)]
    np.testing.assert_array_equal(views[0], image)
    np.testing.assert_array_equal(views[1], image[:, ::-1])
    assert len({found.tobytes() for found in views}) == 4
    assert all(found.shape == image.shape for found in views)
    np.testing.assert_array_equal(view(image, 5, 3), views[3])
    assert (view(image, 6, 3) != views[3]).any()


@torch_alone
def test_keep_views_after_an_interruption_computes_the_missing_outputs(tmp_path):
    model = create_model("vit_pico8", classes=10)
    before = keras.Model(model.input, model.get_layer("block_0").output)
    images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype="uint8")
    path = tmp_path / "kept.npy"
    keep_views(before, images, path, batch_size=4)
    np.lib.format.open_memmap(path, "r+")[4:] = 0
    path.with_suffix(".done").write_text("4")
    kept = keep_views(before, images, path, batch_size=4)
    for side, pixels in enumerate((images, images[:, :, ::-1])):
        wanted = before.predict(pixels.astype("float32"), verbose=0)
        np.testing.assert_allclose(float32(kept[:, side]), wanted, rtol=0.01, atol=1e-3)


def test_untrained_two_stage_student_has_teacher_weights_one_stage_tokens_and_a_cost_in_between():
    plain = small_teacher(class_token=True, num_layers=4)
    student = two_stages(plain, (1, 8), (3, 4))
    first, second = (student.get_layer(name) for name in ("token_learner", "token_learner_1"))
    patches = np.random.default_rng(0).normal(size=(2, 16, 32)).astype("float32")
    wanted = retrofit(plain, 3, 4).get_layer("token_learner")(patches)
    found = keras.ops.convert_to_numpy(second(first(patches)))
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(wanted), atol=0.02)
    assert (
        costs(retrofit(plain, 1, 4)).macs < costs(student).macs < costs(retrofit(plain, 1, 8)).macs
    )
    for layer in plain.layers:
        weights = student.get_layer(layer.name).get_weights()
        for array, copy in zip(layer.get_weights()[::-1], weights[::-1], strict=False):
            np.testing.assert_array_equal(copy, array)


def test_two_stage_student_processes_as_many_tokens_in_all_blocks_as_a_one_stage_student():
    one, two = (
        next(cell for cell in cells(((5, 16),), 1) if bool(cell.second_at) == both)
        for both in (False, True)
    )
    assert (two.at, two.num_tokens, two.second_at, two.second_tokens) == (4, 32, 7, 16)
    between = two.second_at - two.at
    total = 64 * two.at + two.num_tokens * between + two.second_tokens * (12 - two.second_at)
    assert total == 64 * one.at + one.num_tokens * (12 - one.at)


def test_selected_images_of_a_sorted_data_set_have_all_classes():
    labels = np.repeat(np.arange(4), 25)
    images, found = retrofit_ablation.selected(10 * labels, labels, 40)
    assert set(found) == {0, 1, 2, 3} and len(found) == 40
    np.testing.assert_array_equal(images, 10 * found)
    mixed = labels[::-1]
    np.testing.assert_array_equal(retrofit_ablation.selected(mixed, mixed, 40)[1], mixed[:40])


@pytest.fixture
def run(tmp_path):
    """Return a function that runs the ablation on noise, and returns the teacher."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (16, 32, 32, 3), dtype="uint8")
    labels = random.integers(0, 10, 16)
    arguments = {"tuned_from": 1, "epochs": 1, "teacher_epochs": 1, "batch_size": 8}

    def run(wanted, train_images=16, policy="float32", **changes):
        model, data = small_teacher(class_token=True), (images, labels)
        values = ("noise.pt", "noise", "32", policy)
        source = dict(zip(retrofit_ablation.SOURCE, values, strict=True))
        paths = (tmp_path / f"kept_{policy}", tmp_path / "rows.csv")
        train = (images[:train_images], labels[:train_images])
        retrofit_ablation.run(model, train, data, wanted, *paths, source, **arguments | changes)
        return model

    return run


@torch_alone
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("teacher_epochs", 2),
        ("learning_rate", 1e-3),
        ("batch_size", 4),
        ("tuned_from", 2),
        ("train_images", 8),
        ("policy", "bfloat16"),
    ],
)
def test_retrofit_ablation_with_another_setting_trains_its_own_teacher_and_student(
    run, tmp_path, monkeypatch, column, value
):
    # Of the first teacher, its student, the second teacher, and its student.
    accuracies, tuned = iter([0.8, 0.4, 0.5, 0.3]), []
    monkeypatch.setattr(retrofit_ablation, "accuracy", lambda *_: next(accuracies))
    monkeypatch.setattr(retrofit_ablation, "_tune", lambda *given: tuned.append(given[3]))
    for name in ("train_student", "draw"):
        monkeypatch.setattr(retrofit_ablation, name, lambda *_: None)
    wanted = [Cell("main", "spatial_pooling", 1, 0, start="random")]
    for change in ({}, {column: value}, {column: value}):  # the last run finds all rows
        run(wanted, **change)
    rows = read_rows(tmp_path / "rows.csv")
    assert [row["kept"] for row in rows] == ["1", "0.5", "1", "0.6"]
    one, same, other, its_student = (row[column] for row in rows)
    assert one == same != other == its_student == str(value)
    assert tuned[0] != tuned[1] == tuned[2]  # the files of the teachers


@torch_alone
def test_retrofit_ablation_plot_leaves_out_the_rows_of_other_settings(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.axes import Axes

    drawn, path, errorbar = [], tmp_path / "rows.csv", Axes.errorbar

    def record(axis, costs, means, *given, **options):
        drawn.append(means)
        return errorbar(axis, costs, means, *given, **options)

    monkeypatch.setattr(Axes, "errorbar", record)
    row = Cell("main", "token_learner", 1, 4).key | {"tokens": 4, "cost_ratio": 0.5, "epochs": 1}
    for accuracy, tuned_from, views in ((0.5, 1, 2), (0.9, 2, 2), (0.6, 1, 4)):
        given = {"accuracy": accuracy, "tuned_from": tuned_from, "views": views}
        append_row(path, retrofit_ablation.COLUMNS, row | given)
    retrofit_ablation.draw(path, {"tuned_from": "1"})
    assert drawn == [[50], [60]]  # runs with more views are another line


@torch_alone
def test_retrofit_ablation_with_a_file_of_an_earlier_version_raises_before_any_work(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(retrofit_ablation, "load_named", None)
    path = tmp_path / "rows.csv"
    path.write_text("part,reducer,accuracy\n")
    monkeypatch.setattr("sys.argv", ["", "teacher.pt", "cifar10", "--output", str(path)])
    with pytest.raises(ValueError, match="another --output.*teacher_epochs"):
        retrofit_ablation.main()


@torch_alone
def test_retrofit_ablation_run_twice_writes_each_row_once(run, tmp_path, monkeypatch):
    wanted = [
        Cell("main", "token_learner", 1, 4),
        Cell("main", "spatial_pooling", 1, 0, start="random"),
        Cell("main", "token_merging", 1, 4, proportional=False, start="random"),
        Cell("ablation", "token_learner", 1, 4, reconstruction=1.0),
        Cell("ablation", "token_learner", 1, 8, budgets=(4, 8)),
        Cell("main", "token_learner", 1, 4, mixup=True),
        Cell("ablation", "token_learner", 1, 8, second_at=2, second_tokens=4),
    ]
    run(wanted[:1])
    model, output = run(wanted), tmp_path / "rows.csv"
    rows = read_rows(output)
    assert [row["tokens"] for row in rows] == ["0", "4", "4", "4", "4", "4", "8", "4", "4"]
    assert [rows[0][name] for name in ("second_at", "start")] == ["0", "none"]
    assert float(rows[0]["gmacs"]) == pytest.approx(costs(model).macs / 1e9, rel=1e-4)
    accuracies = [float(row["accuracy"]) for row in rows]
    if accuracies[0]:
        kept = [float(row["kept"]) for row in rows]
        np.testing.assert_allclose(kept, np.array(accuracies) / accuracies[0], rtol=1e-3)
    assert max(float(row["cost_ratio"]) for row in rows[1:]) < 1
    assert output.with_suffix(".png").stat().st_size > 10_000
    text = output.read_text()
    monkeypatch.setattr(retrofit_ablation, "train_student", None)  # nothing is trained again
    run(wanted)
    assert output.read_text() == text
