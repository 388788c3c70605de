"""Families of ViTs compared with their models in transformers, with weights copied by hand."""

import keras
import numpy as np
import pytest

from keras_tokenlearner.models import VisionTransformer, VisionTransformerConfig
from tests.skips import peer

pytestmark = pytest.mark.peers

SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
}
CONFIG = {"hidden_dim": 48, "num_layers": 2, "num_heads": 4, "mlp_dim": 80, "patch_size": (8, 8)}
VIDEO = {"num_frames": 4, "tubelet_size": 2, "image_size": 24, "patch_size": 8}


def theirs(model, config, **arguments):
    """Return a model of transformers with random weights and its state."""
    transformers = peer("transformers")
    import torch

    settings = getattr(transformers, config)(**{**SIZES, **arguments})
    module = getattr(transformers, model)(settings).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
            parameter.normal_(0, scale, generator=generator)
    return module, {name: value.numpy() for name, value in module.state_dict().items()}


def ours(weights, shape, **changes):
    """Return our model with the given weights, a dictionary by path; every weight must be used."""
    top = {"include_top": "head/kernel" in weights, "pooling": changes.pop("pooling", None)}
    model = VisionTransformer(
        VisionTransformerConfig(**{**CONFIG, **changes}),
        shape,
        include_preprocessing=False,
        classifier_activation=None,
        classes=5,
        **top,
    )
    left = dict(weights)
    for weight in model.weights:
        weight.assign(left.pop(weight.path))
    assert not left
    return model


class Weights(dict):
    """Weights of a model of transformers, in a dictionary by the paths of our weights."""

    def __init__(self, state, heads=4):
        super().__init__()
        self._state, self._heads = state, heads

    def conv(self, ours, theirs):
        kernel = self._state[f"{theirs}.weight"]
        axes = (*range(2, kernel.ndim), 1, 0)
        self[f"{ours}/kernel"] = kernel.transpose(axes)
        self[f"{ours}/bias"] = self._state.get(f"{theirs}.bias", np.zeros(len(kernel)))

    def norm(self, ours, theirs):
        if f"{theirs}.bias" in self._state:
            self[f"{ours}/gamma"] = self._state[f"{theirs}.weight"]
            self[f"{ours}/beta"] = self._state[f"{theirs}.bias"]
        else:
            self[f"{ours}/scale"] = self._state[f"{theirs}.weight"]

    def linear(self, ours, theirs):
        self[f"{ours}/kernel"] = self._state[f"{theirs}.weight"].T
        if f"{theirs}.bias" in self._state:
            self[f"{ours}/bias"] = self._state[f"{theirs}.bias"]

    def attention(self, ours, query, key, value, output):
        for name, theirs in (("query", query), ("key", key), ("value", value)):
            self.linear(f"{ours}/{name}", theirs)
            kernel = self[f"{ours}/{name}/kernel"]
            self[f"{ours}/{name}/kernel"] = kernel.reshape(len(kernel), self._heads, -1)
            if f"{ours}/{name}/bias" in self:
                bias = self[f"{ours}/{name}/bias"]
                self[f"{ours}/{name}/bias"] = bias.reshape(self._heads, -1)
        self.linear(f"{ours}/attention_output", output)
        kernel = self[f"{ours}/attention_output/kernel"]
        split = kernel.reshape(self._heads, -1, kernel.shape[1])
        self[f"{ours}/attention_output/kernel"] = split

    def block(self, index, prefix, norms, attention, mlp):
        ours = f"block_{index}"
        for name, theirs in zip(("attention_norm", "mlp_norm"), norms, strict=True):
            self.norm(f"{ours}/{name}", f"{prefix}.{theirs}")
        self.attention(f"{ours}/self_attention", *(f"{prefix}.{name}" for name in attention))
        for name, theirs in mlp.items():
            self.linear(f"{ours}/mlp/{name}", f"{prefix}.{theirs}")


def pixels(*shape):
    return np.random.default_rng(0).normal(size=(2, *shape, 3)).astype("float32")


def channels_first(images):
    import torch

    return torch.from_numpy(np.moveaxis(images, -1, -3).copy())


