"""Config and weight paths of a ViT of timm, read from its modules."""

import numpy as np

ACTIVATIONS = {
    "GELU": "gelu",
    "GELUTanh": "gelu_tanh",
    "QuickGELU": "quick_gelu",
    "SiLU": "silu",
}
NORMS = {"LayerNorm": "layer_norm", "RmsNorm": "rms_norm"}
POOLS = {"token": None, "avg": "average", "max": "max", "map": "attention"}


def config_of(module):
    """Return the fields of our config for timm's `VisionTransformer` or `Eva`."""
    block = module.blocks[0]
    attention, mlp = block.attn, block.mlp
    fields = {
        "hidden_dim": module.embed_dim,
        "num_layers": len(module.blocks),
        "num_heads": attention.num_heads,
        "patch_size": module.patch_embed.patch_size,
        "mlp_dim": mlp.fc2.in_features,
        "gated_mlp": _kind(mlp) in ("GluMlp", "SwiGLU"),
        "activation": ACTIVATIONS[_kind(mlp.act)],
        "norm": NORMS[_kind(block.norm1)],
        "layer_norm_epsilon": block.norm1.eps,
        "qk_norm": _is(attention.q_norm),
        "qkv_bias": _qkv_bias(attention),
        "attention_bias": attention.proj.bias is not None,
        "mlp_bias": mlp.fc2.bias is not None,
        "attention_inner_norm": _is(attention.norm),
        "mlp_inner_norm": _is(mlp.norm),
        "embedding_norm": _is(module.patch_embed.norm),
        "positions": None if module.pos_embed is None else "normal",
        "class_token": module.cls_token is not None,
        "register_tokens": 0 if module.reg_token is None else module.reg_token.shape[1],
        "layer_scale": 1.0 if _scales(block) else None,
        "pre_norm": _is(module.norm_pre),
        "head_reads": POOLS[module.global_pool],
    }
    fields["final_norm"] = "tokens" if _is(module.norm) else None
    if _is(module.fc_norm):
        fields["final_norm"] = "pooled"
    if module.global_pool == "map":
        pool = module.attn_pool
        fields["pooling_num_heads"] = pool.num_heads
        fields["pooling_mlp_dim"] = pool.mlp.fc2.in_features
        # Eva pools all tokens. VisionTransformer has a setting for prefix tokens.
        prefix = fields["class_token"] or fields["register_tokens"]
        fields["pool_prefix"] = bool(prefix) and getattr(module, "pool_include_prefix", True)
    return fields | _rotary(module)


def _rotary(module):
    rope = getattr(module, "rope", None)
    if rope is None:
        return {}
    width_first = {"xy": "width_first", "ij": "height_first"}[rope.grid_indexing]
    half = module.blocks[0].attn.rotate_half
    fields = {
        "rotary_theta": float(rope.temperature),
        "rotary_order": width_first,
        "rotary_layout": "half" if half else "interleaved",
    }
    if _kind(rope) == "RotaryEmbeddingMixed":
        return fields | {"rotary": "learned"}
    fields["rotary_offset"] = float(rope.grid_offset)
    if _kind(rope) == "RotaryEmbeddingDinoV3":
        return fields | {"rotary": "centred"}
    grid = rope.ref_feat_shape
    return fields | {"rotary": "index", "rotary_grid": grid and tuple(grid)}


def _kind(module):
    return type(module).__name__


def _is(module):
    return module is not None and _kind(module) != "Identity"


def _scales(block):
    return getattr(block, "gamma_1", None) is not None or _is(getattr(block, "ls1", None))


def _qkv_bias(attention):
    if attention.qkv is None:
        if attention.k_proj.bias is not None:
            return "all"
        return "none" if attention.q_proj.bias is None else "query_value"
    if attention.qkv.bias is not None:
        return "all"
    return "none" if getattr(attention, "q_bias", None) is None else "query_value"


def weights_of(module):
    """Return the weights of a model of timm, in a dictionary by the paths of our weights."""
    state = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    width = module.embed_dim
    weights = {
        "embedding/projection/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/projection/bias": state.get("patch_embed.proj.bias", np.zeros(width)),
    }
    for ours, theirs in (
        ("embedding_norm", "patch_embed.norm"),
        ("pre_norm", "norm_pre"),
        ("norm", "norm"),
        ("norm", "fc_norm"),
    ):
        _norm(weights, state, ours, theirs)
    _positions(weights, state, module)
    for index, block in enumerate(module.blocks):
        _block(weights, state, index, block.attn)
        if "rope.freqs" in state:
            weights[f"rotary_{index}/frequencies"] = state["rope.freqs"][:, index]
    if "attn_pool.latent" in state:
        _pooling(weights, state, module.attn_pool.num_heads)
    if "head.weight" in state:
        weights["head/kernel"] = state["head.weight"].T
        weights["head/bias"] = state["head.bias"]
    return weights


def _norm(weights, state, ours, theirs):
    if f"{theirs}.bias" in state:
        weights[f"{ours}/gamma"] = state[f"{theirs}.weight"]
        weights[f"{ours}/beta"] = state[f"{theirs}.bias"]
    elif f"{theirs}.weight" in state:
        weights[f"{ours}/scale"] = state[f"{theirs}.weight"]


def _linear(weights, state, ours, theirs):
    weights[f"{ours}/kernel"] = state[f"{theirs}.weight"].T
    if f"{theirs}.bias" in state:
        weights[f"{ours}/bias"] = state[f"{theirs}.bias"]


