"""Converts timm's ViT and DeiT in both directions. Reads Meta's DINOv2 and torchvision's ViT."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np

from keras_tokenlearner.models import names
from keras_tokenlearner.models.config_fields import Fields
from keras_tokenlearner.models.state import has_lora, quantization_of
from keras_tokenlearner.models.structure import Structure
from keras_tokenlearner.weights.saving import integer_weights
from keras_tokenlearner.weights.sources.source import ONES, Arrays, Entries, Named, Source
from keras_tokenlearner.weights.sources.torch_layers import (
    average_heads,
    count_blocks,
    from_torch,
    numbered,
    split_qkv,
    to_torch,
)

# Names of Meta's DINOv2 come after timm's names. DeiT's distillation token becomes a register.
NAMES = {
    "embedding/projection": ("conv", "patch_embed.proj"),
    "embedding_norm": ("norm", "patch_embed.norm"),
    "class_token/tokens": ("rows", "cls_token"),
    "register_tokens/tokens": ("rows", "reg_token", "register_tokens", "dist_token"),
    "positions/table": ("rows", "pos_embed"),
    "pre_norm": ("norm", "norm_pre"),
    "block_{i}/attention_norm": ("norm", "blocks.{i}.norm1"),
    "block_{i}/self_attention/query": ("linear", "blocks.{i}.attn.q_proj"),
    "block_{i}/self_attention/key": ("linear", "blocks.{i}.attn.k_proj"),
    "block_{i}/self_attention/value": ("linear", "blocks.{i}.attn.v_proj"),
    "block_{i}/self_attention/query_norm": ("norm", "blocks.{i}.attn.q_norm"),
    "block_{i}/self_attention/key_norm": ("norm", "blocks.{i}.attn.k_norm"),
    "block_{i}/self_attention/output_norm": ("norm", "blocks.{i}.attn.norm"),
    "block_{i}/self_attention/attention_output": ("heads", "blocks.{i}.attn.proj"),
    "block_{i}/self_attention_scale/gamma": ("raw", "blocks.{i}.ls1.gamma", "blocks.{i}.gamma_1"),
    "block_{i}/mlp_norm": ("norm", "blocks.{i}.norm2"),
    "block_{i}/mlp/gate": ("linear", "blocks.{i}.mlp.fc1_g"),
    "block_{i}/mlp/hidden": (
        "linear",
        "blocks.{i}.mlp.fc1",
        "blocks.{i}.mlp.w12",
        "blocks.{i}.mlp.fc1_x",
    ),
    "block_{i}/mlp/norm": ("norm", "blocks.{i}.mlp.norm"),
    "block_{i}/mlp/output": ("linear", "blocks.{i}.mlp.fc2", "blocks.{i}.mlp.w3"),
    "block_{i}/mlp_scale/gamma": ("raw", "blocks.{i}.ls2.gamma", "blocks.{i}.gamma_2"),
    "norm": ("norm", "norm"),
    "fc_norm": ("norm", "fc_norm"),
    "pooling/latent": ("rows", "attn_pool.latent"),
    "pooling/attention/query": ("linear", "attn_pool.q"),
    "pooling/attention/attention_output": ("heads", "attn_pool.proj"),
    "pooling/mlp_norm": ("norm", "attn_pool.norm"),
    "pooling/mlp/hidden": ("linear", "attn_pool.mlp.fc1"),
    "pooling/mlp/output": ("linear", "attn_pool.mlp.fc2"),
    "head": ("linear", "head", "linear_head"),
}
_PARTS = ("query", "key", "value")
_JOINED = (*_PARTS, "gate")  # timm has one layer for the parts; the gate is in the first MLP layer
_CONFIG: Fields = {"activation": "gelu", "layer_norm_epsilon": 1e-6}
_GATED_MLP: Fields = {"activation": "silu"}


def convert(entries: Entries) -> Arrays:
    """Convert the weights of timm, or of Meta's DINOv2, to our names and shapes."""
    arrays = from_torch(entries, NAMES) | average_heads(entries, ("head", "head_dist"))
    for i in range(count_blocks(entries, NAMES)):
        theirs, ours = f"blocks.{i}.attn", names.block_name(i)
        arrays |= split_qkv(
            entries, f"{theirs}.qkv.weight", f"{ours}/self_attention", f"{theirs}.qkv.bias"
        )
        gamma = arrays.get(f"{ours}/self_attention_scale/gamma")
        # Of timm's classes, only `Eva` can scale the attentions alone, as in Sapiens 2.
        is_eva = f"blocks.{i}.gamma_1" in entries
        if gamma and is_eva and f"{ours}/mlp_scale/gamma" not in arrays:
            arrays[f"{ours}/mlp_scale/gamma"] = Named(np.ones_like(gamma.array), ONES)
    if "rope.freqs" in entries:  # shape (2, blocks, heads, pairs)
        freqs, origin = entries.take("rope.freqs"), entries.full_name("rope.freqs")
        for i in range(freqs.shape[1]):
            arrays[f"{names.numbered(names.ROTARY, i)}/frequencies"] = Named(freqs[:, i], origin)
    return arrays | _split_key_value(entries, "attn_pool.kv", f"{names.POOLING}/attention")


