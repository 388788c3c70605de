"""Our ViT-B/16 and TokenLearner B/16, compared with other libraries' ViT on the same weights.

Run on an idle machine, with timm, transformers and keras-hub installed:

    python -m benchmarks.peers

The three models take turns in one process; `most_mib` is the memory of a process that holds one
model alone. `difference` is how far our logits are from the peer's on the same weights, in parts of
their size. A peer that is not installed is left out, and said so.
"""

import argparse
import importlib.util
from itertools import product
from pathlib import Path

from benchmarks.bars import draw_bars
from benchmarks.rows import append_row, read_rows
from benchmarks.steps import STEPS
from benchmarks.timing import BACKENDS, child, in_child, peak_mib, take_turns

# name: its backends, and its name in `keras_tokenlearner.weights`
PEERS = {
    "timm": (("torch",), "timm"),
    "transformers": (("torch",), "huggingface_vit"),
    "keras_hub": (BACKENDS, "keras_hub"),
}
ALONE = ("peer", "ours")  # whose memory is measured
MODELS = (*ALONE, "token_learner")
COLUMNS = (
    *("backend", "peer", "step", "policy", "size", "batch_size", "difference"),
    *(f"{name}_{what}" for what in ("ms", "spread") for name in MODELS),
    *(f"{name}_most_mib" for name in ALONE),
    *("ours_over_peer", "token_learner_over_peer", "ours_of_matrix_rate", "peer_of_matrix_rate"),
)


def measure(peer, step, policy, size, batch_size, repeats):
    """Return the figures of three models on the backend of this process."""
    import keras
    import numpy as np

    from benchmarks.matrix_rate import matrix_rate
    from benchmarks.steps import PASSES, random_batch
    from keras_tokenlearner.analysis import costs

    keras.config.set_dtype_policy(policy)
    models = make_models(peer, size)
    pixels, _ = random_batch(models["ours"], batch_size)
    theirs, found = (predict(models[name], pixels) for name in ("peer", "ours"))
    calls = [step_of_any(model, step, policy, batch_size, size) for model in models.values()]
    times = dict(zip(models, take_turns(calls, repeats), strict=True))
    work = PASSES[step] * batch_size * costs(models["ours"]).macs
    work /= matrix_rate(keras.config.dtype_policy().compute_dtype)
    row = {"difference": np.abs(found - theirs).max() / np.abs(theirs).max()}
    for name, measured in times.items():
        row[f"{name}_ms"], row[f"{name}_spread"] = 1e3 * measured.median, measured.spread
    for name in ("ours", "token_learner"):
        row[f"{name}_over_peer"] = times["peer"].median / times[name].median
    for name in ("ours", "peer"):
        row[f"{name}_of_matrix_rate"] = work / times[name].median
    return {name: f"{value:.4g}" for name, value in row.items()}


def most_mib(peer, step, policy, size, batch_size, only):
    """Return the most memory of this process after two steps of one model alone."""
    import keras

    keras.config.set_dtype_policy(policy)
    model = make_models(peer, size, (only,))[only]
    take_turns([step_of_any(model, step, policy, batch_size, size)], 0)
    return {f"{only}_most_mib": peak_mib()}


def make_models(peer, size, names=MODELS):
    """Return those models that are named; ours has the weights of the peer, where that is made."""
    from keras_tokenlearner import create_model
    from keras_tokenlearner.weights import load, plan_of

    shape, models = (size, size, 3), {}
    if "peer" in names:
        models["peer"] = globals()[f"_{peer}"](size)
    if "ours" in names:
        other = models.get("peer")
        source = PEERS[peer][1]
        changes = {"class_token": True, "activation": "gelu"}
        if other is not None:
            changes |= plan_of(other, source, layer_norm_epsilon=1e-6).fields
        models["ours"] = create_model("vit_b16", input_shape=shape, **changes)
        if other is not None:
            load(models["ours"], source, other, normalization="half")
    if "token_learner" in names:
        models["token_learner"] = create_model("tokenlearner_b16_8at6", input_shape=shape)
    return models


def predict(model, pixels):
    """Return the probabilities of a Keras model, or of a PyTorch module, as an array."""
    import keras

    if isinstance(model, keras.Model):
        scaled = pixels if model.get_config().get("name") == "vit_b16" else pixels / 127.5 - 1
        return model.predict_on_batch(scaled)
    import torch

    with torch.no_grad():
        logits = _logits(model, _torch_pixels(pixels))
    return torch.softmax(logits.float(), -1).numpy()


def step_of_any(model, kind, policy, batch_size, size):
    """Return `step_of` a Keras model, or the same step of a PyTorch module."""
    import keras

    from benchmarks.steps import step_of

    if isinstance(model, keras.Model):
        return step_of(model, kind, batch_size)
    import torch

    pixels = torch.rand(batch_size, 3, size, size)
    labels = torch.randint(0, 1000, (batch_size,))
    cast = torch.autocast("cpu", torch.bfloat16, enabled=policy == "mixed_bfloat16")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5)

    def inference():
        with torch.no_grad(), cast:
            _logits(model, pixels)

    def training():
        with cast:
            loss = torch.nn.functional.cross_entropy(_logits(model, pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    model.train(kind == "training")
    return inference if kind == "inference" else training


def _logits(module, pixels):
    found = module(pixels)
    return getattr(found, "logits", found)


def _torch_pixels(pixels):
    import torch

    return torch.from_numpy((pixels / 127.5 - 1).transpose(0, 3, 1, 2).copy())


def _timm(size):
    import timm

    return timm.create_model("vit_base_patch16_224", img_size=size, num_classes=1000).eval()


def _transformers(size):
    import transformers

    config = transformers.ViTConfig(image_size=size, num_labels=1000)
    return transformers.ViTForImageClassification(config).eval()


def _keras_hub(size):
    from keras_hub import models

    backbone = models.ViTBackbone(
        image_shape=(size, size, 3),
        patch_size=(16, 16),
        num_layers=12,
        num_heads=12,
        hidden_dim=768,
        mlp_dim=3072,
    )
    return models.ViTImageClassifier(backbone=backbone, num_classes=1000, activation="softmax")


def main(arguments=None):
    """Write a row for each backend, peer and step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--policy", default="float32")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/peers.csv"))
    options = parser.parse_args(arguments)
    for peer, backend, step in product(options.peers, options.backends, options.steps):
        if backend not in PEERS[peer][0]:
            continue
        if importlib.util.find_spec(peer) is None:
            print(f"left out: {peer} is not installed")
            continue
        case = {"peer": peer, "step": step, "policy": options.policy, "size": options.size}
        case["batch_size"] = options.batch_size
        found = in_child("peers", backend, case | {"repeats": options.repeats})
        for name in ALONE:
            found |= in_child("peers", backend, case | {"only": name})
        append_row(options.output, COLUMNS, {"backend": backend} | case | found)
    if rows := read_rows(options.output):
        path = options.output.with_suffix(".png")
        draw_bars(rows, path, ["peer", "backend"], ["step"], "ours_over_peer", goal=1.05)


if __name__ == "__main__":
    child(measure, most_mib) or main()
