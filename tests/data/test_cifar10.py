"""CIFAR-10 from a folder of small strips that the test writes."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_tokenlearner.data import load_cifar10

pytestmark = pytest.mark.once("torch")

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3)).astype("uint8")


@pytest.fixture
def folder(tmp_path):
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for index, name in enumerate(names):
        strip = IMAGES[2 * index : 2 * index + 2].reshape(2, 1024, 3)
        Image.fromarray(strip).save(tmp_path / f"{name}.png")
    (tmp_path / "train_lables.json").write_text(json.dumps(list(range(10))))
    (tmp_path / "test_lables.json").write_text("[3, 9]")
    return tmp_path


def test_load_cifar10_of_a_folder_gives_images_and_labels_of_both_splits(folder):
    (train_images, train_labels), (test_images, test_labels) = load_cifar10(folder)
    np.testing.assert_array_equal(train_images, IMAGES[:10])
    np.testing.assert_array_equal(test_images, IMAGES[10:])
    assert train_labels.tolist() == list(range(10)) and test_labels.tolist() == [3, 9]
    assert train_images.dtype == train_labels.dtype == np.uint8


def test_load_cifar10_without_a_folder_calls_keras(monkeypatch):
    splits = (IMAGES[:2], np.array([[1], [2]])), (IMAGES[2:3], np.array([[7]]))
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: splits)
    (train_images, train_labels), (_, test_labels) = load_cifar10()
    assert train_images.shape == (2, 32, 32, 3)
    assert train_labels.tolist() == [1, 2] and test_labels.tolist() == [7]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_3.png", None, "data_batch_3.png"),
        ("data_batch_3.png", b"\x89PNG nothing", "data_batch_3.png"),
        ("test_lables.json", b"[3, 10]", "labels of shape (2,) up to 10"),
        ("test_lables.json", b"[3]", "labels of shape (1,)"),
        ("test_lables.json", b"[3,", "test_lables.json"),
        ("test_lables.json", b"{}", "test_lables.json"),
        ("test_lables.json", b"[3, null]", "test_lables.json"),
        ("test_lables.json", b"[3, [9]]", "test_lables.json"),
        ("test_lables.json", b'{"3": 9}', "test_lables.json"),
    ],
)
def test_load_cifar10_with_a_missing_damaged_or_inconsistent_file_raises(
    folder, name, content, message
):
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        load_cifar10(folder)
    assert message in str(caught.value)


def test_load_cifar10_of_a_truncated_or_narrow_png_raises(folder):
    path = folder / "test_batch.png"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"test_batch\.png"):
        load_cifar10(folder)
    Image.fromarray(IMAGES[0]).save(path)
    with pytest.raises(ValueError, match=r"test_batch\.png.* 1024 .*width=32"):
        load_cifar10(folder)
