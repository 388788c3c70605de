import numpy as np
import pytest

from keras_tokenlearner.analysis.costs import count
from keras_tokenlearner.layers import AttentionPooling
from tests.conformance import array
from tests.layers import helpers
from tests.layers.helpers import close, layer_norm, random_layer, refused, run
from tests.skips import peer


@pytest.mark.parametrize("tokens", [1, 5, 300])
def test_attention_pooling_equals_attention_from_a_latent_and_a_residual_mlp(tokens):
    x = array((2, tokens, 8), 0)
    layer = random_layer(AttentionPooling(2, mlp_dim=12), x.shape)
    latent, *weights = layer.get_weights()
    query = np.broadcast_to(latent, (2, 1, 8))
    pooled = helpers.multi_head_attention(query, x, weights[:8])
    expected = pooled + helpers.mlp(layer_norm(pooled, *weights[8:10]), *weights[10:])
    close(run(layer, x), expected[:, 0])
    bare = AttentionPooling(2, mlp_dim=0)
    bare.build(x.shape)
    bare.set_weights(layer.get_weights()[:9])
    close(run(bare, x), pooled[:, 0])


def test_attention_pooling_cost_equals_a_manual_count_for_one_query():
    layer = AttentionPooling(2, mlp_dim=12)
    layer.build((None, 5, 8))
    projections = 8 * 8 + 5 * 2 * 8 * 8 + 8 * 8
    assert count(layer, (5, 8)).macs == projections + 2 * 5 * 8 + 2 * 8 * 12


@pytest.mark.once("torch")
@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"num_heads": 0}, ["num_heads=0"]),
        ({"num_heads": 3}, ["num_heads=3", "8 channels"]),
        ({"mlp_dim": -1}, ["mlp_dim=-1"]),
        ({"norm": "batch"}, ["norm='batch'", "'layer_norm'"]),
        ({"activation": "gelo"}, ["activation='gelo'"]),
        ({"layer_norm_epsilon": 0}, ["layer_norm_epsilon=0"]),
    ],
    ids=str,
)
def test_attention_pooling_with_wrong_arguments_raises(arguments, words):
    refused(
        lambda: AttentionPooling(**{"num_heads": 2, **arguments}).build((None, 5, 8)),
        "AttentionPooling: ",
        "Received: ",
        *words,
    )


@pytest.mark.peers
@pytest.mark.parametrize("norm", [True, False])
def test_attention_pooling_equals_timm_only_if_the_pooling_of_timm_has_a_norm(norm):
    peer("timm")
    import torch
    from timm.layers import AttentionPoolLatent

    theirs = AttentionPoolLatent(
        8, num_heads=2, mlp_ratio=1.5, norm_layer=torch.nn.LayerNorm if norm else None
    )
    with torch.no_grad():
        for seed, parameter in enumerate(theirs.parameters()):
            parameter.copy_(torch.from_numpy(array(tuple(parameter.shape), seed)))
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    x = array((2, 5, 8), 0)
    layer = AttentionPooling(2, mlp_dim=12, activation="gelu", layer_norm_epsilon=1e-5)
    layer.build(x.shape)
    key, value = np.split(state["kv.weight"].T, 2, axis=1)
    key_bias, value_bias = np.split(state["kv.bias"], 2)
    values = {
        "latent": state["latent"][0],
        "attention/query/kernel": state["q.weight"].T.reshape(8, 2, 4),
        "attention/query/bias": state["q.bias"].reshape(2, 4),
        "attention/key/kernel": key.reshape(8, 2, 4),
        "attention/key/bias": key_bias.reshape(2, 4),
        "attention/value/kernel": value.reshape(8, 2, 4),
        "attention/value/bias": value_bias.reshape(2, 4),
        "attention/attention_output/kernel": state["proj.weight"].T.reshape(2, 4, 8),
        "attention/attention_output/bias": state["proj.bias"],
        "mlp_norm/gamma": state.get("norm.weight", np.ones(8)),
        "mlp_norm/beta": state.get("norm.bias", np.zeros(8)),
        "mlp/hidden/kernel": state["mlp.fc1.weight"].T,
        "mlp/hidden/bias": state["mlp.fc1.bias"],
        "mlp/output/kernel": state["mlp.fc2.weight"].T,
        "mlp/output/bias": state["mlp.fc2.bias"],
    }
    paths = [weight.path.removeprefix(f"{layer.name}/") for weight in layer.weights]
    assert set(paths) == set(values)
    layer.set_weights([values[path] for path in paths])
    if norm:
        expected = theirs(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(run(layer, x), expected, atol=1e-4 * np.abs(expected).max())
    else:
        assert not np.allclose(run(layer, x), theirs(torch.from_numpy(x)).detach().numpy(), atol=1)
