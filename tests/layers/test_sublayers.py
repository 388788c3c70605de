"""On PyTorch, sublayers skip the work that the outer call has done, with equal results."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_tokenlearner.layers import TransformerBlock, sublayers
from tests.conformance import array, assign_weights

pytestmark = [
    pytest.mark.once("torch"),
    pytest.mark.skipif(
        keras.backend.backend() != "torch", reason="only on torch: others use Keras's calls"
    ),
]

RATES = {"dropout_rate": 0.3, "attention_dropout_rate": 0.2, "drop_path_rate": 0.4}
NORMS = {"norm": "rms_norm", "qk_norm": True, "attention_inner_norm": True, "mlp_inner_norm": True}
BLOCKS = {
    "default": {},
    "dropout": RATES,
    "layer scale": {"layer_scale": 0.5, "gated_mlp": True, "activation": "silu"},
    "norms": NORMS,
    "patch bias": {"num_patches": 12, "num_prefix_tokens": 2},
    "vector attention": {"attention": "vector"},
}
POLICIES = ("float32", "mixed_bfloat16", "bfloat16")


def made(changes, policy="float32"):
    """Return a built block. Weights and seeds are random, but equal in all calls."""
    keras.utils.set_random_seed(0)
    block = TransformerBlock(2, name="block", dtype=policy, **changes)
    block.build((3, 5, 8))
    assign_weights(block)
    return block


def answers(block, training):
    """Return the output of a block, and the gradients of its inputs and weights."""
    x = ops.convert_to_tensor(array((3, 5, 8), 0)).requires_grad_()
    y = block(x, training=training)
    (y.float() ** 2).sum().backward()
    grads = [x.grad, *(variable.value.grad for variable in block.trainable_variables)]
    return [ops.convert_to_numpy(value.float()) for value in (y, *grads)]


@pytest.fixture
def called(monkeypatch):
    """Return the list of the layers that run all of `keras.Layer.__call__`."""
    found, call = [], keras.Layer.__call__

    def counted(self, *args, **kwargs):
        found.append(self.name)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(keras.Layer, "__call__", counted)
    return found


def assert_equal_to_plain_calls(make, monkeypatch, training=False):
    """Assert that a block equals the block whose sublayers run `keras.Layer.__call__`."""
    found = answers(make(), training)
    monkeypatch.setattr(sublayers, "_is_prepared", lambda *given: False)
    for one, other in zip(found, answers(make(), training), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", BLOCKS)
def test_transformer_block_equals_a_block_whose_sublayers_run_keras_layer_call(
    name, policy, training, monkeypatch
):
    assert_equal_to_plain_calls(lambda: made(BLOCKS[name], policy), monkeypatch, training)


@pytest.mark.filterwarnings("ignore:.*quantize.*")
@pytest.mark.parametrize("policy", POLICIES[:2])
@pytest.mark.parametrize("change", ["lora", "quantized"])
def test_transformer_block_with_lora_or_int8_equals_a_block_whose_sublayers_run_keras_layer_call(
    change, policy, monkeypatch
):
    def make():
        block = made({}, policy)
        parts = block.mlp.hidden, block.mlp.output_dense, block.self_attention.query_dense
        for part in parts:
            if change == "lora":
                part.enable_lora(2)
                part.lora_kernel_b.assign(array(part.lora_kernel_b.shape, 0))
            else:
                part.quantize("int8")
        return block

    before, after = answers(made({}, policy), False)[0], answers(make(), False)[0]
    assert np.abs(before - after).max() > 1e-3
    assert_equal_to_plain_calls(make, monkeypatch)


def test_transformer_block_in_training_calls_no_sublayer_through_keras(called):
    block = made({**NORMS, "layer_scale": 0.5, **RATES, "attention_dropout_rate": 0.0})
    block(ops.convert_to_tensor(array((3, 5, 8), 0)), training=True)
    assert called == ["block"]


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_transformer_block_runs_the_torch_hooks_of_its_sublayers(hook):
    block, found = made({}), []
    for part in (block.mlp, block.attention_norm, block.self_attention):
        getattr(part, hook)(lambda module, *given: found.append(module.name))
    block(ops.convert_to_tensor(array((3, 5, 8), 0)))
    assert found == ["attention_norm", "self_attention", "mlp"]


@pytest.mark.parametrize(
    "change",
    [
        lambda block: setattr(block.mlp, "dtype_policy", "float32"),
        lambda block: setattr(block.mlp, "autocast", False),
        lambda block: setattr(block, "autocast", False),
        lambda block: setattr(block.mlp, "activity_regularizer", keras.regularizers.L2(1)),
    ],
    ids=["policy", "autocast", "autocast of the owner", "regularizer"],
)
def test_sublayer_with_its_own_policy_or_a_regularizer_runs_the_call_of_keras(change, called):
    block = made({}, "mixed_bfloat16")
    change(block)
    block(ops.convert_to_tensor(array((3, 5, 8), 0)))
    assert called[0] == "block" and "mlp" in called


class OwnCall(keras.layers.LayerNormalization):
    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs)


def replaced(norm, monkeypatch, build=True):
    """Return a block with another layer as the norm of its MLP."""
    make = TransformerBlock._norm

    def replace(block, shape, name):
        if name != "mlp_norm":
            return make(block, shape, name)
        norm.dtype_policy = block.dtype_policy
        if build:
            norm.build(shape)
        return norm

    monkeypatch.setattr(TransformerBlock, "_norm", replace)
    return made({})


def test_unbuilt_sublayer_runs_the_call_of_keras_once(called, monkeypatch):
    norm = keras.layers.LayerNormalization(name="mlp_norm")
    block = replaced(norm, monkeypatch, build=False)
    for _ in range(2):
        block(ops.convert_to_tensor(array((3, 5, 8), 0)))
    assert called == ["block", "mlp_norm", "block"]


def test_sublayer_with_a_custom_call_runs_the_custom_call(called, monkeypatch):
    block = replaced(OwnCall(name="mlp_norm"), monkeypatch)
    block(ops.convert_to_tensor(array((3, 5, 8), 0)))
    assert called == ["block", "mlp_norm"]


def test_transformer_block_with_an_activity_regularizer_in_its_mlp_has_one_loss():
    block = made({})
    block.mlp.activity_regularizer = keras.regularizers.L2(1)
    block(ops.convert_to_tensor(array((3, 5, 8), 0)))
    assert len(block.losses) == 1


@pytest.mark.filterwarnings("ignore:.*mask.*")
def test_transformer_block_with_a_keras_mask_on_its_inputs_ignores_masked_tokens():
    def run(last):
        x = ops.convert_to_tensor(np.concatenate([array((1, 4, 8), 0), last], axis=1))
        x._keras_mask = ops.convert_to_tensor([[True] * 4 + [False]])
        return ops.convert_to_numpy(made({})(x))[:, :4]

    first, second = (run(array((1, 1, 8), seed)) for seed in (1, 2))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_sublayer_with_a_training_argument_receives_the_argument(called, monkeypatch):
    block = replaced(keras.layers.Dropout(0.99, name="mlp_norm"), monkeypatch)
    x = ops.convert_to_tensor(array((3, 5, 8), 0))
    still, trained = (ops.convert_to_numpy(block(x, training=flag)) for flag in (False, True))
    assert np.abs(still - trained).max() > 1e-3
    assert called == ["block", "block"]
