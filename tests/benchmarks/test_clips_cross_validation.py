"""Cross-validation on generated clips: folds, statistics, and one tiny run."""

import csv
import dataclasses

import keras
import numpy as np
import pytest

from benchmarks import clips as clips_files
from benchmarks import clips_cross_validation, clips_recipe, clips_speed
from benchmarks.clips import Clips
from benchmarks.motion_statistics import accuracies, appearance_statistics, motion_statistics
from keras_tokenlearner import create_model
from keras_tokenlearner.training import describe, train

pytestmark = pytest.mark.once("torch")

TINY = "tokenlearner_x2plus1d", "random"


@pytest.fixture
def clips():
    """Sixteen clips of eight recordings. A bright square moves in every second clip."""
    pixels = np.random.default_rng(0).integers(20, 30, (16, 30, 64, 64, 1)).astype("uint8")
    labels = np.arange(16) % 2
    for clip, moves in zip(pixels, labels, strict=True):
        for frame in range(30):
            left = 2 * (frame if moves else 15) % 48
            clip[frame, 20:36, left : left + 16] = 200
    return Clips(
        pixels, labels, np.repeat([f"recording {n}" for n in range(8)], 2), ("still", "moves")
    )


def test_clips_folds_share_no_recording_and_motion_statistics_equal_a_manual_count(clips):
    folds = clips.folds(4, seed=0)
    for others, tested in folds:
        assert not set(clips.recordings[others]) & set(clips.recordings[tested])
    assert sorted(np.concatenate([tested for _, tested in folds])) == list(range(16))
    motion = motion_statistics(clips.pixels)
    changed = np.abs(np.diff(clips.pixels[3].astype(float) / 255, axis=0))
    by_hand = [changed.mean(), changed.mean((1, 2, 3)).max(), (changed > 0.05).mean()]
    np.testing.assert_allclose(motion[3, [0, 2, 3]], by_hand, rtol=1e-4)
    assert accuracies(motion, clips.labels, folds) == [1.0] * 4
    assert appearance_statistics(clips.pixels).shape == (16, 3)
    still, moving = clips.motion[:2]
    assert still.max() < 50 and moving.max() == 255 and still.shape == (28, 64, 64, 1)


def test_vivit_of_the_clips_benchmark_starts_from_image_weights():
    recipe = clips_cross_validation.NETWORKS["vivit", "images"]
    model, image_model = recipe.build(2), create_model("vit_nano4", classes=10)
    names = [layer.name for layer in image_model.layers if layer.name.startswith("block")]
    assert model.input_shape == (None, 4, 28, 28, 1) and len(names) == 6
    trained = create_model("tokenlearner_nano4_8at2", weights="fashion_mnist")
    for name in ("embedding", *names):
        for one, other in zip(
            model.get_layer(name).get_weights(), trained.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_load_clips_with_a_cache_of_another_folder_raises(tmp_path, monkeypatch):
    monkeypatch.setattr(clips_files, "_decode", lambda videos, place: np.zeros((2, 2), "uint8"))
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").touch()
        row = f"a.mp4,{name},recording"
        (tmp_path / name / "labels.csv").write_text(f"file,label,source_video\n{row}\n")
    cache = tmp_path / "clips.npz"
    assert clips_files.load_clips(tmp_path / "one", cache).class_names == ("one",)
    assert clips_files.load_clips(tmp_path / "one", cache).pixels.shape == (1, 2, 2)
    with pytest.raises(ValueError, match=r"load_clips: `cache`.*clips\.npz"):
        clips_files.load_clips(tmp_path / "other", cache)


def test_clips_recipe_trains_and_tests_on_different_recordings(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(clips_recipe, "load_clips", lambda folder, cache: clips)
    recipe = dataclasses.replace(clips_cross_validation.NETWORKS[TINY], epochs=12, batch_size=3)
    recipe = dataclasses.replace(recipe, folds=4, fold=3, frames=4, learning_rate=2e-2)
    assert set(describe(type(recipe))) == {field.name for field in dataclasses.fields(recipe)}
    train_clips, test_clips = recipe.open()
    assert (len(train_clips), len(test_clips)) == (12, 4)
    assert not set(train_clips.recordings) & set(test_clips.recordings)
    assert train(recipe, tmp_path) == 1.0  # a moving square is easy to classify
    assert (tmp_path / f"{recipe.model}.weights.h5").is_file()


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only on torch: same rows elsewhere")
def test_clips_cross_validation_run_twice_writes_each_row_once(clips, tmp_path, monkeypatch):
    short = {"epochs": 2, "frames": 4, "batch_size": 8}
    short = dataclasses.replace(clips_cross_validation.NETWORKS[TINY], **short)
    monkeypatch.setattr(clips_cross_validation, "NETWORKS", {TINY: short})
    monkeypatch.setattr(clips_cross_validation, "load_clips", lambda folder, cache: clips)
    options = ["folder", "--output", str(tmp_path / "rows.csv"), "--folds", "2", "--models"]
    options += ["motion_statistics", "tokenlearner_x2plus1d"]
    clips_cross_validation.main(options)
    written = (tmp_path / "rows.csv").read_text()
    statistics, network = csv.DictReader(written.splitlines()[2:])
    assert (statistics["mean_accuracy"], statistics["spread"]) == ("1.000", "0.000")
    assert len(network["accuracies"].split()) == 2 and float(network["gmacs"]) < 0.01
    monkeypatch.setattr(clips_cross_validation, "trained", None)  # nothing is trained again
    clips_cross_validation.main(options)
    assert (tmp_path / "rows.csv").read_text() == written


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only on torch: same rows elsewhere")
def test_clips_speed_benchmark_measures_a_row_per_model(monkeypatch):
    names = "x2plus1d", "tokenlearner_x2plus1d"
    both = {(name, "random"): clips_cross_validation.NETWORKS[name, "random"] for name in names}
    monkeypatch.setattr(clips_speed, "NETWORKS", both)
    rows = clips_speed.measure(batch_size=2, repeats=1)
    assert [row["model"] for row in rows] == list(names)
    assert all({"backend", *row} == set(clips_speed.COLUMNS) for row in rows)
    assert all(float(row["clips_per_second"]) > 0 for row in rows)
