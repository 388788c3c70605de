"""`MultiHeadAttention`, compared with the layer of Keras and with the equations."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_tokenlearner.analysis.costs import count
from keras_tokenlearner.layers.multi_head_attention import MultiHeadAttention
from tests.conformance import array
from tests.layers.helpers import close, layer_norm, random_layer, refused, rms_norm, run, softmax

# Query tokens, key tokens, key_dim. Few, many and very many tokens take different code paths.
SIZES = [(5, 5, 4), (150, 150, 8), (300, 3, 4), (20, 900, 4), (2051, 20, 4)]


def both(key_dim, **arguments):
    """Return our layer and Keras's layer with the same weights."""
    ours = MultiHeadAttention(3, key_dim, **arguments)
    theirs = keras.layers.MultiHeadAttention(3, key_dim, **arguments)
    for layer in (ours, theirs):
        layer.build((None, None, 12), (None, None, 12))
    theirs.set_weights(ours.get_weights())
    return ours, theirs


@pytest.mark.parametrize(("queries", "keys", "key_dim"), SIZES)
def test_multi_head_attention_equals_keras_in_inference_and_training(queries, keys, key_dim):
    ours, theirs = both(key_dim)
    random = np.random.default_rng(0)
    query, value = (random.normal(size=(2, n, 12)).astype("float32") for n in (queries, keys))
    target = random.normal(size=(2, queries, 12)).astype("float32")
    trained = []
    for layer in (ours, theirs):
        inputs = keras.Input((queries, 12)), keras.Input((keys, 12))
        model = keras.Model(inputs, layer(*inputs))
        model.compile(keras.optimizers.SGD(10.0), "mse")
        output = model.predict_on_batch([query, value])
        model.train_on_batch([query, value], target)
        eager = ops.convert_to_numpy(layer(query, value))
        trained.append([output, eager, *layer.get_weights()])
    for found, wanted in zip(*trained, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5, rtol=1e-4)


CALLS = ["mask", "query_mask", "causal", "scores", "dropout", "float16", "bfloat16"]


