"""The architecture of a checkpoint: the fields of a config that its arrays show."""

from __future__ import annotations

from keras_tokenlearner.models import names
from keras_tokenlearner.weights.sources.source import ZEROS, Arrays, Entries, FieldValue, Source


def sizes_of(arrays: Arrays) -> dict[str, FieldValue]:
    """Return the sizes of a model, read from the shapes of its arrays."""
    sizes: dict[str, FieldValue] = {}
    kernel = arrays.get("embedding/projection/kernel")
    if kernel is not None and kernel.array.ndim in (4, 5):
        sizes["patch_size"] = tuple(kernel.array.shape[:-2])
        sizes["hidden_dim"] = kernel.array.shape[-1]
    blocks = {names.block_index(path) for path in arrays} - {None}
    if blocks:
        sizes["num_layers"] = len(blocks)
    hidden = arrays.get("block_0/mlp/output/kernel")
    if hidden is not None and hidden.array.ndim == 2:
        sizes["mlp_dim"] = hidden.array.shape[0]
    query = arrays.get("block_0/self_attention/query/kernel")
    if query is not None and query.array.ndim == 3:
        sizes["num_heads"] = query.array.shape[1]
    return sizes


def fields_of(arrays: Arrays, recipe: Source) -> dict[str, FieldValue]:
    """Return the config fields that the arrays of a file determine, except its sizes."""
    paths = {"".join(c for c in path if not c.isdigit()).strip("_") for path in arrays}
    config: dict[str, FieldValue] = {
        "class_token": "class_token/tokens" in arrays,
        "pre_norm": "pre_norm/gamma" in arrays,
    }
    if "register_tokens/tokens" in arrays:
        config["register_tokens"] = len(arrays["register_tokens/tokens"].array)
    if "block_0/self_attention_scale/gamma" in arrays:
        config["layer_scale"] = 1.0
    config |= _newer(arrays)
    if "head/kernel" in arrays:
        config |= recipe.classifier
    if config.get("final_norm") == "pooled":
        config |= recipe.pooled_norm
    if "block_/mlp/gate/kernel" in paths:
        config |= {"gated_mlp": True} | dict(recipe.gated_mlp)
    channels = arrays["norm/gamma"].array.size if "norm/gamma" in arrays else 0
    if "head/kernel" in arrays and len(arrays["head/kernel"].array) == 2 * channels:
        config |= recipe.wide_head
    if any(p.startswith("token_learner") and "/conv_/kernel" in p for p in paths):
        config |= {"token_attention": "conv"} | dict(recipe.conv_learner)
    elif any(p.startswith("token_learner") for p in paths):
        config |= {"token_attention": "mlp"}
    if any(p.startswith("token_fuser") for p in paths):
        config["fuser_beta"] = "mlp" if any("/blend/hidden" in p for p in paths) else "linear"
        if not any("/norm_before" in p for p in paths):  # the authors' use_normalization=False
            config["fuser_norm"] = "inputs" if any("/norm_inputs" in p for p in paths) else "none"
    return config


def name_norms(arrays: Arrays, rms: bool) -> None:
    """Rename a norm after the pooling to the last norm, and scales of RMSNorm as in Keras."""
    if "fc_norm/gamma" in arrays and "norm/gamma" not in arrays:
        for leaf in ("gamma", "beta"):
            arrays[f"{names.NORM}/{leaf}"] = arrays.pop(f"fc_norm/{leaf}")
    if not rms:
        return
    for path in [path for path in arrays if path.endswith("/beta")]:
        if arrays[path].origin == ZEROS:  # a norm without shift, unlike LayerScale
            norm = path.removesuffix("/beta")
            arrays[f"{norm}/scale"] = arrays.pop(f"{norm}/gamma")
            del arrays[path]


def features_lacking(arrays: Arrays) -> tuple[str, ...]:
    """Return the features of a file's model that this package lacks, in words."""
    lacking = ["norms before and after the pooling"] if "fc_norm/gamma" in arrays else []
    kernel, norm = arrays.get("head/kernel"), arrays.get("norm/gamma")
    if (
        kernel is not None
        and norm is not None
        and "pre_logits/kernel" not in arrays
        and len(kernel.array) > 2 * norm.array.size
    ):
        lacking.append("a head that reads class tokens of several blocks")
    return tuple(lacking)


def _newer(arrays: Arrays) -> dict[str, FieldValue]:
    """Return the fields of the newer families that the arrays of a file show."""
    config: dict[str, FieldValue] = {}
    for name, part in (
        ("qk_norm", "block_0/self_attention/query_norm/"),
        ("attention_inner_norm", "block_0/self_attention/output_norm/"),
        ("mlp_inner_norm", "block_0/mlp/norm/"),
        ("embedding_norm", "embedding_norm/"),
    ):
        if any(path.startswith(part) for path in arrays):
            config[name] = True
    attention = "block_0/self_attention"
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
    if "block_0/mlp/output/bias" in arrays and arrays["block_0/mlp/output/bias"].origin == ZEROS:
        config["mlp_bias"] = False
    if "fc_norm/gamma" not in arrays and _is_pooled(arrays):
        config["final_norm"] = "pooled"
    if "pre_logits/kernel" in arrays:
        config["pre_logits"] = arrays["pre_logits/kernel"].array.shape[-1]
    return config | _pooling(arrays)


def may_be_rotary(entries: Entries) -> bool:
    """Return whether a timm file may be an Eva, whose rotary positions have no weights."""
    found = [name for name in entries if name.startswith(("blocks.0.", "attn_pool", "norm_pre"))]
    marks = ("attn.q_proj.weight", "attn.q_bias", "0.gamma_1")
    eva = any(name.endswith(marks) for name in found)
    encoder = any("attn_pool" in name for name in found) and "norm_pre.weight" in entries
    return eva or encoder or "pos_embed" not in entries


def _is_pooled(arrays: Arrays) -> bool:
    """Return whether the last norm of a file follows the pooling, as its original name shows."""
    paths = (f"{names.NORM}/gamma", f"{names.NORM}/scale")
    return any("fc_norm" in arrays[path].origin for path in paths if path in arrays)


def _pooling(arrays: Arrays) -> dict[str, FieldValue]:
    """Return the config fields of attention pooling."""
    if "pooling/latent" not in arrays:
        return {}
    config: dict[str, FieldValue] = {"head_reads": "attention"}
    hidden, block = (arrays.get(f"{start}mlp/output/kernel") for start in ("pooling/", "block_0/"))
    if hidden is None:
        config["pooling_mlp_dim"] = 0
    elif block is None or len(hidden.array) != len(block.array):
        config["pooling_mlp_dim"] = len(hidden.array)
    query = arrays.get("pooling/attention/query/kernel")
    if query is not None and query.array.ndim == 3:
        config["pooling_num_heads"] = query.array.shape[1]
    return config
