import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_tokenlearner.layers import VectorAttention
from tests.conformance import array, assert_close
from tests.layers import helpers
from tests.layers.helpers import close, random_layer, refused, run

FORMS = [{}, {"gamma": True}, {"key_dim": 6, "value_dim": 4}, {"key_dim": 6, "use_bias": False}]


def equation_3(z, y, weights, gamma, use_bias=True, mask=None):
    """Return the paper's sum with the N x M x C tensor; z are the queries, y the keys."""
    weights = list(weights)
    project = weights.pop(0) if gamma else None
    step = 2 if use_bias else 1

    def linear(x, index):
        kernel, *bias = weights[step * index : step * index + step]
        return x @ kernel + (bias[0] if bias else 0)

    q, k, v = linear(z, 0), linear(y, 1), linear(y, 2)
    logits = q[:, :, None] * k[:, None]
    logits = logits if project is None else logits @ project
    if mask is not None:
        logits = np.where(mask[..., None], logits, -np.inf)
    return (helpers.softmax(logits, axis=2) * v[:, None]).sum(2)


def expected(layer, z, y, mask=None):
    gamma = layer.gamma_kernel is not None
    return equation_3(z, y, layer.get_weights(), gamma, layer.use_bias, mask)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("length", [1, 16, 21, 48])
def test_vector_attention_equals_equation_3_of_the_paper(form, length):
    z = array((2, length, 8), 0)
    layer = random_layer(VectorAttention(**form), z.shape)
    close(run(layer, z), expected(layer, z, z))


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("batch", [1, 2])
def test_vector_attention_with_mask_equals_equation_3_of_the_paper(form, batch):
    z, y = array((2, 21, 8), 0), array((2, 18, 7), 1)
    mask = array((batch, 21, 18), 2) > -0.5
    layer = random_layer(VectorAttention(**form), z.shape, y.shape)
    close(run(layer, z, y, attention_mask=mask), expected(layer, z, y, mask))


# On TensorFlow, `keras.ops.max` refuses empty tensors, and only unmasked attention calls it.
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(
    "masked", [True] if keras.backend.backend() == "tensorflow" else [False, True]
)
def test_vector_attention_of_an_empty_batch_returns_no_outputs(form, masked):
    layer = random_layer(VectorAttention(**form), (2, 21, 8))
    for size in (2, 0):
        mask = np.ones((size, 21, 21), bool) if masked else None
        found = run(layer, np.zeros((size, 21, 8), "float32"), attention_mask=mask)
        assert found.shape == (size, 21, form.get("value_dim", form.get("key_dim", 8)))


def test_vector_attention_of_one_visible_token_returns_its_value():
    z = array((2, 5, 8), 0)
    layer = random_layer(VectorAttention(), z.shape)
    kernel, bias = layer.get_weights()[4:]
    for token in range(5):
        mask = np.arange(5)[None, None] == np.full((1, 5, 1), token)
        found = run(layer, z, attention_mask=mask)
        close(found, np.broadcast_to((z @ kernel + bias)[:, token, None], found.shape))


@pytest.mark.parametrize("form", FORMS[:3], ids=str)
def test_vector_attention_weights_sum_to_one_for_every_channel(form):
    z = array((2, 21, 8), 0)
    layer = random_layer(VectorAttention(**form), z.shape)
    bias = array(layer.value_dense.bias.shape, 9)
    layer.value_dense.set_weights([np.zeros(layer.value_dense.kernel.shape), bias])
    found = run(layer, z)
    close(found, np.broadcast_to(bias, found.shape))  # every value is the bias, so is their mean


class Direct(layers.Layer):
    """Eq. 3 with the N x M x C tensor and the weights of a layer, to compare gradients."""

    def __init__(self, layer):
        super().__init__()
        self.gamma = layer.gamma_kernel is not None
        self.use_bias = layer.use_bias
        self.copies = [
            self.add_weight(shape=weight.shape, name=f"copy_{index}")
            for index, weight in enumerate(layer.weights)
        ]

    def call(self, z, attention_mask=None):
        weights = list(self.copies)
        project = weights.pop(0) if self.gamma else None
        step = 2 if self.use_bias else 1
        q, k, v = (
            ops.matmul(z, weights[step * i]) + (weights[step * i + 1] if self.use_bias else 0)
            for i in range(3)
        )
        logits = ops.expand_dims(q, 2) * ops.expand_dims(k, 1)
        logits = logits if project is None else ops.matmul(logits, project)
        if attention_mask is not None:
            logits = ops.where(ops.expand_dims(attention_mask, -1), logits, -1e9)
        return ops.sum(ops.softmax(logits, axis=2) * ops.expand_dims(v, 1), axis=2)


