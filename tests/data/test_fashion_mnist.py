"""Fashion-MNIST from the included sample and from the original files."""

import gzip
import zlib

import numpy as np
import pytest

from keras_tokenlearner.data import load_fashion_mnist

pytestmark = pytest.mark.once("torch")


def test_fashion_mnist_sample_is_balanced():
    (train_images, train_labels), (test_images, test_labels) = load_fashion_mnist()
    assert train_images.shape == (5000, 28, 28, 1) and train_images.dtype == np.uint8
    assert test_images.shape == (2000, 28, 28, 1) and test_images.dtype == np.uint8
    assert np.bincount(train_labels).tolist() == [500] * 10
    assert np.bincount(test_labels).tolist() == [200] * 10
    assert train_images.max() == 255 and train_images.min() == 0


def _write(path, array, magic):
    header = np.array([magic, *array.shape], ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("t10k", 4)):
        images = random.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        _write(tmp_path / f"{split}-images-idx3-ubyte.gz", images, 0x803)
        labels = np.arange(count, dtype=np.uint8)
        _write(tmp_path / f"{split}-labels-idx1-ubyte.gz", labels, 0x801)
    return tmp_path


def test_fashion_mnist_folder_of_original_files_loads(folder):
    (train_images, train_labels), (test_images, test_labels) = load_fashion_mnist(folder)
    assert train_images.shape == (6, 28, 28, 1) and test_images.shape == (4, 28, 28, 1)
    assert train_labels.tolist() == list(range(6)) and test_labels.tolist() == list(range(4))
    expected = np.random.default_rng(0).integers(0, 256, (6, 28, 28))
    np.testing.assert_array_equal(train_images[..., 0], expected)


def test_load_fashion_mnist_with_a_missing_file_raises_and_names_the_file(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte.gz.* origin="):
        load_fashion_mnist(folder)


@pytest.mark.parametrize("keep", [10, -10], ids=["first 10 bytes", "all but 10 bytes"])
def test_load_fashion_mnist_with_a_truncated_file_raises_and_names_the_file(folder, keep):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz"):
        load_fashion_mnist(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08", b"\0\0\x08\x03" + b"\xff" * 12],
    ids=["empty", "short", "huge sizes"],
)
def test_load_fashion_mnist_with_a_damaged_header_raises_and_names_the_file(folder, content):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz"):
        load_fashion_mnist(folder)


def test_load_fashion_mnist_with_damaged_compression_raises_and_names_the_file(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[10] = 7  # the first block after gzip's header has a type that does not exist
    path.write_bytes(content)
    with pytest.raises(zlib.error):
        gzip.decompress(path.read_bytes())
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz"):
        load_fashion_mnist(folder)


def test_load_fashion_mnist_with_fewer_labels_than_images_raises_with_both_numbers(folder):
    _write(folder / "t10k-labels-idx1-ubyte.gz", np.arange(3, dtype=np.uint8), 0x801)
    with pytest.raises(ValueError, match="4 images and 3 labels"):
        load_fashion_mnist(folder)


def test_load_fashion_mnist_of_a_file_whose_size_differs_from_its_header_raises(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz.*header"):
        load_fashion_mnist(folder)