def _split_key_value(entries: Entries, theirs: str, ours: str) -> Arrays:
    found = from_torch(entries, {"both": ("linear", theirs)})
    arrays: Arrays = {}
    for path, (array, origin) in found.items():
        leaf = path.rpartition("/")[2]
        for part, half in zip(("key", "value"), np.split(array, 2, axis=-1), strict=True):
            arrays[f"{ours}/{part}/{leaf}"] = found[path]._replace(array=half, origin=origin)
    return arrays


_TORCHVISION = {
    "embedding/projection": ("conv", "conv_proj"),
    "class_token/tokens": ("rows", "class_token"),
    "positions/table": ("rows", "encoder.pos_embedding"),
    "block_{i}/attention_norm": ("norm", "encoder.layers.encoder_layer_{i}.ln_1"),
    "block_{i}/self_attention/attention_output": (
        "heads",
        "encoder.layers.encoder_layer_{i}.self_attention.out_proj",
    ),
    "block_{i}/mlp_norm": ("norm", "encoder.layers.encoder_layer_{i}.ln_2"),
    "block_{i}/mlp/hidden": (
        "linear",
        "encoder.layers.encoder_layer_{i}.mlp.0",
        "encoder.layers.encoder_layer_{i}.mlp.linear_1",
    ),
    "block_{i}/mlp/output": (
        "linear",
        "encoder.layers.encoder_layer_{i}.mlp.3",
        "encoder.layers.encoder_layer_{i}.mlp.linear_2",
    ),
    "norm": ("norm", "encoder.ln"),
    "pre_logits": ("linear", "heads.pre_logits"),
    "head": ("linear", "heads.head"),
}


def _convert_torchvision(entries: Entries) -> Arrays:
    arrays = from_torch(entries, _TORCHVISION)
    for i in range(count_blocks(entries, _TORCHVISION)):
        attention = f"encoder.layers.encoder_layer_{i}.self_attention"
        arrays |= split_qkv(
            entries,
            f"{attention}.in_proj_weight",
            f"{names.block_name(i)}/self_attention",
            f"{attention}.in_proj_bias",
        )
    return arrays