def gradient_step(layer, inputs, masked, target, weights):
    """Return all weights after one step of gradient descent inside `fit`."""
    tokens = keras.Input((None, 8))
    mask = keras.Input((None, None), dtype="bool")
    outputs = layer(tokens, attention_mask=mask) if masked else layer(tokens)
    model = keras.Model([tokens, mask] if masked else tokens, outputs)
    layer.set_weights(weights)
    model.compile(keras.optimizers.SGD(1.0), loss="mse")
    model.fit(inputs, target, batch_size=len(target), verbose=0)
    return layer.get_weights()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_vector_attention_gradients_equal_the_gradients_of_equation_3_of_the_paper(form, masked):
    z = array((2, 21, 8), 0)
    inputs = [z, array((2, 21, 21), 1) > -0.5] if masked else z
    layer = random_layer(VectorAttention(**form), z.shape)
    weights, target = layer.get_weights(), array(run(layer, z).shape, 2)
    found = gradient_step(layer, inputs, masked, target, weights)
    direct = gradient_step(Direct(layer), inputs, masked, target, weights)
    assert_close(found, direct)
    assert all(np.abs(a - b).max() > 1e-5 for a, b in zip(found[:2], weights[:2], strict=True))


def test_vector_attention_in_mixed_precision_with_gamma_and_mask_trains():
    keras.config.set_dtype_policy("mixed_bfloat16")
    z, mask = array((2, 21, 8), 0), array((2, 21, 21), 1) > -0.5
    layer = random_layer(VectorAttention(gamma=True), z.shape)
    before = layer.get_weights()
    after = gradient_step(layer, [z, mask], True, array((2, 21, 8), 2), before)
    assert all(np.isfinite(weight).all() for weight in after)
    assert np.abs(after[0] - before[0]).max() > 0


@pytest.mark.parametrize("gamma", [False, True])
def test_vector_attention_allocates_no_tensor_of_tokens_by_tokens_by_channels(gamma):
    z = array((1, 256, 8), 0)
    layer = random_layer(VectorAttention(gamma=gamma), z.shape)
    direct = 256 * 256 * 8
    assert helpers.largest_intermediate(layer, z) <= direct // 16


@pytest.mark.parametrize("gamma", [False, True])
def test_vector_attention_gradient_allocates_no_tensor_of_tokens_by_tokens_by_channels(gamma):
    z = array((1, 256, 8), 0)
    layer = random_layer(VectorAttention(gamma=gamma), z.shape)

    def gradient(x):
        import jax

        return jax.grad(lambda x: ops.sum(ops.square(layer(x))))(x)

    assert helpers.largest_intermediate(gradient, z) <= 256 * 256 * 8 // 16


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"key_dim": 0}, ["key_dim=0"]),
        ({"value_dim": 2.5}, ["value_dim=2.5"]),
    ],
    ids=str,
)
def test_vector_attention_with_wrong_arguments_raises(arguments, words):
    refused(lambda: VectorAttention(**arguments), "VectorAttention", "Received: ", *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "arguments, shape, words",
    [
        ({"gamma": False, "value_dim": 4}, (2, 5, 8), ["gamma=False, key_dim=8, value_dim=4"]),
        ({}, (2, 5, None), ["(B, N, C)", "(2, 5, None)"]),
        ({}, (2, 4, 6, 8), ["(B, N, C)", "(2, 4, 6, 8)"]),
    ],
    ids=str,
)
def test_vector_attention_with_wrong_shapes_raises(arguments, shape, words):
    layer = VectorAttention(**arguments)
    refused(lambda: layer.build(shape), "VectorAttention", "Received: ", *words)


@pytest.mark.parametrize("form", [{}, {"gamma": True}, {"mask": True}], ids=str)
@pytest.mark.parametrize("half, atol", [("bfloat16", 2e-2), ("float16", 3e-3)])
def test_vector_attention_in_half_precision_is_near_float64(form, half, atol):
    """Queries and keys of 300 have products that float16 cannot hold."""
    form = dict(form)
    mask = np.tril(np.ones((1, 12, 12), bool)) if form.pop("mask", False) else None
    layer = VectorAttention(use_bias=False, dtype=f"mixed_{half}", **form)
    layer.build((1, 12, 8))
    identity = np.eye(8)
    scales = {"query": 300, "key": 300, "value": 1, "gamma": 1}
    for weight in layer.weights:
        weight.assign(
            scales[weight.path.split("/")[-2 if "kernel" in weight.path else -1]] * identity
        )
    z = keras.ops.cast(array((1, 12, 8), 0), half)
    found = run(layer, z, attention_mask=mask)
    z = keras.ops.convert_to_numpy(keras.ops.cast(z, "float32")).astype("float64")
    scaled = [keras.ops.cast(300 * z, "float32")] * 2
    q, k = (
        keras.ops.convert_to_numpy(keras.ops.cast(keras.ops.cast(x, half), "float32"))
        for x in scaled
    )
    logits = q.astype("float64")[:, :, None] * k.astype("float64")[:, None]
    if mask is not None:
        logits = np.where(mask[..., None], logits, -np.inf)
    exact = (helpers.softmax(logits, axis=2) * z[:, None]).sum(2)
    np.testing.assert_allclose(found, exact, atol=atol, rtol=atol)
