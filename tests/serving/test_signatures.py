"""The bytes of image files become the pixels that Pillow decodes, on which models are trained."""

import io

import keras
import numpy as np
import pytest

from keras_tokenlearner.serving.signatures import decode_image

tf = pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
pillow = pytest.importorskip("PIL.Image", reason="the independent decoder")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's own functions, whatever exports"
)

SMALL = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype("uint8")
PICTURE = pillow.fromarray(SMALL).resize((70, 90), pillow.Resampling.BICUBIC)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"quality": 30, "progressive": True, "subsampling": 0}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_decoded_as_pillow_decodes(kind, options, mode, channels):
    stream = io.BytesIO()
    PICTURE.convert(mode).save(stream, kind, **options)
    found = decode_image(tf.constant(stream.getvalue()), channels).numpy()
    wanted = np.asarray(pillow.open(stream).convert("L" if channels == 1 else "RGB"))
    # From colours to grey, Pillow and TensorFlow round otherwise.
    rounding = int(mode == "RGB" and channels == 1)
    np.testing.assert_allclose(found.reshape(wanted.shape), wanted.astype(int), atol=rounding)
