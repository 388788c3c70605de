"""ViT, DeiT and DINOv2 of timm against timm itself, and exports to timm."""

import keras
import numpy as np
import pytest

from keras_tokenlearner import create_model, from_preset
from keras_tokenlearner.weights import load, plan_of, to_timm
from keras_tokenlearner.weights.sources.source import IMAGENET
from tests.skips import peer
from tests.weights.foreign import build, close, fill, normalised, outputs, pixels, refused

pytestmark = pytest.mark.once("torch")

FORMS = {
    "vit": {},
    "average": {"global_pool": "avg", "class_token": False, "fc_norm": False},
    "mae": {"global_pool": "avg"},
    "deit3": {"no_embed_class": True, "init_values": 0.1},
    "registers": {"reg_tokens": 3, "no_embed_class": True},
    "registers_with_positions": {"reg_tokens": 3},
    "no_bias": {"qkv_bias": False},
    "pre_norm": {"pre_norm": True},
    "gated": {"swiglu": True, "mlp_ratio": 3, "init_values": 0.1},
    "distilled": {"distilled": True},
}

# A file without a config.json does not show these poolings.
POOLED = {
    "average_and_class_token": {"global_pool": "avg", "fc_norm": False},
    "max": {"global_pool": "max", "fc_norm": False, "reg_tokens": 2, "no_embed_class": True},
}
DISTILLED = {"register_tokens": 1, "head_reads": "class_and_registers"}

READS = {
    "mae": {"head_reads": "average"},
    "average_and_class_token": {"head_reads": "average"},
    "max": {"head_reads": "max"},
}
EXPORTED = ["vit", "average", "deit3", "registers", "gated", "distilled"]


def theirs(image=32, **changes):
    timm = peer("timm")
    kind = timm.models.vision_transformer.VisionTransformer
    if changes.pop("distilled", False):
        kind = timm.models.deit.VisionTransformerDistilled
    if changes.pop("swiglu", False):  # as in vit_giant_patch14_dinov2
        changes |= {
            "mlp_layer": timm.layers.SwiGLUPacked,
            "act_layer": timm.layers.get_act_layer("silu"),
        }
    sizes = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 1.5}
    arguments = sizes | {"num_classes": 5, "dynamic_img_size": True} | changes
    return fill(kind(img_size=image, **arguments))


@pytest.mark.parametrize("source", [None, "dinov2", "timm"])
def test_dinov3_file_of_meta_raises_and_names_the_files_of_other_libraries(source):
    """The file has the other names of DINOv2, and no positions."""
    entries = to_timm(create_model("vit_pico8", classes=2, register_tokens=4))
    entries["storage_tokens"] = entries.pop("reg_token")
    entries["rope_embed.periods"] = np.ones(4, "float32")
    entries["mask_token"] = np.zeros((1, 32), "float32")
    del entries["pos_embed"]
    for name in ("hf://timm/vit_small_patch16_dinov3", "hf://facebook/dinov3"):
        with pytest.raises(ValueError, match=f"DINOv3.*{name}.*source={source!r}"):
            plan_of(entries, source)


@pytest.mark.every_backend
@pytest.mark.peers
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("image", [(32, 32), (64, 24)], ids=str)
def test_timm_weights_give_the_logits_of_timm(form, image):
    module = theirs(**FORMS[form])
    source = "timm_deit" if form in ("deit3", "distilled") else "timm"
    changes = READS.get(form, {})
    model = build(source, module, image=image, normalization="imagenet", **changes)
    report = load(model, source, module, normalization="imagenet")
    assert not report.left and not report.unused
    images = pixels(image)
    expected = module(normalised(images, *IMAGENET)).detach().numpy()
    close(outputs(model, images), expected)
    if form == "no_bias":
        assert model.config.qkv_bias == "none"
    if form == "pre_norm":
        assert "zeros" in str(report)


