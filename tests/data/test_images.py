"""Images from arrays and folders, and their resizing to the input size of a model."""

import re

import keras
import numpy as np
import pytest
from PIL import Image

from keras_tokenlearner.data import (
    ArrayImages,
    FileImages,
    ImageBatches,
    Images,
    fit_image,
    from_folder,
    inception_crop,
    preprocess_image,
    resizing,
)
from keras_tokenlearner.models import Preprocessing
from tests.data.shuffled import Shuffled

pytestmark = pytest.mark.once("torch")

RANDOM = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    for name, grey in (("b", 90), ("a", 30)):
        (tmp_path / name).mkdir()
        for number in range(2):
            image = Image.new("L", (20 + number, 10), grey + number)
            image.save(tmp_path / name / f"{number}.png")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    return tmp_path


def test_from_folder_returns_class_names_file_names_and_pixels(folder):
    images = from_folder(folder)
    assert images.class_names == ("a", "b") and images.labels.tolist() == [0, 0, 1, 1]
    assert images.names == ("0.png", "1.png", "0.png", "1.png")
    pixels, label = images[3]
    np.testing.assert_array_equal(pixels, np.full((10, 21, 3), 91, "uint8"))
    assert label == 1
    some = images.take([2, 0])
    assert len(some) == 2 and some.labels.tolist() == [1, 0] and some.names == ("0.png", "0.png")
    assert [int(pixels.max()) for pixels, _ in some] == [90, 30]


def test_from_folder_with_damaged_file_or_no_classes_raises(folder):
    (folder / "a" / "0.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(ValueError, match=r"FileImages: .*a/0\.png"):
        from_folder(folder)[0]
    with pytest.raises(ValueError, match="from_folder: .*path="):
        from_folder(folder / "a")


@pytest.mark.parametrize("kind", ["AVIF", "TIFF", "PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.2, 0.7])
def test_truncated_image_in_a_folder_raises_and_names_the_file(folder, kind, share):
    path = folder / "a" / f"cut.{kind.lower()}"
    noise = RANDOM.integers(0, 256, (60, 50, 3)).astype("uint8")
    try:
        Image.fromarray(noise).save(path, kind)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {kind}")
    images = from_folder(folder)
    place = [str(file) for file in images.files].index(str(path))
    assert images[place][0].shape == (60, 50, 3)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"cut\.{kind.lower()}"):
        images[place]
    batches = ImageBatches(images, (8, 8, 3), len(images), training=False)
    with pytest.raises(ValueError, match=rf"cut\.{kind.lower()}"):
        batches[0]


def test_from_folder_skips_hidden_files_and_folders(folder):
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "0-checkpoint.png").write_bytes(b"")
    (folder / "a" / "._0.png").write_bytes(b"\0\x05\x16\x07")
    (folder / "b" / ".hidden").mkdir()
    images = from_folder(folder)
    assert images.class_names == ("a", "b") and len(images) == 4


def test_from_folder_with_an_empty_class_raises_and_names_the_class(folder):
    (folder / "unsorted").mkdir()
    (folder / "unsorted" / "._0.png").write_bytes(b"")
    with pytest.raises(ValueError, match="'unsorted'"):
        from_folder(folder)


def test_file_images_of_a_shuffled_pandas_series_keep_files_and_labels_together(folder):
    files = [folder / name / "0.png" for name in "ba"]
    images = FileImages(Shuffled(files, [1, 0]), Shuffled([1, 0], [1, 0]), Shuffled("ab", [1, 0]))
    assert [(int(pixels.max()), label) for pixels, label in images] == [(90, 1), (30, 0)]
    assert images.class_names == ("a", "b") and images.called(0) == str(files[0])


def test_images_with_labels_in_a_shuffled_pandas_series_take_labels_by_position():
    class Grey(Images):
        labels = Shuffled([1, 0], [1, 0])

    assert Grey().take([0]).labels.tolist() == [1]


def test_array_images_accept_class_names_in_a_numpy_array():
    images = ArrayImages(np.zeros((2, 4, 4, 1), "uint8"), [0, 1], np.array(["a", "b"]))
    assert images.class_names == ("a", "b")


def test_array_images_accept_labels_of_shape_n_1_as_in_keras_datasets():
    images = ArrayImages(np.zeros((2, 4, 4, 1), "uint8"), np.array([[1], [0]], "uint8"))
    assert images.labels.tolist() == [1, 0] and images[0][1] == 1


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1], r"labels of shape \(2,\) for 3 examples"),
        ([[0, 1, 2]], r"labels of shape \(1, 3\)"),
        ([0.0, 1.0, 1.0], "type float64"),
        ([0, -1, 1], "from -1 to 1"),
        ([0, 1, 2], "from 0 to 2"),
        (None, r"labels of shape \(\)"),
    ],
    ids=str,
)
def test_array_images_and_file_images_with_wrong_labels_raise(labels, words, folder):
    images, names = np.zeros((3, 4, 4, 1), "uint8"), ["a", "b"]
    with pytest.raises(ValueError, match=f"ArrayImages: `labels`.*{words}"):
        ArrayImages(images, labels, names)
    with pytest.raises(ValueError, match=f"FileImages: `labels`.*{words}"):
        FileImages([folder / "a" / "0.png"] * 3, labels, names)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((3, 4, 4, 1)),
        np.zeros((3, 4, 4, 3), "int64"),
        np.zeros((3, 4, 4), "uint8"),
    ],
    ids=lambda images: f"{images.dtype}{images.shape}",
)
def test_array_images_fit_image_and_preprocess_image_of_a_wrong_dtype_or_shape_raise(images):
    said = re.escape(f"images of shape {images.shape} and type {images.dtype}")
    with pytest.raises(ValueError, match=f"ArrayImages: `images`.*{said}"):
        ArrayImages(images, [0, 1, 1])
    said = re.escape(f"pixels of shape {images[0].shape} and type {images.dtype}")
    for shape in ((4, 4, 1), (2, 2, 3)):
        with pytest.raises(ValueError, match=f"fit_image: `pixels`.*{said}"):
            fit_image(images[0], shape)
    with pytest.raises(ValueError, match=f"preprocess_image: `pixels`.*{said}"):
        preprocess_image(images[0], (2, 2, 3), Preprocessing())