def agree(found, expected):
    expected = expected.detach().numpy()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_siglip_gives_the_tokens_and_pooled_vector_of_hugging_face_transformers():
    module, state = theirs("SiglipVisionModel", "SiglipVisionConfig", image_size=32, patch_size=8)
    state = {name.removeprefix("vision_model."): value for name, value in state.items()}
    weights = Weights(state)
    weights.conv("embedding/projection", "embeddings.patch_embedding")
    weights["positions/table"] = state["embeddings.position_embedding.weight"].reshape(4, 4, -1)
    attention = [f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")]
    for index in range(2):
        norms, mlp = ("layer_norm1", "layer_norm2"), {"hidden": "mlp.fc1", "output": "mlp.fc2"}
        weights.block(index, f"encoder.layers.{index}", norms, attention, mlp)
    weights.norm("norm", "post_layernorm")
    tokens = dict(weights)
    weights["pooling/latent"] = state["head.probe"][0]
    parts = ("weight", "bias")
    packed = {part: np.split(state[f"head.attention.in_proj_{part}"], 3) for part in parts}
    for place, name in enumerate("qkv"):
        for part in parts:
            state[f"head.attention.{name}.{part}"] = packed[part][place]
    names = [f"head.attention.{name}" for name in ("q", "k", "v", "out_proj")]
    weights.attention("pooling/attention", *names)
    weights.norm("pooling/mlp_norm", "head.layernorm")
    weights.linear("pooling/mlp/hidden", "head.mlp.fc1")
    weights.linear("pooling/mlp/output", "head.mlp.fc2")
    fields = {"activation": "gelu_tanh", "head_reads": "attention"}
    images = pixels(32, 32)
    expected = module(channels_first(images))
    model = ours(tokens, (32, 32, 3), **fields)
    agree(model.predict(images, verbose=0), expected.last_hidden_state)
    model = ours(weights, (32, 32, 3), pooling="head", **fields)
    agree(model.predict(images, verbose=0), expected.pooler_output)


@pytest.mark.parametrize("gated", [False, True])
def test_dinov3_on_rectangular_images_gives_the_tokens_of_transformers(gated):
    module, state = theirs(
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        image_size=32,
        patch_size=8,
        num_register_tokens=3,
        use_gated_mlp=gated,
        hidden_act="silu" if gated else "gelu",
    )
    weights = Weights(state)
    weights.conv("embedding/projection", "embeddings.patch_embeddings")
    weights["class_token/tokens"] = state["embeddings.cls_token"][0]
    weights["register_tokens/tokens"] = state["embeddings.register_tokens"][0]
    attention = [f"attention.{name}_proj" for name in "qkvo"]
    mlp = {"hidden": "mlp.up_proj", "output": "mlp.down_proj"}
    mlp |= {"gate": "mlp.gate_proj"} if gated else {}
    stem = "model.layer" if any(name.startswith("model.") for name in state) else "layer"
    for index in range(2):
        prefix = f"{stem}.{index}"
        weights.block(index, prefix, ("norm1", "norm2"), attention, mlp)
        for name, theirs_ in (("self_attention", "layer_scale1"), ("mlp", "layer_scale2")):
            weights[f"block_{index}/{name}_scale/gamma"] = state[f"{prefix}.{theirs_}.lambda1"]
        bias = f"block_{index}/self_attention/key/bias"
        assert bias not in weights
    weights.norm("norm", "norm")
    model = ours(
        weights,
        (32, 56, 3),
        activation="silu" if gated else "gelu",
        gated_mlp=gated,
        layer_norm_epsilon=1e-5,
        layer_scale=1.0,
        class_token=True,
        register_tokens=3,
        qkv_bias="query_value",
        positions=None,
        rotary="centred",
        rotary_theta=100.0,
        rotary_layout="half",
    )
    images = pixels(32, 56)
    agree(model.predict(images, verbose=0), module(channels_first(images)).last_hidden_state)


def test_aimv2_gives_the_tokens_and_pooled_vector_of_transformers():
    module, state = theirs(
        "Aimv2VisionModel",
        "Aimv2VisionConfig",
        image_size=32,
        patch_size=8,
        qkv_bias=False,
        mlp_bias=False,
        use_head=True,
        is_native=False,
    )
    state = {name.removeprefix("vision_model."): value for name, value in state.items()}
    weights = Weights(state)
    weights.conv("embedding/projection", "embeddings.patch_embed")
    weights.norm("embedding_norm", "embeddings.rms_norm")
    weights["positions/table"] = state["embeddings.position_embedding.weight"].reshape(4, 4, -1)
    attention = [f"attention.{name}_proj" for name in ("q", "k", "v", "out")]
    names = {"gate": "gate_proj", "hidden": "up_proj", "output": "down_proj"}
    mlp = {ours_: f"ffn.{theirs_}" for ours_, theirs_ in names.items()}
    for index in range(2):
        norms = ("rms_norm1", "rms_norm2")
        weights.block(index, f"encoder.layers.{index}", norms, attention, mlp)
    weights.norm("norm", "rms_norm")
    fields = {
        "activation": "silu",
        "gated_mlp": True,
        "norm": "rms_norm",
        "layer_norm_epsilon": 1e-5,
        "embedding_norm": True,
        "qkv_bias": "none",
        "attention_bias": False,
        "mlp_bias": False,
        "head_reads": "attention",
        "pooling_mlp_dim": 0,
    }
    images = pixels(32, 32)
    expected = module(channels_first(images))
    model = ours(weights, (32, 32, 3), **fields)
    agree(model.predict(images, verbose=0), expected.last_hidden_state)
    # AIMv2's latent is the query itself, so our query projection is the identity.
    weights["pooling/latent"] = state["head.cls_token"][0]
    state["head.q.weight"], zeros = np.eye(48), np.zeros(48)
    for name in ("head.q", "head.k_proj", "head.v_proj"):
        state[f"{name}.bias"] = zeros
    names = ["head.q", "head.k_proj", "head.v_proj", "head.output_proj"]
    weights.attention("pooling/attention", *names)
    model = ours(weights, (32, 32, 3), pooling="head", **fields)
    agree(model.predict(images, verbose=0), expected.pooler_output.reshape(2, 48))


def test_videomae_gives_the_logits_of_transformers():
    module, state = theirs(
        "VideoMAEForVideoClassification", "VideoMAEConfig", num_labels=5, **VIDEO
    )
    weights, base = Weights(state), "videomae"
    weights.conv("embedding/projection", f"{base}.embeddings.patch_embeddings.projection")
    attention = [f"attention.attention.{name}" for name in ("query", "key", "value")]
    mlp = {"hidden": "intermediate.dense", "output": "output.dense"}
    for index in range(2):
        weights.block(
            index,
            f"{base}.encoder.layer.{index}",
            ("layernorm_before", "layernorm_after"),
            [*attention, "attention.output.dense"],
            mlp,
        )
    weights.norm("norm", "fc_norm")
    weights.linear("head", "classifier")
    model = ours(
        weights,
        (4, 24, 24, 3),
        patch_size=(2, 8, 8),
        activation="gelu",
        layer_norm_epsilon=1e-12,
        final_norm="pooled",
        final_norm_epsilon=1e-5,
        qkv_bias="query_value",
        positions="sequence",
    )
    videos = pixels(4, 24, 24)
    agree(model.predict(videos, verbose=0), module(channels_first(videos)).logits)


def test_v_jepa_2_gives_the_tokens_of_transformers():
    module, state = theirs(
        "VJEPA2Model",
        "VJEPA2Config",
        frames_per_clip=6,
        crop_size=24,
        patch_size=8,
        tubelet_size=2,
        mlp_ratio=1.5,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    )
    weights = Weights(state)
    weights.conv("embedding/projection", "encoder.embeddings.patch_embeddings.proj")
    attention = [f"attention.{name}" for name in ("query", "key", "value", "proj")]
    mlp = {"hidden": "mlp.fc1", "output": "mlp.fc2"}
    for index in range(2):
        weights.block(index, f"encoder.layer.{index}", ("norm1", "norm2"), attention, mlp)
    weights.norm("norm", "encoder.layernorm")
    model = ours(
        weights,
        (6, 24, 24, 3),
        patch_size=(2, 8, 8),
        mlp_dim=72,
        activation="gelu",
        positions=None,
        rotary="index",
        rotary_layout="tiled",
    )
    videos = pixels(6, 24, 24)
    expected = module(channels_first(videos), skip_predictor=True).last_hidden_state
    agree(model.predict(videos, verbose=0), expected)


def test_vivit_gives_the_logits_of_transformers():
    module, state = theirs(
        "VivitForVideoClassification",
        "VivitConfig",
        num_labels=5,
        num_frames=4,
        tubelet_size=[2, 8, 8],
        image_size=24,
    )
    weights, base = Weights(state), "vivit"
    weights.conv("embedding/projection", f"{base}.embeddings.patch_embeddings.projection")
    table = state[f"{base}.embeddings.position_embeddings"][0]
    weights["class_token/tokens"] = state[f"{base}.embeddings.cls_token"][0] + table[:1]
    weights["positions/table"] = table[1:].reshape(2, 3, 3, -1)
    attention = [f"attention.{name}_proj" for name in "qkvo"]
    mlp = {"hidden": "mlp.fc1", "output": "mlp.fc2"}
    for index in range(2):
        norms = ("layernorm_before", "layernorm_after")
        weights.block(index, f"{base}.layers.{index}", norms, attention, mlp)
    weights.norm("norm", f"{base}.layernorm")
    weights.linear("head", "classifier")
    model = ours(weights, (4, 24, 24, 3), patch_size=(2, 8, 8), class_token=True)
    videos = pixels(4, 24, 24)
    agree(model.predict(videos, verbose=0), module(channels_first(videos)).logits)


def test_pre_logits_adds_a_dense_layer_with_tanh_before_the_head():
    fields = {**CONFIG, "class_token": True}
    images = pixels(16, 24)
    plain = VisionTransformer(
        VisionTransformerConfig(**fields), (16, 24, 3), include_top=False, pooling="token"
    )
    model = VisionTransformer(
        VisionTransformerConfig(**fields, pre_logits=7),
        (16, 24, 3),
        classes=5,
        classifier_activation=None,
    )
    given = {weight.path: keras.ops.convert_to_numpy(weight) for weight in plain.weights}
    random = np.random.default_rng(1)
    for path, shape in (
        ("pre_logits/kernel", (48, 7)),
        ("pre_logits/bias", (7,)),
        ("head/kernel", (7, 5)),
        ("head/bias", (5,)),
    ):
        given[path] = random.normal(size=shape)
    for weight in model.weights:
        weight.assign(given.pop(weight.path))
    assert not given
    weights = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    features = plain.predict(images, verbose=0)
    hidden = np.tanh(features @ weights["pre_logits/kernel"] + weights["pre_logits/bias"])
    expected = hidden @ weights["head/kernel"] + weights["head/bias"]
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-5)
