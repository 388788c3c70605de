"""`evaluate`, compared with manual counts and with ridge regression of scikit-learn."""

import importlib
import json

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import Ridge
from typer.testing import CliRunner

from keras_tokenlearner import cli, create_model
from keras_tokenlearner.data import ArrayImages, named
from keras_tokenlearner.evaluation import FewShotProtocol, evaluate, few_shot

RANDOM = np.random.default_rng(0)


def noisy_images(count, classes=6, noise=60):
    """Return noisy images with a different mean colour for each class."""
    labels = np.arange(count) % classes
    means = 128 + 60 * np.array([np.cos(np.arange(3) + label) for label in range(classes)])
    pixels = means[labels][:, None, None] + RANDOM.normal(0, noise, (count, 4, 4, 3))
    return ArrayImages(pixels.clip(0, 255).astype("uint8"), labels)


@pytest.fixture
def sets(monkeypatch):
    found = {"a": (noisy_images(90), noisy_images(60)), "b": (noisy_images(60), noisy_images(30))}
    found["few"] = (noisy_images(12), noisy_images(60))
    monkeypatch.setitem(named.OPENERS, "tfds", found.get)
    return found


def classifier(head, activation="softmax"):
    inputs = keras.Input((4, 4, 3))
    features = keras.layers.Rescaling(1 / 255)(keras.layers.Flatten()(inputs))
    outputs = keras.layers.Dense(6, activation=activation, name=head)(features)
    return keras.Model(inputs, outputs)


@pytest.fixture
def model():
    return classifier("head")