def test_images_of_five_channels_stay_unchanged_unless_they_are_resized():
    images = ArrayImages(np.arange(240, dtype="uint8").reshape(3, 4, 4, 5), [0, 1, 1])
    pixels, _ = images[1]
    assert fit_image(pixels, (4, 4, 5)) is pixels
    with pytest.raises(ValueError, match=r"fit_image: `pixels`.*\(4, 4, 5\)"):
        fit_image(pixels, (2, 2, 5))


@pytest.mark.parametrize("size", [(173, 134, 69, 44), (28, 56, 56, 36), (155, 23, 66, 83)], ids=str)
def test_fit_image_equals_the_resizing_layer_of_exported_models(size):
    height, width, new_height, new_width = size
    pixels = RANDOM.integers(0, 256, (height, width, 3)).astype("uint8")
    fitted = fit_image(pixels, (new_height, new_width, 3)).astype("float32")
    expected = resizing(new_height, new_width)(pixels.astype("float32"))
    assert np.abs(fitted - keras.ops.convert_to_numpy(expected)).max() <= 1.01  # rounded twice


def test_fit_image_converts_channels_and_crops_to_the_box():
    grey = RANDOM.integers(0, 256, (8, 8, 1)).astype("uint8")
    colour = fit_image(grey, (8, 8, 3))
    np.testing.assert_array_equal(colour, np.repeat(grey, 3, axis=-1))
    np.testing.assert_array_equal(fit_image(colour, (8, 8, 1)), grey)
    np.testing.assert_array_equal(fit_image(grey, (3, 2, 1), (1, 2, 3, 5)), grey[2:5, 1:3])


def test_inception_crops_cover_the_ranges_of_area_and_aspect_ratio():
    boxes = np.array([inception_crop(90, 120, RANDOM, area=(0.25, 1.0)) for _ in range(500)])
    left, top, right, bottom = boxes.T
    assert (boxes >= 0).all() and right.max() <= 120 and bottom.max() <= 90
    shares = (right - left) * (bottom - top) / (90 * 120)
    assert 0.24 < shares.min() < 0.3 and 0.9 < shares.max() <= 1
    aspects = (right - left) / (bottom - top)
    assert 0.72 < aspects.min() < 0.8 and 1.26 < aspects.max() < 1.37
    assert left.min() == top.min() == 0 and right.max() == 120 and bottom.max() == 90
    assert inception_crop(1, 500, RANDOM, area=(0.9, 1.0)) == (0, 0, 500, 1)
