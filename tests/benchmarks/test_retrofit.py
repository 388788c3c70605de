"""The curve of retrofitted models, on a checkpoint and images that are made here."""

import sys

import keras
import numpy as np
import pytest

from benchmarks import retrofit, retrofit_speed
from benchmarks.rows import read_rows


@pytest.fixture
def small(monkeypatch):
    """Put a tiny teacher, and 40 images of noise, in the place of the real ones."""

    def teacher(*_):
        keras.utils.set_random_seed(0)
        return retrofit.vision_transformer(
            retrofit.VisionTransformerConfig(32, 3, 2, patch_size=(7, 7), class_token=True),
            input_shape=(28, 28, 3),
            classes=10,
        )

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 28, 28, 3), dtype="uint8")
    labels = random.integers(0, 10, 40)
    monkeypatch.setattr(retrofit, "fitted_teacher", teacher)
    monkeypatch.setattr(retrofit, "load_named", lambda *_: ((images, labels), (images, labels)))
    monkeypatch.setattr(retrofit_speed, "dinov2_small", lambda *_, **__: teacher())


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="rows are those of any backend")
def test_rows_grow_and_are_not_made_twice(small, tmp_path, monkeypatch):
    rows, speeds = tmp_path / "rows.csv", tmp_path / "speeds.csv"
    reducers = ["token_learner", "fixed_grid", "token_merging"]
    options = ["x", "y", "--output", rows, "--cache", tmp_path, "--at", 1, "--num-tokens", 4]
    options = [str(option) for option in (*options, "--epochs", 1, "--start", "random")]
    for chosen in (reducers[:1], reducers):
        monkeypatch.setattr(sys, "argv", ["retrofit", *options, "--reducers", *chosen])
        retrofit.main()
    kept = sorted(np.load(path).shape for path in tmp_path.glob("*.npy"))
    tokens, features = (40, 17, 32), (40, 32)
    assert kept == [tokens, tokens, features]  # in two precisions; the splits are the same
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
    assert len(list(tmp_path.glob("*.weights.h5"))) == 1  # what was tuned is not tuned again
    options = ["speed", "--rows", str(rows), "--output", str(speeds), "--size", "28"]
    monkeypatch.setattr(sys, "argv", [*options, "--batch-size", "2", "--repeats", "1"])
    retrofit_speed.main()
    promised = {row["reducer"]: float(row["promised"]) for row in read_rows(speeds)}
    wanted = {row["reducer"]: 1 / ratio for row, ratio in zip(found[1:], ratios[1:], strict=True)}
    assert promised == pytest.approx(wanted, rel=1e-3)