def test_evaluate_metrics_equal_a_manual_count_of_the_predictions(model, sets, tmp_path):
    numbers = RANDOM.permutation(60)
    sets["a"][1].names = tuple(f"ILSVRC2012_val_{number + 1:08}.JPEG" for number in numbers)
    images, labels = sets["a"][1].images, sets["a"][1].labels
    real = [[] for _ in range(60)]
    for place, number in enumerate(numbers):
        real[number] = [[], [int(labels[place])], [0, 1, 2]][place % 3]
    (tmp_path / "real.json").write_text(json.dumps(real))
    metrics = ["top1", "top5", "mean_class", "real"]
    (row,) = evaluate(model, ["tfds:a"], metrics, tmp_path / "real.json", batch_size=16)
    scores = model.predict(images, verbose=0)
    best = scores.argmax(1)
    assert row["top1"] == np.mean(best == labels)
    worst = scores.argmin(1)
    assert row["top5"] == pytest.approx(np.mean(worst != labels))
    assert row["mean_class"] == pytest.approx(row["top1"])  # all classes have 10 images
    right = [best[i] in real[numbers[i]] for i in range(60) if i % 3]
    assert row["real"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("metric", ["top1", "few_shot"])
def test_evaluate_with_a_damaged_image_raises_and_names_the_file(metric, model, tmp_path):
    """TensorFlow hides the error behind another error, except for the first two batches."""
    for split in ("train", "test"):
        for label in range(6):
            (tmp_path / split / str(label)).mkdir(parents=True)
            image = Image.new("RGB", (4, 4), (40 * label, 0, 0))
            image.save(tmp_path / split / str(label) / "0.png")
    (tmp_path / "test" / "5" / "0.png").write_bytes(b"no image")
    protocol = FewShotProtocol(shots=(1,))
    with pytest.raises(ValueError, match=r"^evaluate: .*5/0\.png"):
        evaluate(model, [str(tmp_path)], [metric], protocol=protocol, batch_size=1)


@pytest.mark.once("torch")
def test_evaluate_speed_is_measured_on_one_batch(model, sets, monkeypatch):
    seen = []

    def measured(models, batch):
        seen.append((models, batch.shape))
        return [512.25]

    module = importlib.import_module("keras_tokenlearner.evaluation.evaluate")
    monkeypatch.setattr(module, "images_per_second", measured)
    (row,) = evaluate(model, ["tfds:a"], ["speed"], batch_size=16)
    assert row == {"data": "tfds:a", "images_per_second": 512.25}
    assert seen == [([model], (16, 4, 4, 3))]


@pytest.mark.parametrize("head", ["head", "mine"])
def test_evaluate_few_shot_equals_the_ridge_regression_of_scikit_learn(head, sets):
    protocol = FewShotProtocol(shots=(5, 10), l2=7.0)
    rows = evaluate(classifier(head), ["tfds:a", "tfds:b"], ["few_shot"], protocol=protocol)
    assert [row["data"] for row in rows] == ["tfds:a", "tfds:b", "average"]
    for count in ("5_shot", "10_shot"):
        mean = (rows[0][count] + rows[1][count]) / 2
        assert rows[2][count] == pytest.approx(mean)
    train, test = sets["b"]  # ten images of each class: all are taken
    x = train.images.reshape(60, -1).astype("float64")
    mean, deviation = x.mean(0), x.std(0) + 1e-5
    x, z = ((v - mean) / deviation for v in (x, test.images.reshape(30, -1).astype("float64")))
    ridge = Ridge(alpha=7.0).fit(x, 2.0 * np.eye(6)[train.labels] - 1)
    expected = np.mean(ridge.predict(z).argmax(1) == test.labels)
    assert rows[1]["10_shot"] == pytest.approx(expected, abs=1 / 30)
    assert 1 / 6 < expected < 1


def test_evaluate_few_shot_of_a_linear_projection_uses_its_outputs(sets):
    """Other metrics, or the name `head`, make a dense layer without activation a classifier."""
    model = classifier("projection", None)
    kernel, _ = model.layers[-1].get_weights()
    model.layers[-1].set_weights([np.zeros_like(kernel), np.zeros(6)])  # constant outputs
    protocol = FewShotProtocol(shots=(10,))
    (alone,) = evaluate(model, ["tfds:a"], ["few_shot"], protocol=protocol)
    (both,) = evaluate(model, ["tfds:a"], ["few_shot", "top1"], protocol=protocol)
    (named,) = evaluate(classifier("head", None), ["tfds:a"], ["few_shot"], protocol=protocol)
    assert alone["10_shot"] < both["10_shot"] == named["10_shot"]


@pytest.mark.once("torch")
def test_evaluate_few_shot_of_a_nested_model_that_ends_in_softmax_raises(sets):
    inner = classifier("head")
    outer = keras.Sequential([keras.Input((4, 4, 3)), inner])
    with pytest.raises(ValueError, match=f"evaluate: `model`.* {inner.name!r}"):
        evaluate(outer, ["tfds:a"], ["few_shot"])
    assert evaluate(outer, ["tfds:a"], ["top1"]) == evaluate(inner, ["tfds:a"], ["top1"])


@pytest.mark.once("torch")
def test_evaluate_few_shot_with_too_few_images_returns_none(model, sets):
    protocol = FewShotProtocol(data=("tfds:few", "tfds:a"), shots=(1, 5))
    few, a, average = evaluate(model, metrics=["few_shot"], protocol=protocol)
    assert few["5_shot"] is None and 0 <= few["1_shot"] <= 1
    assert average["5_shot"] == a["5_shot"]


@pytest.mark.once("torch")
def test_few_shot_protocol_defaults_to_nine_tfds_sets():
    data = FewShotProtocol().data
    assert len(data) == 9 and all(name.startswith("tfds:") for name in data)


@pytest.mark.once("torch")
@pytest.mark.parametrize("shots", [(), (1, 0), 5, ("1",)], ids=str)
def test_few_shot_protocol_with_wrong_shots_raises(shots):
    with pytest.raises(ValueError) as caught:
        FewShotProtocol(shots=shots)
    assert "`shots`" in str(caught.value) and f"shots={shots!r}" in str(caught.value)


@pytest.mark.once("torch")
def test_evaluate_with_an_unknown_metric_or_wrong_classes_raises(model, sets):
    with pytest.raises(ValueError, match=r"evaluate: .*'top1'.*metrics=\['top1', 'top'\]"):
        evaluate(model, ["tfds:a"], ["top1", "top"])
    with pytest.raises(ValueError, match="real_labels=None"):
        evaluate(model, ["tfds:a"], ["real"])
    sets["a"][1].class_names = ("cat", "dog")
    with pytest.raises(ValueError, match=" 2 .*'tfds:a'.* 6 classes"):
        evaluate(model, ["tfds:a"])


@pytest.mark.once("torch")
def test_evaluate_with_class_names_in_another_order_raises(sets):
    data = sets["a"][1]
    data.class_names = tuple("abcdef")
    model = create_model("vit_pico8", classes=6, input_shape=(16, 16, 3), class_names=[*"badcfe"])
    with pytest.raises(ValueError, match="evaluate: .*'b' as class 0 .* class 1 of 'tfds:a'"):
        evaluate(model, ["tfds:a"], ["top1"])
    model.class_names = [*"abcdeg"]  # another word for the last class
    assert evaluate(model, ["tfds:a"], ["top1"])


@pytest.mark.once("torch")
def test_evaluate_with_wrong_data_in_a_later_set_raises_before_any_prediction(
    model, sets, tmp_path, monkeypatch
):
    monkeypatch.setattr(model, "predict", None)
    sets["b"][1].class_names = ("cat", "dog")
    with pytest.raises(ValueError, match="'tfds:b'"):
        evaluate(model, ["tfds:a", "tfds:b"], ["top1"])
    sets["a"][1].names = ("ILSVRC2012_val_00000001.JPEG",) * 60
    (tmp_path / "real.json").write_text("{")
    with pytest.raises(ValueError, match="real.json"):
        evaluate(model, ["tfds:a"], ["top1", "real"], tmp_path / "real.json")


def test_evaluate_command_prints_table_and_json(sets, tmp_path):
    model = create_model("vit_pico8", classes=6, input_shape=(16, 16, 3))
    model.save(tmp_path / "mine.keras")
    arguments = ["evaluate", str(tmp_path / "mine.keras"), "--data", "tfds:few"]
    done = CliRunner().invoke(cli.app, [*arguments, "--metrics", "few_shot"])
    header, row = done.stdout.splitlines()
    assert header.split() == ["data", "1_shot", "5_shot", "10_shot", "25_shot"]
    assert row.split()[0] == "tfds:few" and row.split()[2:] == ["-"] * 3
    done = CliRunner().invoke(cli.app, [*arguments, "--metrics", "top1", "--metrics", "speed"])
    header, row = done.stdout.splitlines()
    assert header.split() == ["data", "top1", "images_per_second"]
    assert row.split()[1].endswith("%") and float(row.split()[2]) > 0
    (printed,) = json.loads(CliRunner().invoke(cli.app, [*arguments, "--json"]).stdout)
    assert printed["data"] == "tfds:few" and printed["top5"] >= printed["top1"]
    model.save_weights(tmp_path / "mine.weights.h5")
    arguments = ["evaluate", "vit_pico8", *arguments[2:], "--size", "16"]
    weights = ["--weights", str(tmp_path / "mine.weights.h5"), "--json"]
    assert json.loads(CliRunner().invoke(cli.app, [*arguments, *weights]).stdout) == [printed]


def test_evaluate_few_shot_of_a_model_whose_head_was_called_before_uses_the_call_in_the_model(sets):
    """`head.input` is the input of the first call, on features without information."""
    inputs, head = keras.Input((4, 4, 3)), keras.layers.Dense(6, "softmax", name="mine")
    features = keras.layers.Rescaling(1 / 255)(keras.layers.Flatten()(inputs))
    head(keras.layers.Rescaling(0.0)(features))
    protocol = FewShotProtocol(shots=(10,))
    rows = [
        evaluate(model, ["tfds:a"], ["few_shot"], protocol=protocol)[0]
        for model in (keras.Model(inputs, head(features)), keras.Model(inputs, features))
    ]
    assert rows[0] == rows[1] and rows[0]["10_shot"] > 1 / 3


def test_evaluate_with_the_metric_few_shot_equals_the_function_few_shot(sets):
    """Both choose the same images for a seed, also for other numbers of shots in the same call."""
    inputs = keras.Input((4, 4, 3))
    features = keras.Model(inputs, keras.layers.Rescaling(1 / 255)(keras.layers.Flatten()(inputs)))
    (row,) = evaluate(
        features, ["tfds:a"], ["few_shot"], protocol=FewShotProtocol(shots=(1, 2, 7), seed=3)
    )
    data = tuple((split.images, split.labels) for split in sets["a"])
    for shots in (1, 2, 7):
        found = few_shot(features, {"a": data}, shots=(shots,), seed=3)["a"]
        assert row[f"{shots}_shot"] == pytest.approx(found[shots], abs=1e-9)


@pytest.mark.once("torch")
def test_evaluate_of_a_model_that_takes_no_pixels_or_has_an_unknown_size_raises(sets):
    normalised = create_model("vit_pico8", classes=6, include_preprocessing=False)
    with pytest.raises(ValueError, match="evaluate: `model`.*include_preprocessing=False"):
        evaluate(normalised, ["tfds:a"])
    pooled = keras.layers.GlobalAveragePooling2D(data_format="channels_last")
    unknown = keras.Sequential([keras.Input((None, None, 3)), pooled])
    with pytest.raises(ValueError, match=r"evaluate: `model`.*\(None, None, None, 3\)"):
        evaluate(unknown, ["tfds:a"], ["few_shot"])


@pytest.mark.once("torch")
@pytest.mark.parametrize("metric", ["top1", "few_shot"])
def test_evaluate_of_a_model_with_token_outputs_raises_before_any_prediction(metric, sets):
    tokens = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Reshape((8, 6))])
    tokens.predict = None
    with pytest.raises(ValueError, match=r"evaluate: `model`.*\(None, 8, 6\)"):
        evaluate(tokens, ["tfds:a"], [metric])
