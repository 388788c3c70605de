"""Training and evaluation of video models by the commands `train` and `evaluate`."""

import dataclasses
import json
import re

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_tokenlearner import cli, create_model
from keras_tokenlearner.applications.catalog import CATALOG, CatalogEntry
from keras_tokenlearner.data import video
from keras_tokenlearner.evaluation import evaluate_videos, predict_videos
from keras_tokenlearner.training.recipes import (
    AvidRecipe,
    CharadesRecipe,
    KineticsRecipe,
    VideosRecipe,
)
from keras_tokenlearner.weights import save_weights
from tests.data.video.files import write

pytest.importorskip("av", reason="the extra `video`")


@pytest.fixture
def folder(tmp_path):
    """Dark and light videos: six to train on, four to test on, and a damaged one in each split."""
    for split, count in (("train", 3), ("val", 2)):
        for label, name in enumerate(("dark", "light")):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                level = 30 + 150 * label + 5 * index
                write(tmp_path / split / name / f"{index}.mp4", [level] * 20)
        (tmp_path / split / "dark" / "broken.mp4").write_bytes(b"no video")
    return tmp_path


def run(*arguments):
    found = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.mark.filterwarnings("ignore:skipped")
def test_video_recipe_trains_a_model_that_evaluate_accepts(folder, tmp_path):
    settings = {"data": folder, "epochs": 6, "batch_size": 4, "stride": 1, "learning_rate": 0.01}
    settings = [part for pair in settings.items() for part in ("--set", "{}={}".format(*pair))]
    said = run("train", "videos", *settings, "--output", tmp_path / "out")
    assert re.search(r"test score \d+\.\d\d%", said)
    name = "tokenlearner_x2plus1d_pico"
    result = json.loads((tmp_path / "out" / f"{name}.json").read_text())
    assert result["test_examples"] == 5 and result["recipe"]["stride"] == 1
    weights = ["--weights", tmp_path / "out" / f"{name}.weights.h5"]
    (row,) = json.loads(run("evaluate", name, "--data", folder, *weights, "--json"))
    assert (row["videos"], row["skipped"], row["top5"]) == (4, 1, 1.0)
    assert row["top1"] == row["mean_class"] == 1.0
    table = run("evaluate", tmp_path / "out" / f"{name}.keras", "--data", folder)
    assert re.search(r"4 +1 +100\.00% +100\.00% +100\.00%", table)
    assert keras.saving.load_model(tmp_path / "out" / f"{name}.keras").class_names == (
        "dark",
        "light",
    )


@pytest.mark.once("torch")
def test_charades_recipe_learns_several_labels_per_video(folder):
    """A small Charades: dark videos have the labels c001 and c150, light videos c002 and c150."""
    (folder / "Charades_v1_480").mkdir()
    for split, csv in (("train", "train"), ("val", "test")):
        lines = ["id,scene,actions"]
        for label, name in enumerate(("dark", "light")):
            for file in sorted((folder / split / name).glob("?.mp4")):
                id = f"{split}{name}{file.stem}"
                file.rename(folder / "Charades_v1_480" / f"{id}.mp4")
                lines.append(f"{id},Home,c{label + 1:03} 0.00 1.50;c150 0.20 1.90")
        (folder / f"Charades_v1_{csv}.csv").write_text("\n".join(lines))
    name = "tokenlearner_x2plus1d_pico"
    settings = {"data": folder, "model": name, "frames": 8, "size": 32, "batch_size": 3}
    settings |= {"epochs": 3, "learning_rate": 5}
    settings = [part for pair in settings.items() for part in ("--set", "{}={}".format(*pair))]
    run("train", "charades", *settings, "--output", folder)
    result = json.loads((folder / f"{name}.json").read_text())
    # 154 labels never occur.
    assert result["test_examples"] == 4 and 0 < result["test_auc_pr"] < 0.1
    weights = folder / f"{name}.weights.h5"
    options = ["--data", folder, "--weights", weights, "--json"]
    (row,) = json.loads(run("evaluate", name, *options))
    test = video.open_videos(folder)[1]
    model = create_model(name, classes=157, weights=str(weights))
    logits, _ = predict_videos(model, test, clips="segments", crops=1, stride=1, frame_rate=12)
    assert (logits[:, 150] > logits[:, 3:150].max(1)).all()  # c150 occurs in every video
    metrics = pytest.importorskip("sklearn.metrics", reason="pip install scikit-learn")
    seen = [1, 2, 150]
    expected = metrics.average_precision_score(test.labels[:, seen], logits[:, seen])
    assert row == {"data": str(folder), "videos": 4, "skipped": 0, "map": pytest.approx(expected)}
    with pytest.raises(ValueError, match="`charades`.*data="):
        VideosRecipe(data=str(folder)).open()


def trained_on_two_batches(recipe, classes):
    """Train the model of a recipe on two batches. Return the model and its initial weights."""
    videos, _ = recipe.open()
    model = recipe.build(classes)
    batches = recipe.batches(videos, model.input_shape[1:], training=True)
    eager = keras.backend.backend() != "jax"  # faster for two steps
    model.compile(recipe.optimizer(len(batches)), "categorical_crossentropy", run_eagerly=eager)
    before = model.get_weights()
    for index in range(2):
        assert np.isfinite(model.train_on_batch(*batches[index]))
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    return model, before


