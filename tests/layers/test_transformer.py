from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_tokenlearner.layers import TransformerBlock
from tests.conformance import array
from tests.layers import helpers
from tests.layers.helpers import close, random_layer, refused, run


def test_transformer_block_equals_the_code_of_the_authors():
    reference = helpers.Reference("block")
    norms = [reference(f"LayerNorm_{index}/scale", f"LayerNorm_{index}/bias") for index in (0, 1)]
    attention = reference(
        *(
            f"MultiHeadDotProductAttention_0/{name}/{part}"
            for name in ("query", "key", "value", "out")
            for part in ("kernel", "bias")
        )
    )
    mlp = reference(
        *(f"MlpBlock_0/Dense_{i}/{part}" for i in (0, 1) for part in ("kernel", "bias"))
    )
    layer = TransformerBlock(num_heads=2, mlp_dim=32)
    layer.build(reference.inputs[0].shape)
    layer.set_weights(norms[0] + attention + norms[1] + mlp)
    close(run(layer, *reference.inputs), reference.output)


@pytest.mark.parametrize("masked", [False, True])
def test_transformer_block_equals_its_equations(masked):
    x = array((2, 5, 8), 0)
    mask = (array((2, 5, 5), 1) > -0.5) | np.eye(5, dtype=bool) if masked else None
    layer = random_layer(TransformerBlock(num_heads=2), x.shape)
    expected = helpers.transformer_block(x, layer.get_weights(), mask)
    close(run(layer, x, attention_mask=mask), expected)
    assert layer.mlp.mlp_dim == 32


def copies(x, patches, prefix):
    """Repeat each token after the prefix once for each patch that it replaces."""
    return np.concatenate([x[:, :prefix], np.repeat(x[:, prefix:], patches, axis=1)], axis=1)


def take_weights(layer, plain):
    """Copy the weights of a plain block to a block with `num_patches`. Its patch bias stays 0."""
    own, *others = layer.get_weights()
    assert own == 0 and len(others) == len(plain.weights)
    layer.set_weights([own, *plain.get_weights()])


@pytest.mark.parametrize("masked", [False, True])
def test_transformer_block_with_num_patches_equals_a_plain_block_on_repeated_tokens(masked):
    """With 12 patches for 3 tokens, each token counts as 4 copies."""
    x = array((2, 5, 8), 0)
    plain = random_layer(TransformerBlock(num_heads=2), x.shape)
    layer = TransformerBlock(num_heads=2, num_patches=12, num_prefix_tokens=2)
    layer.build(x.shape)
    take_weights(layer, plain)
    mask = np.ones((2, 5, 5), bool) if masked else None
    expected = run(plain, copies(x, 4, 2))
    found = run(layer, x, attention_mask=mask)
    close(found[:, :2], expected[:, :2])
    close(found[:, 2:], expected[:, 2::4])
    layer.patch_bias.assign(-np.log(4.0))  # this bias cancels the effect of `num_patches`
    close(run(layer, x), run(plain, x))


def test_transformer_block_with_num_patches_gives_fewer_tokens_a_larger_weight_each():
    x = array((2, 5, 8), 0)
    plain = random_layer(TransformerBlock(num_heads=2), x.shape)
    layer = TransformerBlock(num_heads=2, num_patches=12, num_prefix_tokens=2)
    layer.build(x.shape)
    take_weights(layer, plain)
    close(run(layer, x[:, :4])[:, 0], run(plain, copies(x[:, :4], 6, 2))[:, 0])


def test_transformer_block_with_num_patches_without_prefix_tokens_adds_no_variable():
    layer = random_layer(TransformerBlock(num_heads=2, num_patches=12), (2, 5, 8))
    plain = random_layer(TransformerBlock(num_heads=2), (2, 5, 8))
    assert len(layer.weights) == len(plain.weights)
    x = array((2, 5, 8), 0)
    close(run(layer, x), run(plain, x))


@pytest.mark.parametrize("attention", ["dot_product", "vector"])
def test_transformer_block_with_a_causal_mask_hides_later_tokens(attention):
    x = array((2, 5, 8), 0)
    changed = np.concatenate([x[:, :3], array((2, 2, 8), 1)], axis=1)
    causal = np.tril(np.ones((2, 5, 5), dtype=bool))
    layer = random_layer(TransformerBlock(num_heads=2, attention=attention), x.shape)
    first, second = (run(layer, value, attention_mask=causal) for value in (x, changed))
    close(first[:, :3], second[:, :3])
    assert np.abs(first[:, 3:] - second[:, 3:]).max() > 0.1
    assert np.abs(run(layer, x)[:, 0] - run(layer, changed)[:, 0]).max() > 1e-3


def test_transformer_block_layer_scale_multiplies_each_branch():
    x = array((2, 5, 8), 0)
    plain = random_layer(TransformerBlock(num_heads=2), x.shape)
    scaled = TransformerBlock(num_heads=2, layer_scale=0.3)
    scaled.build(x.shape)
    scaled.attention_norm.set_weights(plain.attention_norm.get_weights())
    scaled.mlp_norm.set_weights(plain.mlp_norm.get_weights())
    for branch in ("self_attention", "mlp"):
        weights = getattr(plain, branch).get_weights()
        getattr(scaled, branch).set_weights(weights)
        weights[-2:] = [0.3 * weights[-2], 0.3 * weights[-1]]  # weights of the last linear layer
        getattr(plain, branch).set_weights(weights)
    close(run(scaled, x), run(plain, x))


