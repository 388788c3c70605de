import json
from dataclasses import FrozenInstanceError, asdict, fields

import numpy as np
import pytest

from keras_tokenlearner.models import VisionTransformerConfig
from tests.layers.helpers import refused

pytestmark = pytest.mark.once("torch")

SMALL = {"hidden_dim": 16, "num_layers": 4, "num_heads": 2, "patch_size": (4, 4)}
LEARNER = {"reducer": "token_learner"}
VIDEO = {"patch_size": (2, 4, 4)}


def config(**changes):
    return VisionTransformerConfig(**{**SMALL, **changes})


def test_config_saved_and_loaded_as_json_is_equal():
    first = config(**VIDEO, reducer="spatial_pooling", pool_size=[2, 3])
    second = VisionTransformerConfig(**json.loads(json.dumps(asdict(first))))
    assert second == first and hash(second) == hash(first)
    assert second.patch_size == (2, 4, 4) and second.pool_size == (2, 3)
    first = config(stem=[[8, 2], [8, 2]])
    second = VisionTransformerConfig(**json.loads(json.dumps(asdict(first))))
    assert second == first and second.stem == ((8, 2), (8, 2))


def test_config_fields_cannot_be_assigned():
    with pytest.raises(FrozenInstanceError):
        config().num_layers = 5
    assert config().num_layers == 4


def test_config_docstring_describes_every_field():
    undocumented = [
        field.name
        for field in fields(VisionTransformerConfig)
        if f"\n        {field.name}: " not in VisionTransformerConfig.__doc__
    ]
    assert undocumented == []


@pytest.mark.parametrize(
    "changes, place",
    [({}, 4), (LEARNER, 2), ({**LEARNER, "at": 0}, 0), ({**LEARNER, "at": 4}, 4)],
    ids=str,
)
def test_config_place_equals_at_and_defaults_to_half_the_depth(changes, place):
    assert config(**changes).place == place


@pytest.mark.parametrize(
    ("changes", "rotates"),
    [
        ({"rotary": "centred"}, True),
        ({"rotary": "index", "rotary_tokens": "centre_of_mass"}, True),
        ({"rotary": "centred", "rotary_tokens": "none"}, False),
        ({"rotary": "learned"}, False),
        ({"rotary": "index", **VIDEO}, False),
        ({"rotary": "index", "over": "space_time", **VIDEO}, True),
        ({}, False),
    ],
    ids=str,
)
def test_config_rotates_tokens_is_true_for_fixed_rotary_except_per_frame(changes, rotates):
    assert config(**LEARNER, **changes).rotates_tokens is rotates
    assert not config(rotary="centred").rotates_tokens


