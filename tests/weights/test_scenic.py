"""Checkpoints of scenic's TokenLearner models, against outputs of the authors' own layers."""

from pathlib import Path

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model
from keras_tokenlearner.weights import load, plan_of
from tests.weights.foreign import build, refused

pytestmark = pytest.mark.once("torch")

REFERENCE = dict(np.load(Path(__file__).parents[1] / "data" / "reference_layers.npz"))
SIZES = {"hidden_dim": 16, "mlp_dim": 32, "num_tokens": 4, "reducer": "token_learner", "at": 1}
IMAGE = (48, 48)  # a grid of 6 x 6


def part(name, prefix):
    start = f"{name}|p|"
    return {
        f"{prefix}/{key.removeprefix(start)}": array
        for key, array in REFERENCE.items()
        if key.startswith(start)
    }


def tree(*extras):
    """Return a scenic checkpoint: two blocks, and the modules of `extras`."""
    rng = np.random.default_rng(0)
    entries = {
        "embedding/kernel": (8, 8, 3, 16),
        "embedding/bias": (16,),
        "Transformer/posembed_input/pos_embedding": (1, 36, 16),
        "Transformer/encoder_norm/scale": (16,),
        "Transformer/encoder_norm/bias": (16,),
        "output_projection/kernel": (16, 5),
        "output_projection/bias": (5,),
    }
    entries = {name: rng.normal(0, 0.2, shape) for name, shape in entries.items()}
    for i in range(2):
        entries |= part("block", f"Transformer/encoderblock_{i}")
    for extra in extras:
        entries |= extra
    return {"params": entries}


def run(model, name, *inputs):
    return keras.ops.convert_to_numpy(model.get_layer(name)(*inputs))


@pytest.mark.parametrize("name", ["v10_sum", "v11"])
def test_scenic_model_with_one_token_learner_gives_the_reference_outputs(name):
    module = "TokenLearnerModule_0" if name == "v10_sum" else "TokenLearnerModuleV11_0"
    entries = tree(part(name, f"Transformer/{module}"))
    model = build("scenic", entries, image=IMAGE, **SIZES)
    report = load(model, "scenic", entries)
    assert not report.left and not report.unused and not report.added
    for layer in ("block_0", "block_1"):
        block = run(model, layer, REFERENCE["block|in0"])
        np.testing.assert_allclose(block, REFERENCE["block|out"], atol=1e-5)
    tokens = run(model, "token_learner", REFERENCE[f"{name}|in0"])
    np.testing.assert_allclose(tokens, REFERENCE[f"{name}|out"], atol=1e-5)


def test_scenic_mlp_token_fusers_after_loading_give_the_reference_output_and_bias():
    modules = [part("v11", f"Transformer/TokenLearnerModuleV11_{j}") for j in range(2)]
    fusers = [part("fuser", f"Transformer/TokenFuser_{j}") for j in range(2)]
    fusers[1] = {name: array + 1 for name, array in fusers[1].items()}
    entries = tree(*modules, *fusers)
    config = plan_of(entries, "scenic").fields
    assert config["fuser_beta"] == "mlp" and config["token_attention"] == "mlp"
    model = build("scenic", entries, image=IMAGE, **(SIZES | {"at": 0}), fuser="token_fuser")
    report = load(model, "scenic", entries)
    assert not report.left and not report.unused
    tokens, inputs = REFERENCE["fuser|in0"], REFERENCE["fuser|in1"]
    fused = run(model, "token_fuser_0", tokens, inputs) - inputs
    np.testing.assert_allclose(fused, REFERENCE["fuser|out"], atol=1e-5)
    bias = model.get_layer("token_fuser_1").mix.bias
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(bias), REFERENCE["fuser|p|Dense_0/bias"] + 1
    )


def test_scenic_model_with_a_convolutional_token_fuser_loads_its_convolution():
    fuser = part("fuser", "Transformer/TokenFuser_0")
    fuser = {name: array for name, array in fuser.items() if "token_masking" not in name}
    kernel = np.random.default_rng(3).normal(size=(1, 1, 16, 4))
    fuser["Transformer/TokenFuser_0/Conv_0/kernel"] = kernel
    entries = tree(part("v10_sum", "Transformer/TokenLearnerModule_0"), fuser)
    model = build("scenic", entries, image=IMAGE, **SIZES, fuser="token_fuser")
    assert not load(model, "scenic", entries).left
    loaded = keras.ops.convert_to_numpy(model.get_layer("token_fuser_1").blend.kernel)
    np.testing.assert_allclose(loaded, kernel[0, 0].astype("float32"))