@pytest.mark.every_backend
@pytest.mark.peers
@pytest.mark.parametrize("form", [*EXPORTED, *POOLED])
def test_weights_exported_to_timm_give_the_logits_of_the_model(form):
    import torch

    module = theirs(**(FORMS | POOLED)[form])
    model = build("timm", module, **READS.get(form, {}))
    entries = to_timm(model)
    if form == "deit3":
        # In timm, the class token may have no position.
        entries["pos_embed"] = entries["pos_embed"][:, 1:]
    module.load_state_dict({name: torch.from_numpy(array) for name, array in entries.items()})
    images = pixels()
    close(outputs(model, images), module(normalised(images)).detach().numpy())


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"class_token": True, "register_tokens": 2, "layer_scale": 0.1},
            marks=pytest.mark.every_backend,
        ),
        {"class_token": True, **DISTILLED, "gated_mlp": True, "activation": "silu"},
        {"class_token": True, **DISTILLED, "include_top": False},
    ],
    ids=str,
)
def test_weights_converted_to_timm_and_back_are_equal(changes):
    """The weights are equal after an export and a load. This test needs no timm."""
    model, other = build("timm", **changes), build("timm", **changes)
    other.set_weights([0 * array for array in other.get_weights()])
    entries = to_timm(model)
    report = load(other, "timm", entries, normalization="half")
    assert not report.left and not report.unused
    for ours, loaded in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, loaded)


@pytest.mark.parametrize(
    "changes",
    [
        {"reducer": "token_learner"},
        {"reducer": "spatial_pooling"},
        {"pre_norm": True},
        {"class_token": True, "head_reads": "class_and_average"},
        {"stem": ((8, 2), (8, 4))},
        {"block_attention": "vector"},
        {"class_token": True, "register_tokens": 2, "head_reads": "class_and_registers"},
    ],
    ids=str,
)
def test_export_to_timm_of_an_unsupported_model_raises(changes):
    with pytest.raises(ValueError, match=r"to_timm: .*grid=\(4, 4\)"):
        to_timm(build("timm", **changes))


def test_timm_checkpoint_decides_the_config_of_create_model(tmp_path):
    changes = {"class_token": True, **DISTILLED, "gated_mlp": True, "activation": "silu"}
    model = build("timm", **changes)
    np.savez(tmp_path / "deit.npz", **to_timm(model))
    path, options = f"timm:{tmp_path}/deit.npz", {"mlp_dim": 48, "classifier_activation": None}
    said = {"layer_norm_epsilon": 1e-6, "normalization": "half"}
    with pytest.raises(ValueError, match="`layer_norm_epsilon`.* 1e-06.*`normalization`.*'half'"):
        create_model("vit_pico8", weights=path, **options)
    again = create_model("vit_pico8", weights=path, **options, **said)
    images = pixels()
    close(outputs(again, images), outputs(model, images))


def test_distilled_head_for_a_model_with_different_head_reads_raises_unless_the_head_is_dropped():
    """The shape of a head does not show whether it reads registers or the average."""
    entries = to_timm(build("timm", class_token=True, **DISTILLED))
    other = {"class_token": True, **DISTILLED, "head_reads": "class_and_average"}
    message = "head_reads.*'class_and_average'.*'class_and_registers'"
    refused(message, build("timm", **other), "timm", entries, normalization="half")
    plain = build("timm", class_token=True, register_tokens=1)
    refused("head_reads.*None.*'class_and_registers'", plain, "timm", entries, normalization="half")
    report = load(plain, "timm", entries, head="drop", normalization="half")
    assert report.left == ("head/kernel", "head/bias")
    heads = ("head.weight", "head_dist.weight", "head.bias", "head_dist.bias")
    assert report.unused == heads
    entries["head_dist.weight"] = entries["head_dist.weight"][:3]
    model = build("timm", class_token=True, **DISTILLED)
    refused(r"head_dist\.weight.*\(3, 32\)", model, "timm", entries, normalization="half")