@pytest.mark.parametrize(
    "class_token, registers, count", [(False, 0, 0), (True, 0, 1), (True, 4, 5)]
)
def test_config_num_prefix_tokens_counts_the_class_token_and_register_tokens(
    class_token, registers, count
):
    assert config(class_token=class_token, register_tokens=registers).num_prefix_tokens == count


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"hidden_dim": 0}, ["hidden_dim=0"]),
        ({"num_layers": "12"}, ["num_layers='12'"]),
        ({"num_heads": True}, ["num_heads=True"]),
        ({"stem": "convolutions"}, ["stem='convolutions'"]),
        ({"stem": ((8, 2),)}, ["stem=((8, 2),)", "(2, 2)", "patch_size=(4, 4)"]),
        ({"stem": ((8, 4),), **VIDEO}, ["stem=((8, 4),)", "patch_size=(2, 4, 4)"]),
        ({"num_heads": 3}, ["`num_heads`", "num_heads=3, hidden_dim=16"]),
        ({"num_tokens": 2.5}, ["num_tokens=2.5"]),
        ({"mlp_dim": 0}, ["mlp_dim=0"]),
        ({"register_tokens": -1}, ["register_tokens=-1"]),
        ({"patch_size": 4}, ["patch_size=4"]),
        ({"patch_size": (4, 0)}, ["patch_size=(4, 0)"]),
        ({"patch_size": (4, 2**40)}, ["patch_size=(4, 1099511627776)", "2147483647"]),
        ({"stem": ((8,),)}, ["`stem`", "stem=((8,),)"]),
        ({"stem": ((8, 2), (8, "2"))}, ["`stem`", "stem=((8, 2), (8, '2'))"]),
        ({"pool_size": (2, 2, 2)}, ["pool_size=(2, 2, 2)"]),
        ({"dropout_rate": 1}, ["dropout_rate=1", "[0, 1)"]),
        ({"drop_path_rate": -0.1}, ["drop_path_rate=-0.1"]),
        ({"layer_scale": 0}, ["layer_scale=0"]),
        ({"layer_norm_epsilon": 0}, ["layer_norm_epsilon=0"]),
        ({"num_tokens": 3}, ["`num_tokens`", "num_tokens=3"]),
        ({"token_attention": "mlp"}, ["`token_attention`", "'mlp'"]),
        ({"pool_size": (3, 3), "reducer": "token_learner"}, ["`pool_size`", "(3, 3)"]),
        ({"fuser_beta": "mlp", "reducer": "token_learner"}, ["`fuser_beta`", "'mlp'"]),
        ({"activation": "gelu_tan"}, ["activation='gelu_tan'", "'gelu_tanh'"]),
        ({"reducer": "tokenlearner"}, ["reducer='tokenlearner'", "'token_learner'"]),
        ({**LEARNER, "fuser": "fuser"}, ["fuser='fuser'", "'token_fuser'"]),
        ({**LEARNER, "fuser_beta": "mpl"}, ["fuser_beta='mpl'", "'mlp'"]),
        ({**LEARNER, "fuser_norm": False}, ["fuser_norm=False", "'inputs'"]),
        ({"class_token": 10**18}, ["class_token=1000000000000000000"]),
        ({"gated_mlp": "False"}, ["gated_mlp='False'"]),
        ({"pre_norm": 1}, ["pre_norm=1"]),
        ({"register_tokens": 10**18}, ["register_tokens=1000000000000000000"]),
        ({"layer_norm_epsilon": float("inf")}, ["layer_norm_epsilon=inf"]),
        ({"layer_scale": float("nan")}, ["layer_scale=nan"]),
        ({"rotary": "axial"}, ["rotary='axial'", "'centred'"]),
        ({"rotary": "index", "rotary_theta": 0}, ["rotary_theta=0"]),
        ({"rotary": "index", "rotary_layout": "xy"}, ["rotary_layout='xy'"]),
        ({"rotary": "index", "rotary_order": "xy"}, ["rotary_order='xy'"]),
        ({"rotary": "index", "rotary_grid": (1, 2, 3)}, ["rotary_grid=(1, 2, 3)"]),
        ({"rotary": "index", "rotary_tokens": "mean"}, ["rotary_tokens='mean'"]),
        ({"rotary": "index", "num_heads": 8}, ["rotary='index'", "2 channels"]),
        ({"rotary": "learned", **VIDEO}, ["rotary='learned'", "patch_size=(2, 4, 4)"]),
        ({"rotary": "learned", "rotary_layout": "tiled"}, ["rotary_layout='tiled'"]),
        ({"rotary": "centred", "rotary_grid": (4, 4)}, ["`rotary_grid`", "rotary='centred'"]),
        ({"rotary": "learned", "rotary_offset": 1.0}, ["`rotary_offset`", "rotary='learned'"]),
        ({"rotary_theta": 100.0}, ["`rotary_theta`", "rotary=None"]),
        ({"rotary_layout": "half"}, ["`rotary_layout`", "rotary=None"]),
        ({"rotary_order": "width_first"}, ["`rotary_order`", "rotary=None"]),
        (
            {"rotary": "index", "rotary_tokens": "centre_of_mass"},
            ["`rotary_tokens`", "reducer=None"],
        ),
        (
            {**LEARNER, **VIDEO, "rotary": "index", "rotary_tokens": "centre_of_mass"},
            ["rotary_tokens='centre_of_mass'", "over='frame'"],
        ),
        (
            {**LEARNER, "rotary": "learned", "rotary_tokens": "centre_of_mass"},
            ["rotary_tokens='centre_of_mass'", "rotary='learned'"],
        ),
        ({"block_attention": "vector", "rotary": "index"}, ["`rotary`", "'vector'"]),
        ({"block_attention": "vector", "qk_norm": True}, ["`qk_norm`", "'vector'"]),
        ({"block_attention": "vector", "qkv_bias": "none"}, ["`qkv_bias`", "'vector'"]),
        (
            {"block_attention": "vector", "attention_dropout_rate": 0.1},
            ["`attention_dropout_rate`", "'vector'", "attention_dropout_rate=0.1"],
        ),
        (
            {**LEARNER, "token_attention": "mlp", "token_pooling": "sum"},
            ["`token_pooling`", "token_attention='mlp'", "token_pooling='sum'"],
        ),
        ({"norm": "batch_norm"}, ["norm='batch_norm'", "'rms_norm'"]),
        ({"qkv_bias": "key"}, ["qkv_bias='key'", "'query_value'"]),
        ({"final_norm": "mean"}, ["final_norm='mean'", "'pooled'"]),
        ({"final_norm_epsilon": 0.0}, ["final_norm_epsilon=0.0"]),
        ({"final_norm": None, "final_norm_epsilon": 1e-5}, ["`final_norm_epsilon`", "None"]),
        ({"pre_logits": 0}, ["pre_logits=0"]),
        ({"pooling_num_heads": 2}, ["`pooling_num_heads`", "head_reads=None"]),
        ({"pooling_mlp_dim": 2}, ["`pooling_mlp_dim`", "head_reads=None"]),
        (
            {"head_reads": "attention", "pooling_num_heads": 3},
            ["`pooling_num_heads`", "pooling_num_heads=3, hidden_dim=16"],
        ),
        ({"head_reads": "attention", "pooling_mlp_dim": -1}, ["pooling_mlp_dim=-1"]),
        ({"pool_prefix": True}, ["pool_prefix=True", "head_reads=None"]),
        ({"pool_prefix": True, "class_token": True}, ["`pool_prefix`", "head_reads=None"]),
        (
            {"head_reads": "class_and_average", "class_token": True, "final_norm": "pooled"},
            ["final_norm='pooled'", "head_reads='class_and_average'"],
        ),
        ({"positions": "sin"}, ["positions='sin'", "'sincos'"]),
        ({**LEARNER, "token_attention": "dense"}, ["token_attention='dense'"]),
        ({**LEARNER, "token_pooling": "max"}, ["token_pooling='max'"]),
        ({"block_attention": "vec"}, ["block_attention='vec'"]),
        ({"head_reads": "mean"}, ["head_reads='mean'", "'class_and_average'"]),
        ({"head_reads": "class_and_average"}, ["class_token=True.", "class_token=False"]),
        (
            {"head_reads": "class_and_registers", "class_token": True},
            ["register_tokens=1", "register_tokens=0"],
        ),
        ({"at": 2}, ["at=2", "reducer='token_learner'"]),
        ({**LEARNER, "at": 5}, ["at=5", "num_layers=4"]),
        ({**LEARNER, "at": -1}, ["at=-1"]),
        ({"fuser": "token_fuser"}, ["fuser='token_fuser'", "reducer='token_learner'"]),
        ({**LEARNER, "at": 4, "fuser": "token_fuser"}, ["at=4", "0 to 3"]),
        ({"reducer": "fixed_grid", "fuser": "unpool"}, ["fuser='unpool'", "reducer='fixed_grid'"]),
        ({**LEARNER, "over": "space_time"}, ["over='space_time'", "patch_size=(4, 4)"]),
        (
            {**LEARNER, **VIDEO, "over": "space_time", "fuser": "unpool"},
            ["fuser='unpool'", "over='space_time'"],
        ),
        (
            {**LEARNER, **VIDEO, "over": "space_time", "fuser": "token_fuser"},
            ["over='space_time'", "fuser='reproject'"],
        ),
    ],
    ids=str,
)
def test_config_with_wrong_fields_raises(changes, words):
    refused(lambda: config(**changes), "VisionTransformerConfig: ", "Received: ", *words)


def test_config_of_numpy_scalars_equals_the_config_of_python_numbers():
    """Sizes that were computed, such as `labels.max() + 1`, are numbers of numpy."""
    arguments = {"num_layers": 4, "num_heads": 2, "num_tokens": 3, "at": 2, "register_tokens": 1}
    numbers = {name: np.int64(value) for name, value in arguments.items()}
    rest = {"patch_size": (4, 4), "reducer": "token_learner"}
    plain = VisionTransformerConfig(16, dropout_rate=0.5, class_token=True, **rest, **arguments)
    found = VisionTransformerConfig(
        np.int32(16), dropout_rate=np.float32(0.5), class_token=np.True_, **rest, **numbers
    )
    assert found == plain
    assert json.dumps(asdict(found)) == json.dumps(asdict(plain))
