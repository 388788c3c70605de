"""The curve of retrofitted models, on a generated checkpoint and generated images."""

import dataclasses
import json
import sys

import keras
import numpy as np
import pytest

from benchmarks import retrofit, retrofit_recipe, retrofit_speed
from benchmarks.rows import read_rows
from keras_tokenlearner import retrofit as fit_tokens
from keras_tokenlearner.models import VisionTransformer, VisionTransformerConfig
from keras_tokenlearner.training import describe, train
from keras_tokenlearner.training.distribution import Devices

pytestmark = pytest.mark.once("torch")


@pytest.fixture
def small(monkeypatch):
    """Replace teacher and images by a tiny teacher and 40 images of noise."""

    def teacher(*_):
        keras.utils.set_random_seed(0)
        return VisionTransformer(
            VisionTransformerConfig(32, 3, 2, patch_size=(7, 7), class_token=True),
            input_shape=(28, 28, 3),
            classes=10,
        )

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 28, 28, 3), dtype="uint8")
    labels = random.integers(0, 10, 40)
    splits = (images, labels), (images, labels)
    monkeypatch.setattr(retrofit_recipe, "fitted_teacher", teacher)
    monkeypatch.setattr(retrofit_recipe, "load_named", lambda *_: splits)
    monkeypatch.setattr(retrofit_speed, "dinov2_small", lambda *_, **__: teacher())
    return teacher(), images, labels


def test_retrofit_recipe_trains_and_saves_its_files(small, tmp_path):
    settings = {"at": 1, "num_tokens": 4, "start": "random", "epochs": 2, "batch_size": 8}
    recipe = retrofit_recipe.RetrofitRecipe(**settings, cache=str(tmp_path / "cache"))
    teacher, images, labels = small
    score = train(recipe, tmp_path / "trained")
    files = {path.name for path in (tmp_path / "trained").iterdir() if path.is_file()}
    ends = ("csv", "json", "weights.h5", "weights.h5.sha256")
    assert files == {f"dinov2_s14.{end}" for end in ends}
    result = json.loads((tmp_path / "trained" / "dinov2_s14.json").read_text())
    assert result["test_accuracy"] == score and result["recipe"]["num_tokens"] == 4
    student = fit_tokens(teacher, at=1, num_tokens=4, token_start="random")
    before = student.get_weights()
    student.load_weights(tmp_path / "trained" / "dinov2_s14.weights.h5")
    assert any((a != b).any() for a, b in zip(before, student.get_weights(), strict=True))
    right = student.predict(images.astype("float32"), verbose=0).argmax(1) == labels
    assert np.mean(right) == pytest.approx(score)
    assert set(describe(type(recipe))) == {field.name for field in dataclasses.fields(recipe)}
    several = Devices()
    several.replicas = 2
    with pytest.raises(ValueError, match="train: RetrofitRecipe .* 2 replicas"):
        train(recipe, tmp_path, several)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only on torch: same rows elsewhere")
def test_retrofit_benchmark_writes_each_row_once(small, tmp_path, monkeypatch):
    rows, speeds = tmp_path / "rows.csv", tmp_path / "speeds.csv"
    reducers = ["token_learner", "spatial_pooling", "fixed_grid", "token_merging"]
    options = ["x", "y", "--output", rows, "--cache", tmp_path, "--at", 1, "--num-tokens", 4]
    options = [str(option) for option in (*options, "--epochs", 1, "--start", "random")]
    for chosen in (reducers[:1], reducers):
        monkeypatch.setattr(sys, "argv", ["retrofit", *options, "--reducers", *chosen])
        retrofit.main()
    kept = sorted(np.load(path).shape for path in tmp_path.glob("*.npy"))
    tokens, features = (40, 17, 32), (40, 32)
    assert kept == [tokens, tokens, features]  # in two precisions, with the same splits
    assert rows.with_suffix(".png").stat().st_size > 10_000
    found = read_rows(rows)
    assert [row["reducer"] for row in found] == ["teacher", *reducers]
    ratios = [float(row["cost_ratio"]) for row in found]
    assert ratios[0] == 1 and max(ratios[1:]) < 1
    teacher, *students = [float(row["accuracy"]) for row in found]
    kept = [float(row["kept"]) for row in found[1:]]
    np.testing.assert_allclose(kept, np.array(students) / teacher, rtol=1e-3)
    monkeypatch.setattr(sys, "argv", ["retrofit", *options, "--tuned-from", "2"])
    retrofit.main()
    retrofit.main()
    tuned = read_rows(rows)[len(found) :]
    assert [row["reducer"] for row in tuned] == ["teacher", "token_learner"]
    assert {row["tuned_from"] for row in tuned} == {"2"}
    assert len(list(tmp_path.glob("*.weights.h5"))) == 1  # a tuned teacher is not tuned again
    options = ["speed", "--rows", str(rows), "--output", str(speeds), "--size", "28"]
    monkeypatch.setattr(sys, "argv", [*options, "--batch-size", "2", "--repeats", "1"])
    retrofit_speed.main()
    promised = {row["reducer"]: float(row["promised"]) for row in read_rows(speeds)}
    wanted = {row["reducer"]: 1 / ratio for row, ratio in zip(found[1:], ratios[1:], strict=True)}
    assert promised == pytest.approx(wanted, rel=1e-3)
    written = speeds.read_text()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--at", "1000"])
    retrofit_speed.main()
    assert speeds.read_text() == written  # no row for a position that was not requested


def test_student_of_with_pooling_and_a_wrong_number_of_tokens_raises(small):
    model = small[0]
    assert retrofit_recipe.student_of(model, "spatial_pooling", 1, 4).name.endswith("_4at1")
    with pytest.raises(ValueError, match="student_of: `num_tokens` must be 4.*num_tokens=8"):
        retrofit_recipe.student_of(model, "spatial_pooling", 1, 8)
