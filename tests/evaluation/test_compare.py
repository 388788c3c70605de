"""Costs, speed and accuracy side by side."""

import keras
import numpy as np
import pytest

from keras_tokenlearner import costs, create_model, retrofit
from keras_tokenlearner.evaluation import compare


def test_compare_returns_accuracy_cost_and_throughput_of_each_model():
    teacher = create_model("vit_pico8", classes=10)
    teacher.get_layer("head").bias.assign(np.eye(10)[3])
    student = retrofit(teacher, at=1, num_tokens=4)
    student.get_layer("head").bias.assign(np.eye(10)[4])
    labels = np.repeat([3, 4, 5], [5, 3, 4])
    rows = compare([teacher, student], np.zeros((12, 32, 32, 3)), labels, 5, repeats=2)
    assert [row["accuracy"] for row in rows] == pytest.approx([5 / 12, 3 / 12])
    assert [row["model"] for row in rows] == ["vit_pico8", "vit_pico8_4at1"]
    for row, model in zip(rows, (teacher, student), strict=True):
        assert row["gmacs"] == costs(model).macs / 1e9
        assert row["mparams"] == sum(np.prod(weight.shape) for weight in model.weights) / 1e6
        assert row["images_per_second"] > 0


def test_compare_of_fewer_images_than_a_default_batch_measures_all_of_them():
    model = create_model("vit_pico8", classes=10)
    labels = np.array([[0], [1], [0]])  # as in `keras.datasets`
    (row,) = compare([model], np.zeros((3, 32, 32, 3)), labels, repeats=1)
    assert row["accuracy"] == pytest.approx(2 / 3)  # a new head is zero: all scores are equal
    assert row["images_per_second"] > 0


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    ("count", "labels", "words"),
    [
        (3, np.zeros(3, int), "3 images, batch_size=5"),
        (0, np.zeros(0, int), "0 images, batch_size=1"),
        (6, np.zeros(5, int), r"labels of shape \(5,\) for 6 examples"),
        (6, np.zeros(6), "type float64"),
        (6, np.full(6, 10), "from 10 to 10"),
    ],
)
def test_compare_with_too_few_images_or_wrong_labels_raises_before_any_measurement(
    count, labels, words, monkeypatch
):
    model = create_model("vit_pico8", classes=10)
    monkeypatch.setattr(model, "predict_on_batch", None)
    batch_size = 5 if count else None
    with pytest.raises(ValueError, match=f"compare: .*{words}"):
        compare([model], np.zeros((count, 32, 32, 3)), labels, batch_size)


@pytest.mark.once("torch")
def test_compare_of_token_outputs_or_a_layer_without_a_cost_rule_raises_before_any_measurement(
    monkeypatch,
):
    images, labels = np.zeros((4, 8, 8, 3)), np.zeros(4, int)
    dense = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    dense.add(keras.layers.Dense(2))
    monkeypatch.setattr(dense, "predict_on_batch", None)
    tokens = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Reshape((64, 3))])
    with pytest.raises(ValueError, match=r"compare: `models`.*\(None, 64, 3\)"):
        compare([dense, tokens], images, labels)
    unknown = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Reshape((64, 3))])
    unknown.add(keras.layers.GRU(2, name="mine"))
    with pytest.raises(ValueError, match="compare: .*GRU.*'mine'"):
        compare([dense, unknown], images, labels)


def test_compare_of_a_model_whose_output_is_in_a_dictionary_equals_the_plain_model():
    plain = create_model("vit_pico8", classes=10)
    plain.get_layer("head").bias.assign(np.eye(10)[3])
    packed = keras.Model(plain.inputs, {"scores": plain.output})
    images, labels = np.zeros((4, 32, 32, 3)), np.array([3, 3, 3, 4])
    rows = compare([plain, packed], images, labels, repeats=1)
    assert [row["accuracy"] for row in rows] == [3 / 4, 3 / 4]