def to_timm(model: keras.Model) -> dict[str, np.ndarray]:
    """Return the weights of a plain ViT by the names of timm's `VisionTransformer`.

    timm's model must have the same sizes, the same activation, and `norm_layer` with the same
    epsilon. Normalise its pixels by the `mean` and `std` of `model.preprocessing`. Further settings
    of timm's model:

    * `global_pool="avg"` and `fc_norm=False` if the head reads the average of the patches.
    * `global_pool="max"` and `fc_norm=False` if the head reads the maximum of the patches.
    * `no_embed_class=True` for register tokens.
    * `mlp_layer=SwiGLUPacked` for gated MLPs.
    * The class `VisionTransformerDistilled` if the head reads the class token and a register.

    Args:
        model: A `VisionTransformer`, or a functional model of a ViT with another head.

    Returns:
        A dictionary from names to numpy arrays. Save it with `safetensors.numpy.save_file`. Or
        convert each array by `torch.from_numpy`, and call `load_state_dict` of timm's model.

    Raises:
        ValueError: If timm has no such model. Examples are models of videos, and models with a
            TokenLearner, a convolutional stem, vector attention or `pre_norm`. Also if `head_reads`
            is `"attention"` or `"class_and_average"`, or `"class_and_registers"` without exactly
            one register. Also if the pooling includes prefix tokens. Also if the model has LoRA
            weights or quantized weights.

    Example:

    >>> from keras_tokenlearner import create_model
    >>> entries = to_timm(create_model("vit_pico8", classes=10))
    >>> entries["pos_embed"].shape, entries["blocks.0.attn.qkv.weight"].shape
    ((1, 16, 32), (96, 32))
    """
    structure = Structure("to_timm", model)
    arrays, reads = structure.arrays(), structure.head_reads
    config, registers = structure.config, len(arrays.get(names.REGISTERS, ()))
    is_distilled = reads == "class_and_registers"
    unknown = config.newer
    unknown += [layer.name for layer in structure.reducers]  # may have no weights
    unknown += ["block_attention='vector'"] if config.block_attention == "vector" else []
    unknown += [names.PRE_NORM] if f"{names.PRE_NORM}/gamma" in arrays else []
    is_read = reads in (None, "average", "max") or (is_distilled and registers == 1)
    unknown += [] if is_read else [f"head_reads={reads!r}"]
    unknown += ["LoRA weights"] if has_lora(model) else []
    is_quantized = quantization_of(model) or integer_weights(model)
    unknown += ["quantized weights"] if is_quantized else []
    if not unknown:  # a setting may be the cause of a layer
        table = numbered(NAMES, structure.num_blocks)
        layers = {path.rpartition("/")[0] for path in arrays if path not in table}
        unknown = sorted(layers - table.keys())
    if unknown or len(structure.grid) != 2:
        raise ValueError(
            "to_timm: `model` must be a plain ViT for images, which timm can represent. "
            f"Received: a model with grid={structure.grid}. Not in a plain ViT: {unknown}"
        )
    entries = to_torch(
        arrays,
        {ours: row for ours, row in NAMES.items() if ours.rpartition("/")[2] not in _JOINED},
        structure.num_blocks,
    )
    for i in range(structure.num_blocks):
        parts = [f"{names.block_name(i)}/self_attention/{part}" for part in _PARTS]
        channels = arrays[f"{parts[0]}/kernel"].shape[0]
        kernels = [arrays[f"{part}/kernel"].reshape(channels, -1).T for part in parts]
        biases = [arrays[f"{part}/bias"].reshape(-1) for part in parts]
        entries[f"blocks.{i}.attn.qkv.weight"] = np.concatenate(kernels)
        entries[f"blocks.{i}.attn.qkv.bias"] = np.concatenate(biases)
    if is_distilled:
        entries["dist_token"] = entries.pop("reg_token")
    if is_distilled and "head.weight" in entries:  # timm averages two heads
        entries["head_dist.bias"] = entries["head.bias"]
        kernels = np.split(2 * entries["head.weight"], 2, axis=1)
        entries["head.weight"], entries["head_dist.weight"] = kernels
    # The prefix tokens already include their positions.
    before = structure.num_prefix_tokens if is_distilled or not registers else 0
    entries["pos_embed"] = np.pad(entries["pos_embed"], ((0, 0), (before, 0), (0, 0)))
    return {name: np.ascontiguousarray(array) for name, array in entries.items()}


_ANCHORS = ("patch_embed.proj.weight",)
META_DINOV3 = ("storage_tokens", "rope_embed")  # parts of names in Meta's files of DINOv3
# Many families share the names of timm's ViT: only config.json states the family of a file.
TIMM = Source(
    convert,
    anchors=_ANCHORS,
    marks=("blocks.0.",),
    alien=("mask_token", *META_DINOV3),
    choices={
        "activation": ("gelu", "gelu_tanh", "quick_gelu", "silu"),
        "layer_norm_epsilon": (1e-6, 1e-5),
        "normalization": ("half", "imagenet", "clip"),
    },
    gated_mlp=_GATED_MLP,
    wide_head={"head_reads": "class_and_registers"},
)
TIMM_DEIT = replace(
    TIMM,
    alien=("mask_token", "norm_pre", "fc_norm", *META_DINOV3),
    proof=("dist_token",),
    config=_CONFIG,
    choices={},
    normalization="imagenet",
)
DINOV2 = Source(
    convert,
    anchors=_ANCHORS,
    marks=("ls1.gamma", "blocks.0."),
    alien=("dist_token", "norm_pre", "fc_norm", *META_DINOV3),
    proof=("mask_token",),
    config=_CONFIG,
    gated_mlp=_GATED_MLP,
    wide_head={"head_reads": "class_and_average"},
    resize_without_registers="bicubic_offset",
    normalization="imagenet",
    ignored=("mask_token",),  # used only in training
)
TORCHVISION = Source(
    _convert_torchvision,
    anchors=("conv_proj.weight",),
    marks=("encoder_layer_0",),
    config=_CONFIG,
    resize="bicubic_aligned",
    normalization="imagenet",
)