@pytest.mark.filterwarnings("ignore:skipped")
def test_kinetics_recipe_starts_from_the_weights_of_an_image_model(folder, monkeypatch):
    config = dataclasses.replace(CATALOG["tokenlearner_pico8_4at1"].config, patch_size=(2, 8, 8))
    monkeypatch.setitem(CATALOG, "vivit_tiny", CatalogEntry(config, (4, 32, 32, 3)))
    images = create_model("tokenlearner_pico8_4at1", classes=7, input_shape=(64, 64, 3))
    save_weights(images, folder / "images.weights.h5")
    recipe = KineticsRecipe(
        model="vivit_tiny",
        data=str(folder),
        image_model="tokenlearner_pico8_4at1",
        weights=str(folder / "images.weights.h5"),
        batch_size=4,
        layer_decay=0.8,
        precision="mixed_bfloat16",
    )
    model, before = trained_on_two_batches(recipe, classes=2)
    assert model.get_layer("block_0").compute_dtype == "bfloat16"
    starts = dict(zip((weight.path for weight in model.weights), before, strict=True))
    for name in ("block_1/mlp/hidden/kernel", "token_learner/conv_0/kernel"):
        (weight,) = (weight for weight in images.weights if weight.path == name)
        np.testing.assert_array_equal(starts[name], keras.ops.convert_to_numpy(weight))
    plan = keras.optimizers.serialize(recipe.optimizer(100))["config"]
    schedule = plan["learning_rate"]["config"]
    assert (schedule["warmup_steps"], schedule["decay_steps"]) == (250, 2750)
    assert (plan["momentum"], plan["global_clipnorm"], plan["layer_decay"]) == (0.9, 1.0, 0.8)


@pytest.mark.once("torch")
def test_avid_recipe_trains_and_evaluates_with_its_protocol(folder):
    (folder / "videos").mkdir()
    for split in ("train", "val"):
        labels = {}
        for name in ("dark", "light"):
            for file in (folder / split / name).glob("?.mp4"):
                labels[f"{split}{name}{file.name}"] = name
                file.rename(folder / "videos" / f"{split}{name}{file.name}")
        (folder / f"avid_{split}.json").write_text(json.dumps(labels))
    name = "tokenlearner_x2plus1d_pico"
    recipe = AvidRecipe(model=name, data=str(folder), frames=4, size=32, batch_size=3)
    model, _ = trained_on_two_batches(recipe, classes=2)
    test = video.open_videos(folder)[1]
    assert test.protocol == {"clips": 1, "crops": 1, "stride": 1, "frame_rate": 12}
    row = evaluate_videos(model, test, verbose=0)
    assert row["videos"] == 4 and 0 <= row["mean_class"] <= 1


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("name", "words"),
    [("x2plus1d_pic", "'x2plus1d_pico'.*model='x2plus1d_pic'"), ("vit_b16", "videos.*'vit_b16'")],
)
def test_video_recipe_of_an_unknown_model_or_of_an_image_model_raises(name, words):
    with pytest.raises(ValueError, match=f"VideosRecipe: `model`.*{words}"):
        VideosRecipe(model=name).build(classes=2)


@pytest.mark.once("torch")
@pytest.mark.parametrize("kind", [KineticsRecipe, CharadesRecipe, AvidRecipe])
def test_video_recipes_of_the_paper_pass_their_weight_decay_to_the_optimizer(kind):
    assert kind().optimizer(10).weight_decay is None
    assert kind(weight_decay=0.3).optimizer(10).weight_decay == 0.3


@pytest.mark.once("torch")
def test_open_videos_of_folders_or_lists_returns_two_splits(folder, tmp_path):
    train, test = video.open_videos(folder)
    assert train.class_names == test.class_names == ("dark", "light")
    assert (len(train), len(test)) == (7, 5)
    rows = {"train": [("a.mp4", "x"), ("b.mp4", "y")], "test": [("c.mp4", "y")]}
    (tmp_path / "lists").mkdir()
    for split, files in rows.items():
        lines = ["file,label", *(",".join(row) for row in files)]
        (tmp_path / "lists" / f"{split}.csv").write_text("\n".join(lines))
    train, test = video.open_videos(tmp_path / "lists")
    assert train.labels.tolist() == [0, 1] and test.labels.tolist() == [1]
    assert test.class_names == ("x", "y")
    (folder / "val" / "dark").rename(folder / "val" / "dim")
    with pytest.raises(
        ValueError, match=r"open_videos: .*\('dark', 'light'\) and \('dim', 'light'\)"
    ):
        video.open_videos(folder)
    with pytest.raises(ValueError, match="open_videos: `path`.*path='folder:.*nothing'"):
        video.open_videos(f"folder:{tmp_path / 'nothing'}")
    for recipe in (VideosRecipe(data="nothing"), CharadesRecipe(data="nothing")):
        with pytest.raises(ValueError, match=f"{type(recipe).__name__}: `data`.* data='nothing'"):
            recipe.open()
