"""Data sets by name, at the size of a model."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_tokenlearner.data import (
    ArrayImages,
    load_fashion_mnist,
    load_named,
    named,
    open_named,
    read_real_labels,
)
from keras_tokenlearner.models import Preprocessing

pytestmark = pytest.mark.once("torch")


def test_load_named_at_the_original_size_keeps_the_pixels():
    (images, labels), (test_images, _) = load_named("fashion_mnist", (28, 28, 1))
    (expected, expected_labels), (expected_test, _) = load_fashion_mnist()
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_array_equal(test_images, expected_test)


def test_load_named_of_a_folder_resizes_the_images(monkeypatch):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 8, 8, 3)).astype("uint8")
    flat = np.full((2, 8, 8, 3), 77, "uint8")

    def opener(origin):
        assert origin == "some/folder"
        return ArrayImages(images, [0, 1, 1]), ArrayImages(flat, [1, 0])

    monkeypatch.setitem(named.OPENERS, "cifar10", opener)
    (train, labels), (test, _) = load_named("cifar10:some/folder", (4, 4, 3))
    assert labels.tolist() == [0, 1, 1] and train.dtype == np.uint8
    np.testing.assert_array_equal(test, np.full((2, 4, 4, 3), 77))
    # The resize filter is a triangle. It covers a few more pixels than these means.
    means = images.reshape(3, 4, 2, 4, 2, 3).mean((2, 4))
    assert np.abs(train - means).mean() < 25


def test_load_named_with_a_preprocessing_crops_by_its_crop_fraction(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype("uint8")
    data = ArrayImages(images, [0, 1])
    monkeypatch.setitem(named.OPENERS, "cifar10", lambda: (data, data))
    for split, labels in load_named("cifar10", (4, 4, 3), Preprocessing(crop_fraction=0.5)):
        np.testing.assert_array_equal(split, images[:, 2:6, 2:6])  # nothing is resized
        assert labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="load_named: `preprocessing`.*preprocessing='bicubic'"):
        load_named("cifar10", (4, 4, 3), "bicubic")


def test_open_named_of_a_folder_gives_two_splits_and_raises_if_their_classes_differ(tmp_path):
    for split in ("train", "val"):
        for name, grey in (("cat", 1), ("dog", 2)):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (6, 5), (grey, 0, 0)).save(tmp_path / split / name / "0.png")
    train, test = open_named(f"folder:{tmp_path}")
    assert train.class_names == test.class_names == ("cat", "dog")
    assert [int(pixels[0, 0, 0]) for pixels, _ in test] == [1, 2]
    for alone in (tmp_path, str(tmp_path)):
        assert [int(pixels[0, 0, 0]) for pixels, _ in open_named(alone)[1]] == [1, 2]
    (tmp_path / "train" / "cat").rename(tmp_path / "train" / "cow")
    with pytest.raises(ValueError, match=r"\('cow', 'dog'\) and \('cat', 'dog'\)"):
        open_named(f"folder:{tmp_path}")


def test_open_named_of_a_folder_without_classes_raises_and_names_data_and_folder(tmp_path):
    for folder in ("train", "test"):  # the first call finds no `test`, the second no classes
        (tmp_path / folder).mkdir()
        for data in (f"folder:{tmp_path}", str(tmp_path), tmp_path):
            with pytest.raises(ValueError) as caught:
                open_named(data)
            named = str(data) if folder == "train" else str(tmp_path / "train")
            assert str(caught.value).startswith("open_named: `data` ")
            assert f"Received: data={named!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("cifar", "'cifar10'.*data='cifar'"),
        ("tfds", "'tfds:NAME'. Received: data='tfds'"),
        ("folder:nowhere", "`data` .*`train` .* data='folder:nowhere'"),
    ],
)
def test_open_named_of_an_unknown_data_set_raises(data, message):
    with pytest.raises(ValueError, match=message):
        open_named(data)


def test_read_real_labels_orders_labels_by_the_numbers_in_file_names(tmp_path):
    path = tmp_path / "real.json"
    path.write_text(json.dumps([[3], [], [1, 2]]))
    names = ["ILSVRC2012_val_00000003.JPEG", "ILSVRC2012_val_00000001.JPEG"]
    assert read_real_labels(path, names) == [[1, 2], [3]]
    with pytest.raises(ValueError, match="`names`.* 3. Received: 'ILSVRC2012_val_00000004.JPEG'"):
        read_real_labels(path, ["ILSVRC2012_val_00000004.JPEG"])
    path.write_text("{}}")
    with pytest.raises(ValueError, match=r"real\.json"):
        read_real_labels(path, names)
    with pytest.raises(ValueError, match="read_real_labels: `path`.*path=None"):
        read_real_labels(None, names)


def test_open_named_of_a_folder_in_the_home_folder_finds_its_images(tmp_path, monkeypatch):
    monkeypatch.setenv("USERPROFILE" if os.name == "nt" else "HOME", str(tmp_path))
    for split in ("train", "test"):
        (tmp_path / "photos" / split / "cat").mkdir(parents=True)
        Image.new("RGB", (6, 5)).save(tmp_path / "photos" / split / "cat" / "0.png")
    for data in ("~/photos", Path("~/photos"), "folder:~/photos"):
        assert [images.class_names for images in open_named(data)] == [("cat",)] * 2
    for name in ("fashion_mnist", "cifar10"):
        with pytest.raises(ValueError, match=re.escape(f"origin={str(tmp_path / 'photos')!r}")):
            open_named(f"{name}:~/photos")
    (tmp_path / "real.json").write_text("[[1]]")
    assert read_real_labels("~/real.json", ["ILSVRC2012_val_00000001.JPEG"]) == [[1]]
