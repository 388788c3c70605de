"""Our ViT-B/16 and TokenLearner B/16, compared with other libraries' ViT on the same weights.

Run on an idle machine, with timm, transformers and keras-hub installed:

    python -m benchmarks.peers

An interrupted run continues after its last row.

A peer is the ViT of another library. The models of a row take turns in one process. These are the
peer, our model with the peer's weights, and two models that `create_model` builds by name. Compared
with our policy `mixed_bfloat16`, a peer of PyTorch runs under autocast. Compared with `bfloat16`,
its weights are bfloat16. `most_mib` is the peak memory of a process with one model, in float32.
`difference` is the largest difference between our probabilities and the peer's, divided by the
largest probability. A message names each peer that is not installed.

Rows with the mode `compiled` compare timm's module under `torch.compile` with the `.pt2` files that
`export` writes of our models. In these rows, `first_s` is the time of the first call.
"""

import argparse
import importlib.util
import tempfile
from itertools import product
from pathlib import Path

from benchmarks.bars import draw_bars
from benchmarks.formats import compiled_file
from benchmarks.rows import append_row, check_columns, read_rows
from benchmarks.steps import STEPS
from benchmarks.timing import BACKENDS, child, in_child, peak_mib, take_turns
from benchmarks.torchvision_import import import_torchvision

# name: its backends, and its name in `keras_tokenlearner.weights`
PEERS = {
    "timm": (("torch",), "timm"),
    "transformers": (("torch",), "huggingface_vit"),
    "keras_hub": (BACKENDS, "keras_hub"),
}
ALONE = ("peer", "ours")  # models whose memory is measured
NAMED = {"by_name": "vit_b16", "token_learner": "tokenlearner_b16_8at6"}
MODELS = (*ALONE, *NAMED)
MODES = ("eager", "compiled")
POLICIES = ("float32", "mixed_bfloat16", "bfloat16")
CASE = ("backend", "peer", "mode", "step", "policy", "size", "batch_size")
COLUMNS = (
    *(*CASE, "difference"),
    *(f"{name}_{what}" for what in ("ms", "spread") for name in MODELS),
    *(f"{name}_over_peer" for name in MODELS[1:]),
    *(f"{name}_of_matrix_rate" for name in ALONE),
    *(f"{name}_most_mib" for name in ALONE),
    *("peer_first_s", "ours_first_s", "graph_breaks"),
)


def measure(peer, mode, step, policy, size, batch_size, repeats):
    """Return the measurements of four models on the backend of this process."""
    import keras
    import numpy as np

    from benchmarks.matrix_rate import matrix_rate
    from benchmarks.steps import PASSES, random_batch
    from keras_tokenlearner.analysis import costs

    keras.config.set_dtype_policy(policy)
    models = make_models(peer, size)
    pixels, _ = random_batch(models["ours"], batch_size)
    work = PASSES[step] * batch_size * costs(models["ours"]).macs
    work /= matrix_rate(keras.config.dtype_policy().compute_dtype)
    if mode == "compiled":
        answers, calls = zip(*(compiled(m, pixels, policy) for m in models.values()), strict=True)
    else:
        answers = [predict(models[name], pixels, policy) for name in ALONE]
        calls = [step_of_any(model, step, policy, batch_size, size) for model in models.values()]
    times = dict(zip(models, take_turns(calls, repeats), strict=True))
    if mode == "compiled":
        answers = [answer() for answer in answers[:2]]
    row = {"difference": np.abs(answers[1] - answers[0]).max() / np.abs(answers[0]).max()}
    for name, measured in times.items():
        row[f"{name}_ms"], row[f"{name}_spread"] = 1e3 * measured.median, measured.spread
    for name in MODELS[1:]:
        row[f"{name}_over_peer"] = times["peer"].median / times[name].median
    for name in ALONE:
        row[f"{name}_of_matrix_rate"] = work / times[name].median
        if mode == "compiled":
            row[f"{name}_first_s"] = times[name].first
    if mode == "compiled":
        row["graph_breaks"] = graph_breaks()
    return {name: f"{value:.4g}" for name, value in row.items()}


def compiled(model, pixels, policy):
    """Return `(run, predict)` for a compiled model, twice the same function.

    Args:
        model: A Keras model, which is exported first, or a module of PyTorch.
        pixels: Array of pixels in [0, 255].
        policy: Name of the dtype policy.
    """
    import keras
    import torch

    from keras_tokenlearner import export

    if isinstance(model, keras.Model):
        with tempfile.TemporaryDirectory() as folder:
            path = export(model, f"{folder}/model.pt2", format="pt2", check=False)
            run_file = compiled_file(path)
        images = pixels.astype("uint8")

        def run():
            return run_file(images)["probabilities"]

    else:
        module, cast = torch.compile(_in_policy(model, policy)), _autocast(policy)
        batch = _torch_pixels(pixels, policy)

        def run():
            with torch.no_grad(), cast:
                return torch.softmax(_logits(module, batch).float(), -1).numpy()

    return run, run


def graph_breaks():
    """Return the number of graph breaks that PyTorch's compiler has counted in this process."""
    from torch._dynamo.utils import counters

    return sum(counters["graph_break"].values())


def most_mib(peer, step, policy, size, batch_size, only):
    """Return the peak memory of this process after two steps of a single model."""
    import keras

    keras.config.set_dtype_policy(policy)
    model = make_models(peer, size, (only,))[only]
    take_turns([step_of_any(model, step, policy, batch_size, size)], 0)
    return {f"{only}_most_mib": peak_mib()}


