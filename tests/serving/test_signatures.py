"""A SavedModel decodes image files to the same pixels as the host."""

import io
import struct

import keras
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
pillow = pytest.importorskip("PIL.Image", reason="the independent decoder")
pytestmark = [
    pytest.mark.once("tensorflow"),
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow",
        reason="only on tensorflow: it tests TensorFlow code",
    ),
]

from keras_tokenlearner.data import decode_image, preprocess_image  # noqa: E402
from keras_tokenlearner.models import Preprocessing  # noqa: E402
from keras_tokenlearner.serving.decoding import decode_in_graph  # noqa: E402
from keras_tokenlearner.serving.signatures import resizing_of_checkpoint  # noqa: E402
from tests.data.odd_images import ODD, encode  # noqa: E402
from tests.data.test_preprocessing import SIZES, photograph  # noqa: E402

SMALL = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype("uint8")
PICTURE = pillow.fromarray(SMALL).resize((70, 90), pillow.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def decode():
    """A function that decodes in a graph, compiled once for each number of channels."""
    made = {
        channels: tf.function(
            lambda content, channels=channels: decode_in_graph(content, channels),
            autograph=False,
            input_signature=[tf.TensorSpec((), tf.string)],
        )
        for channels in (1, 3)
    }
    return lambda content, channels=3: made[channels](tf.constant(content)).numpy()


# Each test loops over its files. Before the next test, Keras clears the compiled functions of
# TensorFlow.


def test_decode_in_graph_of_unusual_modes_gives_the_reference_pixels(decode):
    for name, (content, right) in ODD.items():
        np.testing.assert_array_equal(decode(content), right, err_msg=name)
        grey = decode_image(content, 1)
        np.testing.assert_array_equal(decode(content, 1), grey, err_msg=name)


def test_decode_in_graph_of_plain_files_gives_the_pixels_of_pillow(decode):
    kinds = (
        ("JPEG", {}),
        ("JPEG", {"quality": 30, "progressive": True, "subsampling": 0}),
        ("PNG", {}),
        ("GIF", {}),
        ("GIF", {"interlace": 0}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 60}),
    )
    images = [PICTURE, PICTURE.convert("L"), PICTURE.quantize(9)]
    for kind, options in kinds:
        for image in images[: 2 if kind == "JPEG" else 3]:
            content = encode(image, kind, **options)
            wanted = pillow.open(io.BytesIO(content)).convert("RGB")
            name = f"{kind} {image.mode} {options}"
            np.testing.assert_array_equal(decode(content), wanted, err_msg=name)
            np.testing.assert_array_equal(decode(content, 1)[..., 0], wanted.convert("L"), name)


def test_decode_in_graph_of_a_bmp_with_alpha_gives_a_white_background(decode):
    pixels = np.random.default_rng(1).integers(0, 256, (3, 5, 4)).astype("uint8")
    header = struct.pack("<IiiHHIIiiII", 108, 5, 3, 1, 32, 3, 60, 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000).ljust(108 - 40, b"\0")
    rows = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    content = b"BM" + struct.pack("<IHHI", 122 + 60, 0, 0, 122) + header + masks + rows
    assert pillow.open(io.BytesIO(content)).mode == "RGBA"
    np.testing.assert_array_equal(decode(content), decode_image(content))


def test_decode_in_graph_stops_before_the_second_frame_of_a_gif(decode):
    frames = [PICTURE.quantize(4), PICTURE.transpose(0).quantize(4)]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    second = content.rindex(b"\x2c")
    huge = content[: second + 5] + struct.pack("<HH", 12_000, 12_000) + content[second + 9 :]
    np.testing.assert_array_equal(decode(huge), decode_image(content))


def test_decode_in_graph_of_unreadable_files_raises(decode):
    content = encode(PICTURE.convert("1"), "BMP")
    for broken in (content, b"", b"GIF89a", b"no image", b"BM"):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(broken)


def test_decode_in_graph_of_damaged_files_terminates(decode):
    random = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP"):
        content = encode(PICTURE.resize((20, 15)), kind)
        for _ in range(20):
            damaged = bytearray(content)
            for place in random.integers(12, min(len(content), 60), 2):
                damaged[place] = random.integers(256)
            try:
                assert decode(bytes(damaged)).shape[-1] == 3
            except (tf.errors.OpError, UnicodeDecodeError):  # the message quotes bytes
                continue


@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("shape", [(112, 112, 3), (96, 128, 3)], ids=str)
def test_resizing_of_checkpoint_in_graph_equals_preprocess_image(resize_mode, interpolation, shape):
    rule = Preprocessing((0.4, 0.5, 0.6), (0.5,), None, resize_mode, interpolation, 0.9)
    fit = tf.function(
        resizing_of_checkpoint(shape, rule),
        autograph=False,
        input_signature=[tf.TensorSpec((None, None, None, 3))],  # as in exports
    )
    for size in SIZES:
        pixels = photograph(*size)
        found = fit(tf.constant(pixels[None], tf.float32))[0].numpy()
        right = preprocess_image(pixels, shape, rule).astype(int)
        assert found.shape == shape
        # Pillow 13 resizes some tall images by columns first. Nearest may choose a neighbour.
        far = np.abs(found - right) > 1
        assert far.mean() < (0.05 if interpolation == "nearest" else 2e-3), size
