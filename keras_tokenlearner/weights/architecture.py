"""Reads the architecture of a checkpoint from the names and shapes of its arrays."""

from __future__ import annotations

from keras_tokenlearner.models import names
from keras_tokenlearner.models.config_fields import FieldValue
from keras_tokenlearner.weights.sources.source import ZEROS, Arrays, Entries, Source

_FIRST = names.block_name(0)


def sizes_of(arrays: Arrays) -> dict[str, FieldValue]:
    """Return the config fields for the sizes of a model, from the names and shapes of arrays."""
    sizes: dict[str, FieldValue] = {}
    kernel = arrays.get(names.EMBEDDING_KERNEL)
    if kernel is not None and kernel.array.ndim in (4, 5):
        sizes["patch_size"] = tuple(kernel.array.shape[:-2])
        sizes["hidden_dim"] = kernel.array.shape[-1]
    blocks = {names.block_index(path) for path in arrays} - {None}
    if blocks:
        sizes["num_layers"] = len(blocks)
    hidden = arrays.get(f"{_FIRST}/mlp/output/kernel")
    if hidden is not None and hidden.array.ndim == 2:
        sizes["mlp_dim"] = hidden.array.shape[0]
    query = arrays.get(f"{_FIRST}/self_attention/query/kernel")
    if query is not None and query.array.ndim == 3:
        sizes["num_heads"] = query.array.shape[1]
    return sizes


def fields_of(arrays: Arrays, recipe: Source) -> dict[str, FieldValue]:
    """Return the config fields, except sizes, that the arrays of a checkpoint determine."""
    config: dict[str, FieldValue] = {
        "class_token": names.CLASS_TOKENS in arrays,
        "pre_norm": f"{names.PRE_NORM}/gamma" in arrays,
    }
    if names.REGISTERS in arrays:
        config["register_tokens"] = len(arrays[names.REGISTERS].array)
    if f"{_FIRST}/self_attention_scale/gamma" in arrays:
        config["layer_scale"] = 1.0
    config |= _newer(arrays)
    if names.HEAD_KERNEL in arrays:
        config |= recipe.classifier
        if names.HEAD_BIAS not in arrays:
            config["head_bias"] = False
    if config.get("final_norm") == "pooled":
        config |= recipe.pooled_norm
    if names.NORM_GAMMA not in arrays and names.HEAD_KERNEL not in arrays:
        config |= recipe.without_norm
    if f"{_FIRST}/mlp/gate/kernel" in arrays:
        config |= {"gated_mlp": True} | dict(recipe.gated_mlp)
    channels = arrays[names.NORM_GAMMA].array.size if names.NORM_GAMMA in arrays else 0
    if names.HEAD_KERNEL in arrays and len(arrays[names.HEAD_KERNEL].array) == 2 * channels:
        config |= recipe.wide_head
    learner = [path for path in arrays if path.startswith(names.TOKEN_LEARNER)]
    fuser = [path for path in arrays if path.startswith(names.TOKEN_FUSER)]
    if any("/conv_" in path for path in learner):
        config |= {"token_attention": "conv"} | dict(recipe.conv_learner)
    elif learner:
        config |= {"token_attention": "mlp"}
    if fuser:
        config["fuser_beta"] = "mlp" if any("/blend/hidden" in p for p in fuser) else "linear"
        if not any("/norm_before" in p for p in fuser):  # the authors' use_normalization=False
            config["fuser_norm"] = "inputs" if any("/norm_inputs" in p for p in fuser) else "none"
    return config


def name_norms(arrays: Arrays, rms: bool) -> None:
    """Rename the weights of norms in `arrays` as in our models.

    If the file has no other last norm, the norm after the pooling becomes the last norm. The weight
    of an RMSNorm becomes `scale`, as in Keras.

    Args:
        arrays: Dictionary from paths of our variables to `Named` arrays.
        rms: Boolean, whether norms without shifts are RMSNorms.
    """
    if f"{names.FC_NORM}/gamma" in arrays and names.NORM_GAMMA not in arrays:
        for leaf in ("gamma", "beta"):
            arrays[f"{names.NORM}/{leaf}"] = arrays.pop(f"{names.FC_NORM}/{leaf}")
    if not rms:
        return
    for path in [path for path in arrays if path.endswith("/beta")]:
        if arrays[path].origin == ZEROS:  # RMSNorm: a scale without a shift
            norm = path.removesuffix("/beta")
            arrays[f"{norm}/scale"] = arrays.pop(f"{norm}/gamma")
            del arrays[path]