def make_models(peer, size, names=MODELS):
    """Return the named models. Our model has the peer's weights if the peer is built too."""
    from keras_tokenlearner import create_model
    from keras_tokenlearner.weights import plan_of

    shape, models = (size, size, 3), {}
    if "peer" in names:
        models["peer"] = globals()[f"{peer}_vit"](size)
    if "ours" in names:
        plan, changes = None, {"class_token": True, "activation": "gelu"}
        if "peer" in models:
            plan = plan_of(models["peer"], PEERS[peer][1], normalization="half")
            changes |= plan.fields
        models["ours"] = create_model("vit_b16", input_shape=shape, **changes)
        if plan is not None:
            plan.load(models["ours"])
    for key, name in NAMED.items():
        if key in names:
            models[key] = create_model(name, input_shape=shape)
    return models


def predict(model, pixels, policy):
    """Return the probabilities of a Keras model, or of a PyTorch module, as an array."""
    import keras

    if isinstance(model, keras.Model):
        scaled = pixels if model.get_config().get("name") == "vit_b16" else pixels / 127.5 - 1
        return model.predict_on_batch(scaled)
    import torch

    with torch.no_grad(), _autocast(policy):
        logits = _logits(_in_policy(model, policy), _torch_pixels(pixels, policy))
    return torch.softmax(logits.float(), -1).numpy()


def step_of_any(model, kind, policy, batch_size, size):
    """Return the result of `step_of` for a Keras model, or the same step for a PyTorch module."""
    import keras

    from benchmarks.steps import step_of

    if isinstance(model, keras.Model):
        return step_of(model, kind, batch_size)
    import torch

    model, cast = _in_policy(model, policy), _autocast(policy)
    pixels = torch.rand(batch_size, 3, size, size)
    pixels = pixels.bfloat16() if policy == "bfloat16" else pixels
    labels = torch.randint(0, 1000, (batch_size,))
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


def _torch_pixels(pixels, policy):
    import torch

    found = torch.from_numpy((pixels / 127.5 - 1).transpose(0, 3, 1, 2).copy())
    return found.bfloat16() if policy == "bfloat16" else found


def _in_policy(module, policy):
    return module.bfloat16() if policy == "bfloat16" else module


def _autocast(policy):
    import torch

    return torch.autocast("cpu", torch.bfloat16, enabled=policy == "mixed_bfloat16")


def timm_vit(size, **changes):
    """Return timm's ViT-B/16."""
    import_torchvision()
    import timm

    name = "vit_base_patch16_224"
    return timm.create_model(name, img_size=size, num_classes=1000, **changes).eval()


def transformers_vit(size):
    """Return the ViT-B/16 of transformers."""
    import_torchvision()
    import transformers

    config = transformers.ViTConfig(image_size=size, num_labels=1000)
    return transformers.ViTForImageClassification(config).eval()


def keras_hub_vit(size, num_layers=12, num_heads=12, hidden_dim=768):
    """Return KerasHub's ViT with patches of 16 x 16."""
    from keras_hub import models

    backbone = models.ViTBackbone(
        image_shape=(size, size, 3),
        patch_size=(16, 16),
        num_layers=num_layers,
        num_heads=num_heads,
        hidden_dim=hidden_dim,
        mlp_dim=4 * hidden_dim,
    )
    return models.ViTImageClassifier(backbone=backbone, num_classes=1000, activation="softmax")


def main(arguments=None):
    """Measure the missing cases, and append a row to the CSV file for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 1])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/peers.csv"))
    options = parser.parse_args(arguments)
    if not cases(options):
        given = ("backends", "peers", "steps", "modes", "policies")
        parser.error(
            "the options must leave a case to measure, see `cases`; omit one of them. Received: "
            + " ".join(f"--{name} {' '.join(getattr(options, name))}" for name in given)
        )
    check_columns("peers", options.output, COLUMNS)
    done = [tuple(map(row.get, CASE)) for row in read_rows(options.output)]
    left = [case for case in cases(options) if tuple(map(str, case.values())) not in done]
    print(f"{len(left)} cases to measure; {options.output} has the others")
    for case in left:
        peer, backend = case["peer"], case["backend"]
        if importlib.util.find_spec(peer) is None:
            print(f"skipped: {peer} is not installed")
            continue
        wanted = {name: value for name, value in case.items() if name != "backend"}
        found = in_child("peers", backend, wanted | {"repeats": options.repeats})
        if (case["mode"], case["policy"]) == ("eager", "float32") and case["batch_size"] > 1:
            del wanted["mode"]
            for name in ALONE:
                found |= in_child("peers", backend, wanted | {"only": name})
        append_row(options.output, COLUMNS, case | found)
    size = str(options.size)
    if rows := [row for row in read_rows(options.output) if row["size"] == size]:
        path = options.output.with_suffix(".png")
        groups, series = ["peer", "backend", "mode"], ["policy", "step", "batch_size"]
        draw_bars(rows, path, groups, series, "ours_over_peer", goal=1.0)


def cases(options):
    """Return the cases to measure, as dictionaries of the first columns of the CSV file."""
    found, first = [], options.batch_sizes[0]
    for policy, peer, backend in product(options.policies, options.peers, options.backends):
        kinds = [("eager", "inference", batch) for batch in options.batch_sizes]
        if policy == "float32":
            kinds.append(("eager", "training", first))
        if peer == "timm":
            kinds.append(("compiled", "inference", first))
        for mode, step, batch in kinds:
            if backend in PEERS[peer][0] and mode in options.modes and step in options.steps:
                values = (backend, peer, mode, step, policy, options.size, batch)
                found.append(dict(zip(CASE, values, strict=True)))
    return found


if __name__ == "__main__":
    child(measure, most_mib) or main()