def _positions(weights, state, module):
    """Set the position table, and add the positions of prefix tokens to these tokens."""
    names = {"class_token/tokens": "cls_token", "register_tokens/tokens": "reg_token"}
    prefix = {ours: state[theirs][0] for ours, theirs in names.items() if theirs in state}
    if "pos_embed" in state:
        table, start = state["pos_embed"][0], 0
        if not module.no_embed_class:
            for name, tokens in prefix.items():
                prefix[name] = tokens + table[start : start + len(tokens)]
                start += len(tokens)
        grid = module.patch_embed.grid_size
        weights["positions/table"] = table[start:].reshape(*grid, -1)
    weights.update(prefix)


def _block(weights, state, index, attention):
    ours, theirs = f"block_{index}", f"blocks.{index}"
    heads = attention.num_heads
    _norm(weights, state, f"{ours}/attention_norm", f"{theirs}.norm1")
    _norm(weights, state, f"{ours}/mlp_norm", f"{theirs}.norm2")
    for name, part in (("query_norm", "q_norm"), ("key_norm", "k_norm"), ("output_norm", "norm")):
        _norm(weights, state, f"{ours}/self_attention/{name}", f"{theirs}.attn.{part}")
    _norm(weights, state, f"{ours}/mlp/norm", f"{theirs}.mlp.norm")
    for part, name in enumerate(("query", "key", "value")):
        kernel, bias = _projection(state, f"{theirs}.attn", part)
        size = kernel.shape[1] // heads
        if name != "query" and "num_kv_heads" in vars(attention):
            size = kernel.shape[1] // attention.num_kv_heads
        repeats = heads * size // kernel.shape[1]  # grouped queries share keys and values
        kernel = kernel.reshape(len(kernel), -1, size).repeat(repeats, axis=1)
        weights[f"{ours}/self_attention/{name}/kernel"] = kernel
        if bias is not None:
            bias = bias.reshape(-1, size).repeat(repeats, axis=0)
            weights[f"{ours}/self_attention/{name}/bias"] = bias
    output = f"{ours}/self_attention/attention_output"
    _linear(weights, state, output, f"{theirs}.attn.proj")
    weights[f"{output}/kernel"] = weights[f"{output}/kernel"].reshape(
        heads, -1, attention.proj.out_features
    )
    for name, gammas in (
        ("self_attention", ("gamma_1", "ls1.gamma")),
        ("mlp", ("gamma_2", "ls2.gamma")),
    ):
        for gamma in gammas:
            if f"{theirs}.{gamma}" in state:
                weights[f"{ours}/{name}_scale/gamma"] = state[f"{theirs}.{gamma}"]
    if f"{theirs}.gamma_1" in state and f"{theirs}.gamma_2" not in state:
        ones = np.ones_like(state[f"{theirs}.gamma_1"])  # only the attention has a scale
        weights[f"{ours}/mlp_scale/gamma"] = ones
    _mlp(weights, state, f"{ours}/mlp", f"{theirs}.mlp", attention)


def _projection(state, theirs, part):
    """Return kernel and bias of query, key or value."""
    name = f"{theirs}.{'qkv'[part]}_proj"
    if f"{name}.weight" in state:
        return state[f"{name}.weight"].T, state.get(f"{name}.bias")
    kernel = np.split(state[f"{theirs}.qkv.weight"].T, 3, axis=1)[part]
    if f"{theirs}.qkv.bias" in state:
        return kernel, np.split(state[f"{theirs}.qkv.bias"], 3)[part]
    return kernel, state.get(f"{theirs}.{'qkv'[part]}_bias")


def _mlp(weights, state, ours, theirs, attention):
    _linear(weights, state, f"{ours}/output", f"{theirs}.fc2")
    width = len(weights[f"{ours}/output/kernel"])
    if f"{theirs}.fc1_g.weight" in state:
        _linear(weights, state, f"{ours}/gate", f"{theirs}.fc1_g")
        _linear(weights, state, f"{ours}/hidden", f"{theirs}.fc1_x")
        return
    _linear(weights, state, f"{ours}/hidden", f"{theirs}.fc1")
    if state[f"{theirs}.fc1.weight"].shape[0] == 2 * width:  # packed, the gate first
        for leaf in ("kernel", "bias"):
            packed = weights[f"{ours}/hidden/{leaf}"]
            gate, hidden = np.split(packed, 2, axis=-1)
            weights[f"{ours}/gate/{leaf}"], weights[f"{ours}/hidden/{leaf}"] = gate, hidden


def _pooling(weights, state, heads):
    weights["pooling/latent"] = state["attn_pool.latent"][0]
    key, value = np.split(state["attn_pool.kv.weight"].T, 2, axis=1)
    biases = np.split(state["attn_pool.kv.bias"], 2)
    query = state["attn_pool.q.weight"].T
    parts = {
        "query": (query, state["attn_pool.q.bias"]),
        "key": (key, biases[0]),
        "value": (value, biases[1]),
    }
    for name, (kernel, bias) in parts.items():
        weights[f"pooling/attention/{name}/kernel"] = kernel.reshape(len(kernel), heads, -1)
        weights[f"pooling/attention/{name}/bias"] = bias.reshape(heads, -1)
    output = state["attn_pool.proj.weight"].T
    weights["pooling/attention/attention_output/kernel"] = output.reshape(heads, -1, len(output))
    weights["pooling/attention/attention_output/bias"] = state["attn_pool.proj.bias"]
    _norm(weights, state, "pooling/mlp_norm", "attn_pool.norm")
    _linear(weights, state, "pooling/mlp/hidden", "attn_pool.mlp.fc1")
    _linear(weights, state, "pooling/mlp/output", "attn_pool.mlp.fc2")
