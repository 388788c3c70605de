"""The convolutional stem against convolutions in numpy."""

import keras
import numpy as np
import pytest

from keras_tokenlearner.layers import ConvStem
from tests.conformance import array, assign_weights, to_numpy
from tests.layers.helpers import refused


def _conv(x, kernel, bias, stride):
    """Return a SAME convolution; with stride 2 the padding of even sizes is at the end."""
    size = kernel.shape[0]
    outputs = [-(-length // stride) for length in x.shape[1:3]]
    pads = [
        max((count - 1) * stride + size - length, 0)
        for count, length in zip(outputs, x.shape[1:3], strict=True)
    ]
    x = np.pad(x, [(0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)])
    y = np.zeros((len(x), *outputs, kernel.shape[-1]))
    for row in range(outputs[0]):
        for column in range(outputs[1]):
            patch = x[:, row * stride :, column * stride :][:, :size, :size]
            y[:, row, column] = np.tensordot(patch, kernel, 3)
    return y + bias


def test_against_numpy():
    layer = ConvStem(8, 4, activation="relu")
    layer.build((None, 9, 12, 3))
    assign_weights(layer)
    x = array((2, 9, 12, 3), 0)
    weights = [np.asarray(weight) for weight in layer.get_weights()]
    y = np.maximum(_conv(x, *weights[0:2], stride=2), 0)
    y = np.maximum(_conv(y, *weights[2:4], stride=2), 0)
    y = _conv(y, *weights[4:6], stride=1)
    (found,) = to_numpy(layer(x))
    assert found.shape == (2, 3, 3, 8)
    np.testing.assert_allclose(found, y, atol=1e-5)


def test_channels_double_up_to_half():
    layer = ConvStem(32, 16)
    layer.build((None, 64, 64, 3))
    assert [conv.filters for conv in layer.convs] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize("patch_size", [0, 1, 6, 2.0])
def test_bad_patch_size(patch_size):
    with pytest.raises(ValueError, match=f"ConvStem: `patch_size` must .* patch_size={patch_size}"):
        ConvStem(8, patch_size)


@pytest.mark.parametrize("shape", [(2, 16, 3), (2, 8, 8, None)])
def test_refuses_shapes(shape):
    words = ["ConvStem: inputs", "(B, H, W, C)", f"Received: shape={shape}"]
    refused(lambda: ConvStem(8).build(shape), *words)


def test_refuses_channels_first():
    keras.config.set_image_data_format("channels_first")
    refused(lambda: ConvStem(8), "ConvStem: only channels_last", "set_image_data_format")