def test_stochastic_depth_drops_whole_examples_in_training():
    x = array((64, 5, 8), 0)
    layer = random_layer(TransformerBlock(num_heads=2, drop_path_rate=0.5), x.shape)
    layer.self_attention.set_weights([0 * weight for weight in layer.self_attention.get_weights()])
    branch = run(layer, x) - x
    trained = run(layer, x, training=True) - x
    dropped = np.abs(trained).max((1, 2)) < 1e-6
    assert 0.2 < dropped.mean() < 0.8
    close(trained[~dropped], 2 * branch[~dropped], atol=1e-4)


def test_stochastic_depth_and_dropout_do_not_change_inference():
    x = array((2, 5, 8), 0)
    rates = {"drop_path_rate": 0.5, "dropout_rate": 0.5, "attention_dropout_rate": 0.5}
    plain = random_layer(TransformerBlock(num_heads=2), x.shape)
    dropping = random_layer(TransformerBlock(num_heads=2, **rates), x.shape)
    close(run(dropping, x, training=False), run(plain, x))
    assert np.abs(run(dropping, x, training=True) - run(plain, x)).max() > 1e-2


@pytest.mark.parametrize("rate", ["dropout_rate", "attention_dropout_rate"])
def test_transformer_block_dropout_rates_change_outputs_in_training(rate):
    x = array((2, 5, 8), 0)
    layer = random_layer(TransformerBlock(num_heads=2, **{rate: 0.5}), x.shape)
    assert np.abs(run(layer, x, training=True) - run(layer, x)).max() > 1e-3


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"num_heads": 0}, ["num_heads=0"]),
        ({"mlp_dim": 0}, ["mlp_dim=0"]),
        ({"attention": "vectors"}, ["attention='vectors'", "'vector'?"]),
        ({"dropout_rate": 1.5}, ["dropout_rate=1.5", "[0, 1)"]),
        ({"attention_dropout_rate": "0"}, ["attention_dropout_rate='0'", "[0, 1)"]),
        ({"drop_path_rate": -1}, ["drop_path_rate=-1", "[0, 1)"]),
        ({"layer_scale": -1e-5}, ["layer_scale=-1e-05"]),
        ({"layer_norm_epsilon": None}, ["layer_norm_epsilon=None"]),
        ({"num_patches": 0}, ["num_patches=0"]),
        ({"num_prefix_tokens": -1}, ["num_prefix_tokens=-1"]),
        ({"num_patches": 9, "attention": "vector"}, ["num_patches=9", "dot_product"]),
    ],
    ids=str,
)
def test_transformer_block_with_wrong_arguments_raises(arguments, words):
    arguments = {"num_heads": 2, **arguments}
    refused(lambda: TransformerBlock(**arguments), "TransformerBlock", "Received: ", *words)


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "shape, words",
    [
        ((2, 5, 8), ["num_heads=3", "8 channels"]),
        ((2, 4, 6, 9), ["(B, N, C)", "(2, 4, 6, 9)"]),
        ((2, 5, None), ["shape=(2, 5, None)"]),
    ],
    ids=str,
)
def test_transformer_block_with_wrong_shapes_raises(shape, words):
    layer = TransformerBlock(num_heads=3)
    refused(lambda: layer.build(shape), "TransformerBlock", "Received: ", *words)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only on jax: flash attention on TPUs")
def test_flash_attention_on_tpus_is_off(monkeypatch):
    import jax

    tpu = SimpleNamespace(platform="tpu", device_kind="TPU", id=0)
    monkeypatch.setattr(jax, "devices", lambda *args, **kwargs: [tpu])
    x = np.ones((1, 128, 64), "float32")
    layer = TransformerBlock(num_heads=1)
    layer.build(x.shape)
    weights = [weight.value for weight in layer.trainable_variables]
    state = [weight.value for weight in layer.non_trainable_variables]
    program = str(jax.make_jaxpr(lambda x: layer.stateless_call(weights, state, x)[0])(x))
    assert "pallas_call" not in program
    assert keras.config.is_flash_attention_enabled() is None


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "changes",
    [
        {"qk_norm": True},
        {"qkv_bias": "none"},
        {"attention_bias": False},
        {"attention_inner_norm": True},
        {"attention_dropout_rate": 0.1},
        {"rotary": "half"},
    ],
    ids=str,
)
def test_transformer_block_options_without_effect_on_vector_attention_raise(changes):
    ((name, value),) = changes.items()
    refused(
        lambda: TransformerBlock(2, attention="vector", **changes),
        "attention='vector'",
        f"{name}={value!r}",
    )


def test_transformer_block_rotation_without_rotary_raises():
    x, table = array((2, 5, 8), 0), array((2, 5, 1, 8), 1)
    refused(lambda: TransformerBlock(2)(x, table), "rotation", "rotary=None")