@pytest.mark.parametrize(
    "changes",
    [
        {"rotary": "index"},
        {"positions": "sequence"},
        {"norm": "rms_norm"},
        {"final_norm": "pooled"},
        {"qkv_bias": "none"},
        {"head_reads": "attention"},
        {"pre_logits": 7},
    ],
    ids=str,
)
def test_export_to_timm_of_a_config_option_that_timm_lacks_raises_and_names_the_option(changes):
    ((name, value),) = changes.items()
    with pytest.raises(ValueError) as error:
        to_timm(build("timm", **changes))
    assert str(error.value).endswith(f": {[f'{name}={value!r}']}")  # no cause twice


def test_timm_attention_weights_not_divisible_by_heads_raise():
    entries = to_timm(build("timm"))
    model = build("timm", num_heads=4)
    entries["blocks.1.attn.qkv.weight"] = np.zeros((90, 32), np.float32)
    entries["blocks.1.attn.qkv.bias"] = np.zeros(90, np.float32)
    refused(r"\(32, 4, 8\).*\(32, 30\)", model, "timm", entries, normalization="half")
    entries["blocks.1.attn.qkv.weight"] = np.zeros((91, 32), np.float32)
    refused(r"attn\.qkv\.weight.*\(91, 32\)", model, "timm", entries)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("blocks.1.mlp.fc2.bias", "block_1/mlp/output/bias"),
        ("blocks.0.attn.qkv.bias", "block_0/self_attention/query/bias"),
    ],
)
def test_timm_file_without_a_bias_raises(name, path):
    entries = to_timm(build("timm"))
    del entries[name]
    refused(path, build("timm"), "timm", entries, normalization="half")


SCALED = {"class_token": True, "layer_scale": 0.1}


