"""The convolutional stem against convolutions in numpy."""

import keras
import numpy as np
import pytest

from keras_tokenlearner.layers import ConvStem
from tests.conformance import array, assign_weights, to_numpy
from tests.layers.helpers import refused

CONVS = ((4, 2), (8, 2))


def _conv(x, kernel, stride):
    """Return a SAME convolution. With stride 2, an even size has all padding at the end."""
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
    return y


def _norm(x, gamma, beta):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3) * gamma + beta


def test_conv_stem_equals_a_numpy_implementation():
    layer = ConvStem(8, ((5, 2), (6, 1), (7, 2)), activation="relu", layer_norm_epsilon=1e-3)
    layer.build((None, 9, 12, 3))
    assign_weights(layer)
    y = x = array((2, 9, 12, 3), 0)
    kernel, bias = layer.projection.get_weights()
    norms = [norm.get_weights() for norm in layer.norm_layers]
    kernels = [conv.get_weights() for conv in layer.conv_layers]
    for (weights,), (gamma, beta), stride in zip(kernels, norms, (2, 1, 2), strict=True):
        y = np.maximum(_norm(_conv(y, weights, stride), gamma, beta), 0)
    y = _conv(y, kernel, 1) + bias
    (found,) = to_numpy(layer(x))
    assert found.shape == (2, 3, 3, 8)
    np.testing.assert_allclose(found, y, atol=1e-5)


def test_conv_stem_of_a_video_equals_the_stem_of_each_frame():
    layer = ConvStem(8, CONVS)
    videos = array((2, 3, 9, 12, 3), 0)
    (found,) = to_numpy(layer(videos))
    frames = [to_numpy(layer(videos[:, frame]))[0] for frame in range(3)]
    np.testing.assert_allclose(found, np.stack(frames, axis=1), atol=1e-6)


@pytest.mark.once("torch")
@pytest.mark.parametrize("convs", [(), 8, ((8, 0),), ((8, 2, 1),), ((8, 2.0),)], ids=str)
def test_conv_stem_with_wrong_convs_raises(convs):
    refused(lambda: ConvStem(8, convs), "ConvStem: ", f"Received: convs={convs!r}")


@pytest.mark.once("torch")
@pytest.mark.parametrize("shape", [(2, 16, 3), (2, 8, 8, None)], ids=str)
def test_conv_stem_with_wrong_shapes_raises(shape):
    words = ["ConvStem: inputs", "(B, T, H, W, C)", f"Received: shape={shape}"]
    refused(lambda: ConvStem(8, CONVS).build(shape), *words)


@pytest.mark.once("torch")
def test_conv_stem_with_channels_first_raises():
    keras.config.set_image_data_format("channels_first")
    refused(lambda: ConvStem(8, CONVS), "ConvStem: ", "image_data_format='channels_first'")
