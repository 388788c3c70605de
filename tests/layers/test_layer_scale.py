import pytest

from keras_tokenlearner.layers import LayerScale
from tests.conformance import array
from tests.layers.helpers import close, random_layer, refused, run


@pytest.mark.parametrize("shape", [(2, 8), (2, 5, 8), (2, 4, 6, 8)], ids=str)
def test_layer_scale_multiplies_each_channel(shape):
    x = array(shape, 0)
    layer = LayerScale(0.25)
    close(run(layer, x), 0.25 * x)
    layer = random_layer(LayerScale(), shape)
    close(run(layer, x), x * layer.get_weights()[0])
    assert layer.count_params() == 8


@pytest.mark.once("torch")
@pytest.mark.parametrize("value", [0, -1.0, "1e-5", True, None])
def test_layer_scale_with_a_wrong_initial_value_raises(value):
    refused(lambda: LayerScale(value), "LayerScale", f"initial_value={value!r}")


@pytest.mark.once("torch")
def test_layer_scale_of_unknown_channels_raises():
    refused(lambda: LayerScale().build((2, 5, None)), "LayerScale", "(2, 5, None)")
