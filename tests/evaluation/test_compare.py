"""Costs, speed and accuracy side by side."""

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


@pytest.mark.parametrize(("images", "labels"), [(3, 3), (6, 5)])
def test_compare_with_too_few_images_or_labels_raises(images, labels):
    model = create_model("vit_pico8", classes=10)
    with pytest.raises(ValueError, match=f"Received: {images} images, {labels} labels"):
        compare([model], np.zeros((images, 32, 32, 3)), np.zeros(labels), batch_size=5)