@pytest.mark.parametrize("call", CALLS)
def test_multi_head_attention_with_masks_scores_or_dtypes_equals_keras(call):
    if call == "bfloat16" and keras.backend.backend() == "torch":
        pytest.skip("only on tensorflow and jax: torch uses our own products")
    arguments = {name: {"dtype": f"mixed_{name}"} for name in ("float16", "bfloat16")}
    arguments["dropout"] = {"dropout": 0.5}
    ours, theirs = both(4, **arguments.get(call, {}))
    x = np.random.default_rng(0).normal(size=(2, 150, 12)).astype("float32")
    mask = np.tri(150, dtype="bool")[None]
    options = {"mask": {"attention_mask": mask}, "scores": {"return_attention_scores": True}}
    options["query_mask"] = {"query_mask": np.arange(150)[None] < [[100], [150]]}
    options["causal"] = {"use_causal_mask": True}
    found, wanted = (layer(x, x, **options.get(call, {})) for layer in (ours, theirs))
    for one, other in zip(keras.tree.flatten(found), keras.tree.flatten(wanted), strict=True):
        one, other = (ops.convert_to_numpy(ops.cast(x, "float32")) for x in (one, other))
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("tokens", [20, 1100])
def test_bfloat16_attention_is_as_accurate_as_keras(tokens):
    exact, _ = both(8)
    ours, theirs = both(8, dtype="mixed_bfloat16")
    start = exact.get_weights()
    x, target = np.random.default_rng(0).normal(size=(2, 2, tokens, 12)).astype("float32")
    found = []
    for layer in (exact, ours, theirs):
        layer.set_weights(start)
        inputs = keras.Input((tokens, 12))
        model = keras.Model(inputs, layer(inputs, inputs))
        model.compile(keras.optimizers.SGD(1.0), "mse")
        output = model.predict_on_batch(x)
        model.train_on_batch(x, target)
        step = [after - before for after, before in zip(layer.get_weights(), start, strict=True)]
        found.append([np.ravel(output), np.concatenate([part.ravel() for part in step])])
    for right, one, other in zip(*found, strict=True):
        error, allowed = (np.linalg.norm(x - right) / np.linalg.norm(right) for x in (one, other))
        assert 0 < error < min(0.03, 1.3 * allowed)


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="only on torch: others have no fused attention"
)
def test_torch_attention_is_fused_except_for_few_tokens_in_bfloat16(monkeypatch):
    import torch

    called, fused = [], torch.nn.functional.scaled_dot_product_attention

    def counted(*arguments, **options):
        called.append(1)
        return fused(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    for dtype, tokens, wanted in (("bfloat16", 20, 0), ("bfloat16", 1100, 1), ("float32", 20, 1)):
        layer, _ = both(8, dtype=f"mixed_{dtype}" if dtype == "bfloat16" else dtype)
        x = np.ones((1, tokens, 12), "float32")
        called.clear()
        layer(x, x)
        assert len(called) == wanted, (dtype, tokens)


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="only on jax: others compute all heads together"
)
@pytest.mark.parametrize(("tokens", "weights"), [(256, 256 * 256), (3000, 1000 * 3000)])
def test_jax_attention_stores_the_weights_of_one_head_or_query_group(tokens, weights, monkeypatch):
    import jax

    layer, _ = both(8)
    x = np.ones((2, tokens, 12), "float32")

    def memory():
        compiled = jax.jit(lambda x: layer(x, x)).lower(x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory() < 3 * 4 * weights  # less than the weights of six heads
    monkeypatch.setattr(keras.distribution, "distribution", lambda: object())
    assert memory() >= 2 * 3 * 4 * tokens**2  # on several devices, all heads are computed together


# Options of ViTs. As above, few and many tokens take different code paths.
TOKENS = [5, 150, 1030]


def turned(x, table):
    """Rotate pairs of neighbouring channels, as complex numbers, by cosines and sines."""
    cosines, sines = np.split(table, 2, axis=-1)
    pairs = (x[..., ::2] + 1j * x[..., 1::2]) * (cosines[..., ::2] + 1j * sines[..., 1::2])
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)