def test_timm_file_of_eva_without_mlp_scales_sets_them_to_one_and_reports_them():
    """Sapiens 2 of timm scales only the attentions. Its class is `Eva`."""
    model = build("timm", **SCALED)
    for i in range(2):
        scale = model.get_layer(f"block_{i}").mlp_branch[0]
        scale.set_weights([np.ones(32)])
    entries = {
        name.replace("ls1.gamma", "gamma_1"): array
        for name, array in to_timm(model).items()
        if "ls2" not in name
    }
    other = build("timm", **SCALED)
    report = plan_of(entries, "timm", normalization="half").load(other)
    assert not report.left and not report.unused
    close(outputs(other, pixels()), outputs(model, pixels()))
    paths = [f"block_{i}/mlp_scale/gamma" for i in range(2)]
    assert all(report.adapted[path].startswith("ones, ") for path in paths)
    assert not any(report.loaded[path] in entries for path in paths)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ({}, ["blocks.0.ls2.gamma", "blocks.1.ls2.gamma"]),
        ({}, ["blocks.1.ls2.gamma"]),
        ({"ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2"}, ["blocks.1.gamma_2"]),
        ({"ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2"}, ["blocks.1.gamma_1"]),
    ],
    ids=str,
)
def test_timm_file_with_a_missing_layer_scale_raises(names, missing):
    entries = to_timm(build("timm", **SCALED))
    for old, new in names.items():
        entries = {name.replace(old, new): array for name, array in entries.items()}
    entries = {name: array for name, array in entries.items() if name not in missing}
    path = "self_attention_scale" if "blocks.1.gamma_1" in missing else "mlp_scale"
    model = build("timm", **SCALED)
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"block_[01]/{path}/gamma"):
        plan_of(entries, "timm", normalization="half").load(model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_timm_norm_after_pooling_sets_final_norm_to_pooled():
    entries = to_timm(build("timm"))
    for part in ("weight", "bias"):
        entries[f"fc_norm.{part}"] = entries.pop(f"norm.{part}")
    message = "final_norm.*'tokens'.*'pooled'"
    refused(message, build("timm"), "timm", entries, normalization="half")
    model = build("timm", entries)
    assert model.config.final_norm == "pooled"
    assert not load(model, "timm", entries, normalization="half").left
    with pytest.raises(ValueError, match="`rotary`.* None, 'index'"):
        bare = entries | {"blocks.0.gamma_1": np.ones(32, np.float32)}
        plan_of(bare, "timm", normalization="half").check_open(
            {"activation": "gelu", "layer_norm_epsilon": 1e-6}
        )


@pytest.mark.parametrize("reads", ["average", "max"])
def test_from_preset_of_timm_file_with_class_token_and_fc_norm_requires_head_reads(tmp_path, reads):
    """Fine-tuned MAE models average the patches. Their files do not state this."""
    plain = build("timm", class_token=True)
    entries = to_timm(plain)
    for part in ("weight", "bias"):
        entries[f"fc_norm.{part}"] = entries.pop(f"norm.{part}")
    np.savez(tmp_path / "mae.npz", **entries)
    path, said = f"timm:{tmp_path}/mae.npz", {"normalization": "half", "num_heads": 2}
    said |= {"activation": "gelu", "layer_norm_epsilon": 1e-6, "classifier_activation": None}
    with pytest.raises(ValueError, match=r"from_preset.*`head_reads`.*'average', 'max'"):
        from_preset(path, **said)
    images = pixels()
    tokens = outputs(keras.Model(plain.input, plain.get_layer("block_1").output), images)
    x = tokens[:, 1:].mean(1) if reads == "average" else tokens[:, 1:].max(1)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * entries["fc_norm.weight"] + entries["fc_norm.bias"]
    expected = x @ entries["head.weight"].T + entries["head.bias"]
    close(outputs(from_preset(path, head_reads=reads, **said), images), expected)
    model = build("timm", entries, head_reads=reads)
    assert not load(model, "timm", entries, normalization="half").left
    close(outputs(model, images), expected)
    by_class_token = build("timm", entries)
    refused("head_reads.*None.*'average'", by_class_token, "timm", entries, normalization="half")
    without = build("timm", entries, class_token=False)
    assert load(without, "timm", entries, normalization="half").unused == ("cls_token",)


def test_timm_file_of_deit_3_loads_without_further_settings():
    """The scales are named as in timm's `Eva`. Rotary positions of `Eva` have no weights."""
    model, other = build("timm", **SCALED), build("timm", **SCALED)
    other.set_weights([0 * array for array in other.get_weights()])
    renamed = {"ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2"}
    entries = to_timm(model)
    for old, new in renamed.items():
        entries = {name.replace(old, new): array for name, array in entries.items()}
    assert not load(other, "timm", entries, normalization="half").left
    close(outputs(other, pixels()), outputs(model, pixels()))
    said = {"normalization": "half", "activation": "gelu", "layer_norm_epsilon": 1e-6}
    plan = plan_of(entries, "timm", num_heads=2, **said)
    with pytest.raises(ValueError, match=r"plan_of: .*`rotary` to Plan\.config_with, "):
        _ = plan.config
    assert plan.config_with({"rotary": None}).layer_scale


def test_from_preset_of_distilled_deit_of_timm_without_classifier_requires_pooling(tmp_path):
    """timm returns the mean of two tokens, which no pooling gives."""
    model = build("timm_deit", class_token=True, **DISTILLED, include_top=False)
    np.savez(tmp_path / "deit.npz", **to_timm(model))
    path = f"timm_deit:{tmp_path}/deit.npz"
    with pytest.raises(ValueError, match=r"from_preset.*`pooling`.*pooling=None"):
        from_preset(path, num_heads=2)
    images = pixels()
    for pooling, tokens in (("none", slice(None)), ("token", 0)):
        features = from_preset(path, num_heads=2, pooling=pooling)
        close(outputs(features, images), outputs(model, images)[:, tokens])
    with pytest.warns(UserWarning, match="reset .*: head/kernel"):
        assert from_preset(path, num_heads=2, classes=3).classes == 3


def test_plan_load_with_stated_num_heads_unlike_the_model_raises():
    """The kernels of timm fit any number of heads."""
    plan = plan_of(to_timm(build("timm")), "timm", normalization="half", num_heads=2)
    with pytest.raises(ValueError, match=r"Plan\.load: .*num_heads.* 4.* 2"):
        plan.load(build("timm", num_heads=4))
    assert not plan.load(build("timm")).left


@pytest.mark.every_backend
@pytest.mark.peers
@pytest.mark.parametrize("image", [(32, 32), (48, 24)], ids=str)
@pytest.mark.parametrize("gate", [{}, {"swiglu": True, "mlp_ratio": 3}], ids=str)
def test_dinov2_file_of_meta_gives_the_tokens_of_timm(image, gate):
    module = theirs(reg_tokens=4, no_embed_class=True, init_values=0.1, num_classes=0, **gate)
    entries = {name: value.numpy() for name, value in module.state_dict().items()}
    position = np.random.default_rng(5).normal(size=(1, 1, 32)).astype("float32")
    if gate:
        renamed = {"mlp.fc1": "mlp.w12", "mlp.fc2": "mlp.w3"}
        for name in [name for name in entries if ".mlp." in name]:
            part = name[len("blocks.0.") : name.rindex(".")]
            entries[name.replace(part, renamed[part])] = entries.pop(name)
    entries["register_tokens"] = entries.pop("reg_token")
    entries["cls_token"] = entries["cls_token"] - position
    entries["pos_embed"] = np.concatenate([position, entries["pos_embed"]], 1)
    entries["mask_token"] = np.zeros((1, 32), np.float32)
    model = build("dinov2", entries, image=image, include_top=False)
    report = load(model, "dinov2", entries)
    assert report.unused == ("mask_token",) and not report.left
    images = pixels(image)
    expected = module.forward_features(normalised(images, *IMAGENET)).detach().numpy()
    close(outputs(model, images), expected)


def test_export_to_timm_of_a_custom_head_on_pre_logits_raises_and_names_pre_logits():
    body = build("timm", pre_logits=7)
    head = keras.layers.Dense(5, name="head")(body.get_layer("pre_logits").output)
    with pytest.raises(ValueError, match="to_timm: .*pre_logits"):
        to_timm(keras.Model(body.input, head))


def test_export_to_timm_of_a_custom_head_without_bias_raises():
    body = build("timm", include_top=False)
    tokens = keras.layers.GlobalAveragePooling1D(name="pooling")(body.output)
    head = keras.layers.Dense(5, use_bias=False, name="head")
    with pytest.raises(ValueError, match=r"to_timm: .*head_bias"):
        to_timm(keras.Model(body.input, head(tokens)))


@pytest.mark.filterwarnings("ignore:.*quantize.*")
@pytest.mark.parametrize("kind", ["LoRA", "quantized"])
def test_export_to_timm_of_a_model_with_lora_or_int8_weights_raises(kind):
    model = build("timm")
    if kind == "LoRA":
        model.head.enable_lora(2)
    else:
        model.quantize("int8")
    with pytest.raises(ValueError, match=f"to_timm: .*{kind}"):
        to_timm(model)


@pytest.mark.parametrize("reads", ["average", "max"])
def test_export_to_timm_of_a_custom_head_on_pooled_patches_equals_the_export_of_head_reads(reads):
    body = build("timm", class_token=True, include_top=False)
    native = build("timm", class_token=True, head_reads=reads)
    kind = {"average": "GlobalAveragePooling1D", "max": "GlobalMaxPooling1D"}[reads]

    def with_head(tokens):
        pooled = getattr(keras.layers, kind)(name="pooling")(tokens)
        return keras.Model(body.input, keras.layers.Dense(5, name="head")(pooled))

    custom = with_head(body.output[:, 1:])
    custom.set_weights(native.get_weights())
    found, wanted = to_timm(custom), to_timm(native)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)
    with pytest.raises(ValueError, match="to_timm: .*pool_prefix=True"):
        to_timm(with_head(body.output))


@pytest.mark.parametrize("reducer", ["spatial_pooling", "fixed_grid"])
def test_export_to_timm_of_a_cut_model_with_a_reducer_without_weights_raises(reducer):
    model = build("timm", reducer=reducer)
    cut = keras.Model(model.input, model.get_layer("pooling").output)
    with pytest.raises(ValueError, match=f"to_timm: .*{reducer}"):
        to_timm(cut)
