"""Data sets by name, at the size of a model."""

import numpy as np
import pytest

from keras_tokenlearner.data import load_fashion_mnist, load_named, named


def test_as_they_are():
    (images, labels), (test_images, _) = load_named("fashion_mnist", (28, 28, 1))
    (expected, expected_labels), (expected_test, _) = load_fashion_mnist()
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_array_equal(test_images, expected_test)


def test_resized_from_a_source(monkeypatch):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 8, 8, 3)).astype("uint8")
    flat = np.full((2, 8, 8, 3), 77, "uint8")
    loaders = {"cifar10": lambda source: ((images, source), (flat, source))}
    monkeypatch.setattr(named, "LOADERS", loaders)
    (train, labels), (test, _) = load_named("cifar10:some/folder", (4, 4, 3))
    assert labels == "some/folder" and train.dtype == np.uint8
    np.testing.assert_array_equal(test, np.full((2, 4, 4, 3), 77))
    means = images.reshape(3, 4, 2, 4, 2, 3).mean((2, 4))  # a triangle is a little wider
    assert np.abs(train - means).mean() < 25


@pytest.mark.parametrize(
    ("data", "shape", "message"),
    [
        ("cifar", None, "Did you mean 'cifar10'"),
        ("fashion_mnist", (32, 32, 3), "has images of 1 channels and the model takes 3"),
    ],
)
def test_refused(data, shape, message):
    with pytest.raises(ValueError, match=message):
        load_named(data, shape)