def rotation_table(tokens, size, heads=1):
    """Return a table of random angles, in the form of `RotaryPositions`."""
    angles = np.repeat(array((2, tokens, heads, size // 2), 7), 2, axis=-1)
    signs = np.resize([-1.0, 1.0], size)
    return np.concatenate([np.cos(angles), np.sin(angles) * signs], axis=-1).astype("float32")


def expected(layer, x, norm, table=None, mask=None):
    """Return attention with every option, in NumPy, from the weights of a layer."""
    weights = {
        w.path.split("/", 1)[1]: np.asarray(v)
        for w, v in zip(layer.weights, layer.get_weights(), strict=True)
    }

    def project(name, equation, value):
        bias = weights.get(f"{name}/bias", 0.0)
        return np.einsum(equation, value, weights[f"{name}/kernel"]) + bias

    def normalised(name, value):
        given = [v for path, v in weights.items() if path.startswith(f"{name}_norm/")]
        return norm(value, *given) if given else value

    q, k, v = (project(name, "bnc,chd->bnhd", x) for name in ("query", "key", "value"))
    q, k = normalised("query", q), normalised("key", k)
    if table is not None:
        q, k = turned(q, table), turned(k, table)
    logits = np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(q.shape[-1])
    if mask is not None:
        logits = np.where(mask, logits, -np.inf)
    heads = np.einsum("bhnm,bmhd->bnhd", softmax(logits, -1), v)
    joined = normalised("output", heads.reshape(*x.shape[:2], -1))
    return project("attention_output", "bnhd,hdc->bnc", joined.reshape(heads.shape))


ADDED = {
    "no_bias": {"qkv_bias": "none", "output_bias": False},
    "no_key_bias": {"qkv_bias": "query_value"},
    "qk_norm": {"qk_norm": "rms_norm"},
    "inner_norm": {"inner_norm": "layer_norm"},
    "rotary": {"rotary": "interleaved"},
    "all": {
        "rotary": "interleaved",
        "qk_norm": "layer_norm",
        "inner_norm": "layer_norm",
        "qkv_bias": "none",
    },
}


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("name", ADDED)
def test_attention_options_equal_their_equations_on_every_code_path(name, tokens):
    added = ADDED[name]
    norm = rms_norm if "rms_norm" in added.values() else layer_norm
    x = array((2, tokens, 12), 0)
    layer = random_layer(MultiHeadAttention(3, 4, name="attention", **added), x.shape, x.shape)
    table = rotation_table(tokens, 4, heads=3) if "rotary" in added else None
    options = {} if table is None else {"rotation": table}
    close(run(layer, x, x, **options), expected(layer, x, norm, table), 2e-5)
    mask = np.tri(tokens, dtype="bool")[None]
    found = run(layer, x, x, attention_mask=mask, **options)
    close(found, expected(layer, x, norm, table, mask), 2e-5)
    found, scores = layer(x, x, return_attention_scores=True, **options)
    close(ops.convert_to_numpy(found), expected(layer, x, norm, table), 2e-5)
    assert tuple(scores.shape) == (2, 3, tokens, tokens)


@pytest.mark.parametrize("tokens", TOKENS[1:])
def test_attention_options_train_equally_on_the_fast_and_the_keras_path(tokens):
    x, target = array((2, 2, tokens, 12), 0)
    trained, start = [], None
    for masked in (False, True):
        layer = MultiHeadAttention(3, 4, **ADDED["all"])
        inputs = keras.Input((tokens, 12)), keras.Input((tokens, 1, 8))
        mask = {"attention_mask": np.ones((1, tokens, tokens), "bool")} if masked else {}
        model = keras.Model(inputs, layer(inputs[0], inputs[0], rotation=inputs[1], **mask))
        start = start or layer.get_weights()
        layer.set_weights(start)
        model.compile(keras.optimizers.SGD(10.0), "mse")
        model.train_on_batch([x, rotation_table(tokens, 4)], target)
        trained.append(layer.get_weights())
    for one, other, before in zip(*trained, start, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5, rtol=1e-3)
        assert np.abs(one - before).max() > 1e-6


def test_attention_options_add_elementwise_operations_to_the_cost():
    plain, added = MultiHeadAttention(3, 4), MultiHeadAttention(3, 4, **ADDED["all"])
    for layer in (plain, added):
        layer.build((None, 5, 12), (None, 5, 12))
    shapes = (5, 12), (5, 12), (5, 12)
    one, other = count(plain, *shapes), count(added, *shapes, (5, 1, 8))
    assert one.macs == other.macs
    more = 2 * 7 * 5 * 12 + 7 * 5 * 12 + 2 * 3 * 5 * 12 - 3 * 5 * 12  # norms, rotations, biases
    assert other.elementwise - one.elementwise == more


def test_attention_options_without_effect_or_with_unknown_values_raise():
    layer = MultiHeadAttention(3, 4)
    x = array((2, 5, 12), 0)
    refused(lambda: layer(x, x, rotation=rotation_table(5, 4)), "rotation", "rotary=None")
    for added in ({"qkv_bias": "key"}, {"qk_norm": True}, {"inner_norm": "norm"}, {"rotary": "xy"}):
        ((name, value),) = added.items()
        refused(lambda a=added: MultiHeadAttention(3, 4, **a), f"{name}={value!r}")


def attention_by_hand(layer, x, bias, mask=None):
    """Return outputs and attention weights in float64. `bias` has one number for each key."""
    weights = [array.astype("float64") for array in layer.get_weights()]
    (wq, bq), (wk, bk), (wv, bv), (wo, bo) = zip(weights[::2], weights[1::2], strict=True)
    q, k, v = (np.einsum("bnc,chd->bnhd", x, w) + b for w, b in ((wq, bq), (wk, bk), (wv, bv)))
    logits = np.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(q.shape[-1]) + bias
    if mask is not None:
        logits = np.where(mask[:, None], logits, -1e9)
    maps = np.exp(logits - logits.max(-1, keepdims=True))
    maps /= maps.sum(-1, keepdims=True)
    return np.einsum("bihd,hdc->bic", np.einsum("bhij,bjhd->bihd", maps, v), wo) + bo, maps


@pytest.mark.parametrize("tokens", [5, 150, 1100])
def test_key_bias_is_added_to_the_logits_of_each_key(tokens):
    layer, _ = both(4)
    random = np.random.default_rng(0)
    x = random.normal(size=(2, tokens, 12)).astype("float32")
    bias = random.normal(size=tokens).astype("float32") * 2
    expected, _ = attention_by_hand(layer, x, bias)
    found = ops.convert_to_numpy(layer(x, x, key_bias=bias))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    inner = keras.layers.Lambda(lambda x: layer(x, x, key_bias=bias), output_shape=(tokens, 12))
    inputs = keras.Input((tokens, 12))
    compiled = keras.Model(inputs, inner(inputs)).predict(x, verbose=0)
    np.testing.assert_allclose(compiled, expected, atol=2e-5)


def test_key_bias_with_mask_scores_or_dropout_equals_the_equation():
    layer, _ = both(4)
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 6, 12)).astype("float32")
    bias = random.normal(size=6).astype("float32")
    mask = np.tri(6, dtype="bool")[None].repeat(2, 0)
    expected, maps = attention_by_hand(layer, x, bias, mask)
    found = ops.convert_to_numpy(layer(x, x, attention_mask=mask, key_bias=bias))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    options = {"attention_mask": mask, "key_bias": bias, "return_attention_scores": True}
    for one, other in zip(layer(x, x, **options), (expected, maps), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(one), other, atol=1e-5)
    dropping, _ = both(4, dropout=0.5)
    dropping.set_weights([*layer.get_weights()])
    still = ops.convert_to_numpy(dropping(x, x, attention_mask=mask, key_bias=bias))
    np.testing.assert_allclose(still, expected, atol=1e-5)
    drops = dropping(x, x, attention_mask=mask, key_bias=bias, training=True)
    assert np.abs(ops.convert_to_numpy(drops) - expected).max() > 1e-2


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_attention_with_key_bias_in_half_precision_is_near_float32(dtype):
    layer, _ = both(4, dtype=dtype)
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 20, 12)).astype("float32")
    bias = np.where(np.arange(20) < 5, 0, np.log(4)).astype("float32")
    expected, _ = attention_by_hand(layer, x, bias)
    found = ops.convert_to_numpy(ops.cast(layer(x, x, key_bias=bias), "float32"))
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize("tokens", [5, 150])
def test_key_bias_gradient_equals_the_finite_difference(tokens):
    """One step of SGD changes the bias by the negative gradient."""

    class Biased(keras.layers.Layer):
        def build(self, shape):
            self.bias = self.add_weight(shape=(), initializer="zeros")

        def call(self, x):
            bias = ops.pad(ops.broadcast_to(self.bias, (tokens - 2,)), ((2, 0),))
            return layer(x, x, key_bias=bias)

    layer, _ = both(4)
    layer.trainable = False
    random = np.random.default_rng(0)
    x, target = random.normal(size=(2, 2, tokens, 12)).astype("float32")
    biased, inputs = Biased(), keras.Input((tokens, 12))
    model = keras.Model(inputs, biased(inputs))
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.train_on_batch(x, target)

    def loss(value):
        bias = np.where(np.arange(tokens) < 2, 0, value)
        return np.square(attention_by_hand(layer, x, bias)[0] - target).mean()

    step = -float(ops.convert_to_numpy(biased.bias))
    assert step == pytest.approx((loss(1e-4) - loss(-1e-4)) / 2e-4, rel=1e-3, abs=1e-7)


def test_key_bias_with_the_causal_mask_equals_the_equation():
    layer, _ = both(4)
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 6, 12)).astype("float32")
    bias = random.normal(size=6).astype("float32")
    causal = np.tri(6, dtype="bool")[None].repeat(2, 0)
    expected, _ = attention_by_hand(layer, x, bias, causal)
    found = ops.convert_to_numpy(layer(x, x, use_causal_mask=True, key_bias=bias))
    np.testing.assert_allclose(found, expected, atol=1e-5)
