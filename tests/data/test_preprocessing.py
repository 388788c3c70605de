"""Preprocessing on the host gives the pixels of timm's and transformers' own transforms."""

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="resizes the images")

from keras_tokenlearner.data import ArrayImages, ImageBatches  # noqa: E402
from keras_tokenlearner.data.preprocessing import (  # noqa: E402
    fit_pixels,
    preprocess_image,
    resized_size,
    seen_box,
    target_size,
)
from keras_tokenlearner.models.preprocessing import Preprocessing  # noqa: E402
from tests.skips import peer  # noqa: E402

SIZES = [(427, 640), (333, 251), (97, 401), (224, 224), (60, 61)]


def photograph(height, width):
    """Return pixels with edges, slopes and noise, as photographs have."""
    random = np.random.default_rng(height)
    small = random.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3)).astype("uint8")
    smooth = np.asarray(Image.fromarray(small).resize((width, height), 3), int)
    smooth[height // 3 :, width // 2 :] += 60
    return np.clip(smooth + random.integers(-20, 20, smooth.shape), 0, 255).astype("uint8")


@pytest.mark.once("torch")
@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1)], ids=str)
@pytest.mark.parametrize("shape", [(224, 224, 3), (224, 192, 3)], ids=str)
def test_preprocess_image_of_a_narrow_image_raises(shape, size):
    """The shortest edge would become 248 pixels, and the longest edge millions of pixels."""
    rule = Preprocessing(interpolation="bicubic", crop_fraction=0.9)
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels"):
        preprocess_image(np.zeros((*size, 3), "uint8"), shape, rule)
    with pytest.raises(ValueError, match=f"at most {2**25} pixels"):  # the size of the image
        resized_size((1, 2**25), shape[:2], rule)


@pytest.mark.once("torch")
@pytest.mark.parametrize(("wanted", "edge"), [(384, 450), (17, 25), (224, 256), (256, 292)])
def test_target_size_of_a_crop_fraction_from_a_division_equals_the_resized_edge(wanted, edge):
    rule = Preprocessing(crop_fraction=wanted / edge)
    assert target_size((wanted, wanted), rule) == (edge, edge)
    assert resized_size((2 * edge, 2 * edge), (wanted, wanted), rule) == (edge, edge)


@pytest.mark.peers
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("mode", "fields"),
    [
        ("center", {"interpolation": "bicubic", "crop_fraction": 0.9}),
        ("center", {"interpolation": "bilinear", "crop_fraction": 0.875}),
        ("center", {"interpolation": "bicubic", "crop_fraction": 0.95}),
        ("center", {"interpolation": "bicubic", "crop_fraction": 1.0}),
        ("squash", {"interpolation": "bilinear", "crop_fraction": 1.0}),
        ("squash", {"interpolation": "bicubic", "crop_fraction": 0.9}),
        ("border", {"interpolation": "bicubic", "crop_fraction": 1.0}),
    ],
)
@pytest.mark.parametrize("shape", [(112, 112, 3), (96, 128, 3)], ids=str)
def test_preprocess_image_equals_the_transform_of_timm(shape, mode, fields, size):
    timm = peer("timm.data")
    transform = timm.create_transform(
        input_size=(3, *shape[:2]),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        interpolation=fields["interpolation"],
        crop_pct=fields["crop_fraction"],
        crop_mode=mode,
    )
    pixels = photograph(*size)
    right = transform(Image.fromarray(pixels)).numpy().transpose(1, 2, 0) * 255
    modes = {"center": "shortest", "squash": "squash", "border": "longest"}
    rule = Preprocessing(mean=(0.0,), std=(1.0,), resize_mode=modes[mode], **fields)
    found = preprocess_image(pixels, shape, rule)
    assert found.dtype == np.uint8 and found.shape == shape
    np.testing.assert_array_equal(found, np.rint(right))


def real_photograph(height, width):
    """Return a part of matplotlib's sample photograph, which is in the public domain."""
    from matplotlib.cbook import get_sample_data

    with Image.open(get_sample_data("grace_hopper.jpg")) as file:
        return np.asarray(file.convert("RGB"))[:height, :width]


@pytest.mark.peers
# Pillow resizes rows before columns and rounds after each, so the ratio of the sizes matters.
@pytest.mark.parametrize("size", [(600, 512), (511, 512), (97, 401)], ids=str)
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_preprocessing_of_a_photograph_on_host_and_in_graph_equals_timm(mode, interpolation, size):
    timm, tf = peer("timm.data"), pytest.importorskip("tensorflow")
    from keras_tokenlearner.serving.signatures import resizing_of_checkpoint

    transform = timm.create_transform(
        input_size=(3, 224, 224),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        interpolation=interpolation,
        crop_pct=0.9,
        crop_mode=mode,
    )
    pixels = real_photograph(*size)
    right = np.rint(transform(Image.fromarray(pixels)).numpy().transpose(1, 2, 0) * 255)
    modes = {"center": "shortest", "squash": "squash", "border": "longest"}
    rule = Preprocessing((0.0,), (1.0,), None, modes[mode], interpolation, 0.9)
    np.testing.assert_array_equal(preprocess_image(pixels, (224, 224, 3), rule), right)
    in_graph = resizing_of_checkpoint((224, 224, 3), rule)(tf.constant(pixels, tf.float32))
    np.testing.assert_allclose(in_graph, right, atol=1)