def test_scenic_vivit_loads_and_resizes_its_positions():
    entries = tree()["params"]
    rng = np.random.default_rng(4)
    entries["embedding/kernel"] = rng.normal(size=(2, 8, 8, 3, 16))
    entries["Transformer/posembed_input/pos_embedding"] = rng.normal(size=(1, 1 + 3 * 36, 16))
    entries["cls"] = rng.normal(size=(1, 1, 16))
    sizes = {"hidden_dim": 16, "mlp_dim": 32, "patch_size": (2, 8, 8)}
    model = build("scenic", entries, image=(6, *IMAGE), **sizes)
    assert not load(model, "scenic", entries).left
    table = model.get_layer("positions").get_weights()[0]
    positions = entries["Transformer/posembed_input/pos_embedding"][0].astype("float32")
    np.testing.assert_array_equal(table.reshape(-1, 16), positions[1:])
    longer = build("scenic", entries, image=(8, *IMAGE), **sizes)
    refused("pos_embedding.* 109 .*grid=None", longer, "scenic", entries)
    report = load(longer, "scenic", entries, grid=(3, 6, 6))
    assert report.resized == {"positions/table": "3x6x6 to 4x6x6, bilinear"}


def test_scenic_checkpoint_into_a_model_with_token_pooling_mean_raises():
    entries = tree(part("v10_sum", "Transformer/TokenLearnerModule_0"))
    model = build("scenic", entries, image=IMAGE, **SIZES, token_pooling="mean")
    refused("token_pooling.*'mean'.*'sum'", model, "scenic", entries)


@pytest.mark.parametrize(
    ("name", "module"),
    [("vit_pico8", "TokenLearnerModule_0"), ("tokenlearner_pico8_4at1", "TokenFuser_0")],
)
def test_create_model_with_scenic_weights_of_a_missing_layer_raises_and_names_the_layer(
    tmp_path, name, module
):
    """The user passed no config field of these layers, so the error names the layer instead."""
    learner, fuser = "Transformer/TokenLearnerModule_0", "Transformer/TokenFuser_0"
    entries = tree(part("v10_sum", learner), part("fuser", fuser))["params"]
    np.savez(tmp_path / "a.npz", **entries)
    sizes = {"hidden_dim": 16, "mlp_dim": 32, "input_shape": (*IMAGE, 3)}
    with pytest.raises(ValueError, match=rf"create_model\('{name}'\): .*{module}"):
        create_model(name, weights=f"scenic:{tmp_path}/a.npz", **sizes)


def test_scenic_head_after_pre_logits_is_loaded():
    entries = tree()
    entries["params"]["pre_logits/kernel"] = np.eye(16)
    entries["params"]["pre_logits/bias"] = np.zeros(16)
    plain = {"hidden_dim": 16, "mlp_dim": 32}
    model = build("scenic", entries, image=IMAGE, **plain, pre_logits=None)
    refused("pre_logits/kernel, params/pre_logits/bias", model, "scenic", entries)
    assert load(model, "scenic", entries, head="drop").left == ("head/kernel", "head/bias")
    model = build("scenic", entries, image=IMAGE, **plain)
    assert model.config.pre_logits == 16 and not load(model, "scenic", entries).left
    features = keras.ops.convert_to_numpy(run(model, "norm", np.ones((1, 36, 16)))).mean(1)
    np.testing.assert_allclose(run(model, "pre_logits", features), np.tanh(features), atol=1e-5)


def test_scenic_checkpoint_of_two_fusers_into_a_model_of_three_fusers_raises():
    modules = [part("v11", f"Transformer/TokenLearnerModuleV11_{j}") for j in range(2)]
    fusers = [part("fuser", f"Transformer/TokenFuser_{j}") for j in range(2)]
    entries = tree(*modules, *fusers)
    third = {
        name.replace("encoderblock_1", "encoderblock_2"): array
        for name, array in entries["params"].items()
        if "encoderblock_1" in name
    }
    entries["params"] |= third
    sizes = SIZES | {"at": 0, "num_layers": 3}
    model = build("scenic", entries, image=IMAGE, **sizes, fuser="token_fuser")
    refused(" 2 .*token_learner.* 3", model, "scenic", entries)


def test_scenic_fuser_without_token_norms_keeps_the_norm_of_its_inputs():
    """The authors' code builds this fuser with `use_normalization=False`."""
    fuser = {
        name: array
        for name, array in part("fuser", "Transformer/TokenFuser_0").items()
        if "fuser_mix_norm" not in name
    }
    entries = tree(part("v11", "Transformer/TokenLearnerModuleV11_0"), fuser)
    assert plan_of(entries, "scenic").fields["fuser_norm"] == "inputs"
    model = build("scenic", entries, image=IMAGE, **SIZES, fuser="token_fuser")
    report = load(model, "scenic", entries)
    assert not report.left and not report.unused