def features_lacking(arrays: Arrays) -> tuple[str, ...]:
    """Return descriptions of the parts of an architecture that this package does not support.

    Args:
        arrays: Dictionary from paths of our variables to `Named` arrays of a checkpoint.
    """
    lacking = ["norms before and after the pooling"] if f"{names.FC_NORM}/gamma" in arrays else []
    kernel, norm = arrays.get(names.HEAD_KERNEL), arrays.get(names.NORM_GAMMA)
    if (
        kernel is not None
        and norm is not None
        and f"{names.PRE_LOGITS}/kernel" not in arrays
        and len(kernel.array) > 2 * norm.array.size
    ):
        lacking.append("a head that reads class tokens of several blocks")
    return tuple(lacking)


def features_are_a_mean(arrays: Arrays) -> bool:
    """Return whether a file's features are the mean of two tokens (timm's DeiT without head)."""
    registers = arrays.get(names.REGISTERS)
    distilled = registers is not None and registers.origin.endswith("dist_token")
    return distilled and names.HEAD_KERNEL not in arrays


def _newer(arrays: Arrays) -> dict[str, FieldValue]:
    """Return the config fields that differ from a plain ViT, as far as the arrays show them."""
    config: dict[str, FieldValue] = {}
    for name, part in (
        ("qk_norm", f"{_FIRST}/self_attention/query_norm/"),
        ("attention_inner_norm", f"{_FIRST}/self_attention/output_norm/"),
        ("mlp_inner_norm", f"{_FIRST}/mlp/norm/"),
        ("embedding_norm", f"{names.EMBEDDING_NORM}/"),
    ):
        if any(path.startswith(part) for path in arrays):
            config[name] = True
    attention = f"{_FIRST}/self_attention"
    without = {
        part
        for part in ("query", "key", "value", "attention_output")
        if f"{attention}/{part}/bias" in arrays
        and arrays[f"{attention}/{part}/bias"].origin == ZEROS
    }
    if {"query", "key", "value"} <= without:
        config["qkv_bias"] = "none"
    elif "key" in without:
        config["qkv_bias"] = "query_value"
    if "attention_output" in without:
        config["attention_bias"] = False
    bias = arrays.get(f"{_FIRST}/mlp/output/bias")
    if bias is not None and bias.origin == ZEROS:
        config["mlp_bias"] = False
    if f"{names.FC_NORM}/gamma" not in arrays and _is_pooled(arrays):
        config["final_norm"] = "pooled"
    if f"{names.PRE_LOGITS}/kernel" in arrays:
        config["pre_logits"] = arrays[f"{names.PRE_LOGITS}/kernel"].array.shape[-1]
    return config | _pooling(arrays)


def may_be_rotary(entries: Entries) -> bool:
    """Return whether a timm file may be of `Eva`, whose rotary positions may have no weights."""
    found = [name for name in entries if name.startswith(("blocks.0.", "attn_pool", "norm_pre"))]
    marks = ("attn.q_proj.weight", "attn.q_bias", "0.gamma_1")
    eva = any(name.endswith(marks) for name in found)
    encoder = any("attn_pool" in name for name in found) and "norm_pre.weight" in entries
    return eva or encoder or "pos_embed" not in entries


def _is_pooled(arrays: Arrays) -> bool:
    """Return whether the last norm of a file follows the pooling, by its name in the file."""
    paths = (names.NORM_GAMMA, f"{names.NORM}/scale")
    return any(names.FC_NORM in arrays[path].origin for path in paths if path in arrays)


def _pooling(arrays: Arrays) -> dict[str, FieldValue]:
    """Return the config fields of attention pooling."""
    if names.LATENT not in arrays:
        return {}
    config: dict[str, FieldValue] = {"head_reads": "attention"}
    layers = (names.POOLING, _FIRST)
    hidden, block = (arrays.get(f"{layer}/mlp/output/kernel") for layer in layers)
    if hidden is None:
        config["pooling_mlp_dim"] = 0
    elif block is None or len(hidden.array) != len(block.array):
        config["pooling_mlp_dim"] = len(hidden.array)
    query = arrays.get(f"{names.POOLING}/attention/query/kernel")
    if query is not None and query.array.ndim == 3:
        config["pooling_num_heads"] = query.array.shape[1]
    return config
