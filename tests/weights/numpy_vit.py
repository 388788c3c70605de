"""The JAX ViT in numpy, by the names of its checkpoints: a reference without any library."""

import numpy as np


def forward(entries, images, class_token=True):
    """Return the logits of images in [-1, 1], (B, H, W, 3)."""
    kernel, batch = entries["embedding/kernel"], len(images)
    height, width = kernel.shape[:2]
    rows, columns = images.shape[1] // height, images.shape[2] // width
    patches = images.reshape(batch, rows, height, columns, width, 3).transpose(0, 1, 3, 2, 4, 5)
    x = patches.reshape(batch, rows * columns, -1) @ kernel.reshape(-1, kernel.shape[-1])
    x = x + entries["embedding/bias"]
    if class_token:
        x = np.concatenate([np.repeat(entries["cls"], batch, 0), x], 1)
    x = x + entries["Transformer/posembed_input/pos_embedding"]
    i = 0
    while f"Transformer/encoderblock_{i}/LayerNorm_0/scale" in entries:
        block = f"Transformer/encoderblock_{i}"
        y = _norm(entries, f"{block}/LayerNorm_0", x)
        x = x + _attention(entries, f"{block}/MultiHeadDotProductAttention_1", y)
        y = _dense(
            entries, f"{block}/MlpBlock_3/Dense_0", _norm(entries, f"{block}/LayerNorm_2", x)
        )
        y = y * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x = x + _dense(entries, f"{block}/MlpBlock_3/Dense_1", y)
        i += 1
    x = _norm(entries, "Transformer/encoder_norm", x)
    return _dense(entries, "head", x[:, 0] if class_token else x.mean(1))


def _dense(entries, name, x):
    return x @ entries[f"{name}/kernel"] + entries[f"{name}/bias"]


def _norm(entries, name, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * entries[f"{name}/scale"] + entries[f"{name}/bias"]


def _attention(entries, name, x):
    q, k, v = (
        np.einsum("bnc,chd->bhnd", x, entries[f"{name}/{part}/kernel"])
        + entries[f"{name}/{part}/bias"][:, None]
        for part in ("query", "key", "value")
    )
    logits = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    y = weights / weights.sum(-1, keepdims=True) @ v
    kernel = entries[f"{name}/out/kernel"]
    return np.einsum("bhnd,hdc->bnc", y, kernel) + entries[f"{name}/out/bias"]
