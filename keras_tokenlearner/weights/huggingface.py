"""ViT, DeiT, DINOv2 and CLIP's vision tower of Hugging Face transformers: files and models.

Files keep the names of the first releases; models in memory, since release 5, have shorter ones.
"""

from dataclasses import replace

from keras_tokenlearner.weights.source import CLIP, HALF, IMAGENET, Source
from keras_tokenlearner.weights.torch_layers import average_heads, from_torch


def _in_blocks(starts, rows):
    """Return rows of the layers of a block, for all that the names of blocks may start with."""
    return {
        f"block_{{i}}/{ours}": (kind, *(start + name for start in starts for name in names))
        for ours, (kind, *names) in rows.items()
    }


_EMBEDDINGS = {
    "embedding/projection": ("conv", "embeddings.patch_embeddings.projection"),
    "class_token/tokens": ("rows", "embeddings.cls_token"),
    "positions/table": ("rows", "embeddings.position_embeddings"),
    "norm": ("norm", "layernorm"),
    "head": ("linear", "classifier"),
}
_ATTENTION = {
    "self_attention/query": ("heads_in", "attention.attention.query", "attention.q_proj"),
    "self_attention/key": ("heads_in", "attention.attention.key", "attention.k_proj"),
    "self_attention/value": ("heads_in", "attention.attention.value", "attention.v_proj"),
    "self_attention/attention_output": ("heads_out", "attention.output.dense", "attention.o_proj"),
}
_VIT = {
    "attention_norm": ("norm", "layernorm_before"),
    "mlp_norm": ("norm", "layernorm_after"),
    "mlp/hidden": ("linear", "intermediate.dense", "mlp.fc1"),
    "mlp/output": ("linear", "output.dense", "mlp.fc2"),
}
_DINOV2 = {
    "attention_norm": ("norm", "norm1"),
    "self_attention_scale/gamma": ("raw", "layer_scale1.lambda1"),
    "mlp_norm": ("norm", "norm2"),
    "mlp/gate": ("linear", "mlp.gate_proj"),
    "mlp/hidden": ("linear", "mlp.fc1", "mlp.weights_in", "mlp.up_proj"),
    "mlp/output": ("linear", "mlp.fc2", "mlp.weights_out", "mlp.down_proj"),
    "mlp_scale/gamma": ("raw", "layer_scale2.lambda1"),
}
_CLIP = {
    "attention_norm": ("norm", "layer_norm1"),
    "self_attention/query": ("heads_in", "self_attn.q_proj"),
    "self_attention/key": ("heads_in", "self_attn.k_proj"),
    "self_attention/value": ("heads_in", "self_attn.v_proj"),
    "self_attention/attention_output": ("heads_out", "self_attn.out_proj"),
    "mlp_norm": ("norm", "layer_norm2"),
    "mlp/hidden": ("linear", "mlp.fc1"),
    "mlp/output": ("linear", "mlp.fc2"),
}
_VIT_NAMES = _EMBEDDINGS | _in_blocks(("encoder.layer.{i}.", "layers.{i}."), _ATTENTION | _VIT)
# The distillation token is a register to us.
_DEIT_NAMES = _VIT_NAMES | {"register_tokens/tokens": ("rows", "embeddings.distillation_token")}
_DINOV2_NAMES = {
    **_EMBEDDINGS,
    "register_tokens/tokens": ("rows", "embeddings.register_tokens"),
    **_in_blocks(("encoder.layer.{i}.",), _ATTENTION | _DINOV2),
}
_CLIP_NAMES = {
    "embedding/projection": ("conv", "embeddings.patch_embedding"),
    "class_token/tokens": ("rows", "embeddings.class_embedding"),
    "positions/table": ("rows", "embeddings.position_embedding.weight"),
    "pre_norm": ("norm", "pre_layrnorm"),  # spelt so
    "norm": ("norm", "post_layernorm"),
} | _in_blocks(("encoder.layers.{i}.",), _CLIP)


def _converter(names, averaged=()):
    def convert(entries, heads):
        arrays = from_torch(entries, names, heads)
        return arrays | average_heads(entries, averaged) if averaged else arrays

    return convert


_ANCHORS = ("embeddings.patch_embeddings.projection.weight",)
HUGGINGFACE_VIT = Source(
    _converter(_VIT_NAMES),
    anchors=_ANCHORS,
    config={"activation": "gelu", "layer_norm_epsilon": 1e-12},
    resize="bicubic",
    normalization=HALF,
    ignored=("pooler.", "embeddings.mask_token"),
)
HUGGINGFACE_DEIT = replace(
    HUGGINGFACE_VIT,
    convert=_converter(_DEIT_NAMES, ("cls_classifier", "distillation_classifier")),
    wide_head={"head_reads": "class_and_registers"},
    normalization=IMAGENET,
)
HUGGINGFACE_DINOV2 = Source(
    _converter(_DINOV2_NAMES),
    anchors=_ANCHORS,
    config={"activation": "gelu", "layer_norm_epsilon": 1e-6},
    gated_mlp={"activation": "silu"},
    wide_head={"head_reads": "class_and_average"},
    normalization=IMAGENET,
    ignored=("embeddings.mask_token",),
)
HUGGINGFACE_CLIP = Source(
    _converter(_CLIP_NAMES),
    anchors=("embeddings.patch_embedding.weight",),
    config={"activation": "quick_gelu", "layer_norm_epsilon": 1e-5},
    resize="bicubic",
    normalization=CLIP,
    ignored=("embeddings.position_ids",),
)
