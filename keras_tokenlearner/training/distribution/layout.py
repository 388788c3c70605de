import keras

# The divided axis of each weight, by the end of its path: heads in attention, hidden units in MLPs.
# The first weight of a pair is divided along its outputs, the second along its inputs. Devices then
# exchange only two sums per block: one for the attention, one for the MLP.
_AXES = {
    r"self_attention/(query|key|value)/kernel": (None, "model", None),  # (C, heads, d)
    r"self_attention/(query|key|value)/bias": ("model", None),
    r"self_attention/attention_output/kernel": ("model", None, None),  # (heads, d, C)
    r"mlp/(hidden|gate)/kernel": (None, "model"),
    r"mlp/(hidden|gate)/bias": ("model",),
    r"mlp/output/kernel": ("model", None),
}


def transformer_layout(mesh: keras.distribution.DeviceMesh) -> keras.distribution.LayoutMap:
    """Return the layout that divides weights of our transformers over the `model` axis of a mesh.

    Args:
        mesh: A `keras.distribution.DeviceMesh` with an axis `"model"`.

    Returns:
        A `keras.distribution.LayoutMap`. Other weights are on every device.

    Source: Shoeybi et al., "Megatron-LM: Training Multi-Billion Parameter Language Models Using
    Model Parallelism", 2019, section 3.
    """
    layout = keras.distribution.LayoutMap(mesh)
    for path, axes in _AXES.items():
        layout[rf".*block_\d+/{path}"] = axes
    return layout