@pytest.mark.once("torch")
@pytest.mark.parametrize("size", [(427, 640), (97, 401), (400, 130)], ids=str)
@pytest.mark.parametrize(
    "rule",
    [
        None,
        Preprocessing(crop_fraction=0.875),
        Preprocessing(resize_mode="squash", crop_fraction=0.9),
        Preprocessing(resize_mode="longest"),
    ],
    ids=["default", "shortest", "squash", "longest"],
)
@pytest.mark.parametrize("shape", [(112, 112, 3), (96, 128, 3)], ids=str)
def test_seen_box_is_the_part_of_an_image_that_reaches_the_model(shape, rule, size):
    """Colours encode coordinates, so each pixel of the input shows its origin in the image."""
    rows, columns = ((np.arange(edge) + 0.5) / edge * 240 + 8 for edge in size)
    pixels = np.zeros((*size, 3))
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = columns, rows[:, None], 255
    found = fit_pixels(np.rint(pixels).astype("uint8"), shape, rule).astype(float)
    left, top, width, height = seen_box(size, shape, rule)
    x = (left + width * (np.arange(shape[1]) + 0.5) / shape[1]) * 240 + 8
    y = (top + height * (np.arange(shape[0]) + 0.5) / shape[0]) * 240 + 8
    image = found[..., 2] > 250  # without padding
    assert image.mean() > 0.2
    step = 240 * max(width / shape[1], height / shape[0]) + 1  # size of a pixel of the model
    assert np.abs(found[..., 0] - x)[image].max() < step
    assert np.abs(found[..., 1] - y[:, None])[image].max() < step


@pytest.mark.peers
@pytest.mark.parametrize("size", [(427, 640), (332, 250), (224, 224), (60, 62)], ids=str)
@pytest.mark.parametrize("picture", [photograph, real_photograph])
def test_preprocess_image_equals_the_image_processor_of_transformers(picture, size):
    transformers = peer("transformers")
    pixels = picture(*size)
    plain = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
    processor = getattr(transformers, "ViTImageProcessorPil", transformers.ViTImageProcessor)
    right = processor(size={"height": 112, "width": 96})(Image.fromarray(pixels), **plain)
    rule = Preprocessing(resize_mode="squash", interpolation="bilinear")
    found = preprocess_image(pixels, (112, 96, 3), rule)
    wanted = np.asarray(right["pixel_values"][0]).transpose(1, 2, 0)
    np.testing.assert_allclose(found, wanted, atol=1)


@pytest.mark.once("torch")
def test_preprocess_image_of_the_input_size_only_converts_channels():
    pixels = photograph(40, 40)
    rule = Preprocessing()
    np.testing.assert_array_equal(preprocess_image(pixels, (40, 40, 3), rule), pixels)
    grey = preprocess_image(pixels, (40, 40, 1), rule)
    np.testing.assert_array_equal(grey[..., 0], np.asarray(Image.fromarray(pixels).convert("L")))
    assert preprocess_image(grey, (20, 30, 3), rule).shape == (20, 30, 3)


@pytest.mark.once("torch")
def test_preprocess_image_resize_longest_pads_with_the_mean_colour():
    rule = Preprocessing(mean=(0.2, 0.4, 0.6), std=(1, 1, 1), resize_mode="longest")
    found = preprocess_image(np.full((20, 40, 3), 9, "uint8"), (40, 40, 3), rule)
    np.testing.assert_array_equal(found[0, 0], [51, 102, 153])
    np.testing.assert_array_equal(found[20, 20], [9, 9, 9])


@pytest.mark.once("torch")
def test_image_batches_for_testing_apply_the_given_preprocessing():
    pixels = photograph(90, 60)
    images = ArrayImages(pixels[None], [0])
    rule = Preprocessing(interpolation="bicubic", crop_fraction=0.875)
    options = {"training": False, "preprocessing": rule}
    found, _ = ImageBatches(images, (32, 32, 3), 1, **options)[0]
    np.testing.assert_array_equal(found[0], preprocess_image(pixels, (32, 32, 3), rule))
    plain, _ = ImageBatches(images, (32, 32, 3), 1, training=False)[0]
    assert np.abs(found - plain).max() > 20
