"""ViT and DeiT of timm, from its names and to them."""

from dataclasses import replace

import numpy as np

from keras_tokenlearner.models.structure import Structure
from keras_tokenlearner.weights.source import IMAGENET, ZEROS, Named, Source
from keras_tokenlearner.weights.torch_layers import (
    average_heads,
    count_blocks,
    from_torch,
    to_torch,
)

# DINOv2's names, as Meta publishes them, follow timm's. The distillation token of DeiT is a
# register to us.
NAMES = {
    "embedding/projection": ("conv", "patch_embed.proj"),
    "class_token/tokens": ("rows", "cls_token"),
    "register_tokens/tokens": ("rows", "reg_token", "register_tokens", "dist_token"),
    "positions/table": ("rows", "pos_embed"),
    "pre_norm": ("norm", "norm_pre"),
    "block_{i}/attention_norm": ("norm", "blocks.{i}.norm1"),
    "block_{i}/self_attention/attention_output": ("heads_out", "blocks.{i}.attn.proj"),
    "block_{i}/self_attention_scale/gamma": ("raw", "blocks.{i}.ls1.gamma"),
    "block_{i}/mlp_norm": ("norm", "blocks.{i}.norm2"),
    "block_{i}/mlp/hidden": ("linear", "blocks.{i}.mlp.fc1", "blocks.{i}.mlp.w12"),
    "block_{i}/mlp/output": ("linear", "blocks.{i}.mlp.fc2", "blocks.{i}.mlp.w3"),
    "block_{i}/mlp_scale/gamma": ("raw", "blocks.{i}.ls2.gamma"),
    "norm": ("norm", "norm"),
    "head": ("linear", "head"),
}
CONFIG = {"activation": "gelu", "layer_norm_epsilon": 1e-6}
GATED_MLP = {"activation": "silu"}
_PARTS = ("query", "key", "value")


def convert(entries, heads):
    """Convert timm's entries, or Meta's of DINOv2."""
    arrays = from_torch(entries, NAMES, heads) | average_heads(entries, ("head", "head_dist"))
    for i in range(count_blocks(entries, NAMES)):
        arrays |= _split_qkv(entries, f"blocks.{i}.attn.qkv", f"block_{i}/self_attention", heads)
    return arrays


def _split_qkv(entries, theirs, ours, heads):
    """Split a linear layer that computes query, key and value at once, (3 * H * D, C)."""
    if f"{theirs}.weight" not in entries:
        return {}
    weight, origin = entries.take(f"{theirs}.weight"), entries.full_name(f"{theirs}.weight")
    if weight.ndim != 2 or weight.shape[0] % (3 * heads):
        raise ValueError(
            f"{entries.owner}: {origin} has shape {weight.shape}, which does not divide into "
            f"query, key and value of the {heads} heads of the model"
        )
    channels = weight.shape[1]
    kernels = weight.reshape(3, heads, -1, channels).transpose(0, 3, 1, 2)  # (3, C, H, D)
    biases, bias_origin = np.zeros(kernels.shape[:1] + kernels.shape[2:], np.float32), ZEROS
    if f"{theirs}.bias" in entries:
        bias, bias_origin = entries.take(f"{theirs}.bias"), entries.full_name(f"{theirs}.bias")
        if bias.size != biases.size:
            raise ValueError(
                f"{entries.owner}: {bias_origin} has shape {bias.shape} and {origin} has shape "
                f"{weight.shape}, which do not belong together"
            )
        biases = bias.reshape(biases.shape)
    arrays = {}
    for part, kernel, bias in zip(_PARTS, kernels, biases, strict=True):
        arrays[f"{ours}/{part}/kernel"] = Named(kernel, origin)
        arrays[f"{ours}/{part}/bias"] = Named(bias, bias_origin)
    return arrays


def to_timm(model):
    """Return the weights of one of our plain ViTs by the names of timm's `VisionTransformer`.

    timm's model must have the same sizes, exact gelu where ours has it, `norm_layer` with our
    epsilon, and `fc_norm=False` where we average the tokens. Pixels are in [-1, 1], timm's mean and
    std of 0.5. With register tokens, timm's model must be built with `no_embed_class=True`; with
    gated MLPs, with `mlp_layer=SwiGLUPacked`; where the head reads the class token and a register,
    it is timm's `VisionTransformerDistilled`.

    Args:
        model: A `keras.Model` that `VisionTransformer` or `create_model` built.

    Returns:
        A dictionary of names to numpy arrays: save it with `safetensors.numpy.save_file`, or load
        it with `load_state_dict` after `torch.from_numpy` of each.

    Raises:
        ValueError: If timm has no such model: with a TokenLearner, of videos, with vector
            attention, with a LayerNorm before the blocks (timm's has no bias before it), or with a
            head that reads the average as well, or more registers than one.

    Example:

    >>> from keras_tokenlearner import create_model
    >>> entries = to_timm(create_model("vit_pico8", classes=10))
    >>> entries["pos_embed"].shape, entries["blocks.0.attn.qkv.weight"].shape
    ((1, 16, 32), (96, 32))
    """
    layout = Structure("to_timm", model)
    arrays, reads = layout.arrays(), layout.head_reads
    registers = len(arrays.get("register_tokens/tokens", ()))
    unknown = [layer.name for layer in layout.added] + layout.config.newer
    unknown += ["pre_norm"] if "pre_norm/gamma" in arrays else []
    unknown += [reads] if reads and (reads, registers) != ("class_and_registers", 1) else []
    if unknown or len(layout.grid) != 2 or "block_0/self_attention/query/kernel" not in arrays:
        raise ValueError(
            "to_timm: only image models of plain dot-product blocks have a place in timm. "
            f"Received: a model with grid={layout.grid} and layers {unknown}"
        )
    entries = to_torch(arrays, NAMES, layout.num_blocks)
    for i in range(layout.num_blocks):
        names = [f"block_{i}/self_attention/{part}" for part in _PARTS]
        channels = arrays[f"{names[0]}/kernel"].shape[0]
        kernels = [arrays[f"{name}/kernel"].reshape(channels, -1).T for name in names]
        biases = [arrays[f"{name}/bias"].reshape(-1) for name in names]
        entries[f"blocks.{i}.attn.qkv.weight"] = np.concatenate(kernels)
        entries[f"blocks.{i}.attn.qkv.bias"] = np.concatenate(biases)
    if reads:  # two heads, whose average timm takes
        entries["dist_token"] = entries.pop("reg_token")
        entries["head_dist.bias"] = entries["head.bias"]
        kernels = np.split(2 * entries["head.weight"], 2, axis=1)
        entries["head.weight"], entries["head_dist.weight"] = kernels
    # The positions of the tokens before the patches are in these tokens.
    before = layout.num_prefix_tokens if reads or not registers else 0
    entries["pos_embed"] = np.pad(entries["pos_embed"], ((0, 0), (before, 0), (0, 0)))
    return {name: np.ascontiguousarray(array) for name, array in entries.items()}


TIMM = Source(
    convert,
    anchors=("patch_embed.proj.weight",),
    config=CONFIG,
    gated_mlp=GATED_MLP,
    wide_head={"head_reads": "class_and_registers"},
)
TIMM_DEIT = replace(TIMM, normalization=IMAGENET)
