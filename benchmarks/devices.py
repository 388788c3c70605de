"""Memory and operations per device in a training step of the largest models, computed.

    python -m benchmarks.devices

Each replica of the model has one example, in mixed bfloat16. Nothing is executed. Columns in GiB
per device:

* `state_gib`: sixteen bytes per weight, for value, gradient, momentum and average in float32.
* `activations_gib`: activations that the blocks store for the backward pass, at two bytes per
  number. The formula is from Korthikanti et al., "Reducing Activation Recomputation in Large
  Transformer Models", 2022, section 4, without dropout. It is a lower bound, because a compiler
  needs working memory too.
* `exchanged_gib`: data that a device sends in a step, if devices exchange data in rings. Among the
  replicas, the device sends gradients of its weights, at two bytes. Within a replica, it sends four
  sums of tokens per block.

`tera_macs` are multiply-adds of a device, three times the number of the forward pass.
"""

import argparse
import math
from pathlib import Path

import keras

from benchmarks.rows import append_row, replace_file
from keras_tokenlearner import create_model
from keras_tokenlearner.analysis import costs
from keras_tokenlearner.layers import TransformerBlock
from keras_tokenlearner.training.distribution.devices import transformer_layout

COLUMNS = ("model", "mode", "devices", "examples")
COLUMNS += ("state_gib", "activations_gib", "total_gib", "tera_macs", "exchanged_gib")
MODELS = ("tokenlearner_l10_35_16at18", "tokenlearner_vivit_l10_35_16at18")


def main(arguments=None):
    """Write a row for each model, parallelism and number of devices."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument(
        "--parts", nargs="+", type=int, default=[1, 4, 16], help="devices per replica"
    )
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 4, 16, 64, 256])
    parser.add_argument("--output", type=Path, default="benchmarks/results/devices.csv")
    options = parser.parse_args(arguments)
    if max(options.devices) < min(options.parts):
        parser.error(
            "--devices must be at least one of --parts; raise it. "
            f"Received: --parts {options.parts} --devices {options.devices}"
        )
    replace_file(options.output)
    for name in options.models:
        model = create_model(name)
        for parts in options.parts:
            for devices in options.devices:
                if devices >= parts:
                    row = {"model": name} | of_a_device(model, parts, devices)
                    append_row(options.output, COLUMNS, row, ("keras",))
        keras.utils.clear_session()


def of_a_device(model, parts, devices):
    """Return memory and operations per device, for replicas that `parts` devices share."""
    mesh = keras.distribution.DeviceMesh((1, 1), ["batch", "model"], ["cpu:0"])
    layout = transformer_layout(mesh)
    weights = {weight.path: math.prod(weight.shape) for weight in model.trainable_variables}
    shared = sum(size for path, size in weights.items() if layout[path])
    own = sum(weights.values()) - shared + shared / parts
    blocks = [layer for layer in model.layers if isinstance(layer, TransformerBlock)]
    kept = sum(activations(block, parts) for block in blocks)
    counted = costs(model)
    in_blocks = sum(counted.layers[block.name].macs for block in blocks)
    sums = sum(4 * 2 * math.prod(block.input.shape[1:]) for block in blocks)
    replicas = devices // parts
    figures = {
        "state_gib": 16 * own / 2**30,
        "activations_gib": kept / 2**30,
        "total_gib": (16 * own + kept) / 2**30,
        "tera_macs": 3 * (counted.macs - in_blocks + in_blocks / parts) / 1e12,
        "exchanged_gib": (_ring(2 * own, replicas) + _ring(sums, parts)) / 2**30,
    }
    return {
        "mode": f"model_parallel:{parts}" if parts > 1 else "data_parallel",
        "devices": devices,
        "examples": replicas,
        **{name: f"{figure:.3g}" for name, figure in figures.items()},
    }


def activations(block, parts=1):
    """Return the bytes per device that a block stores for one example on `parts` devices."""
    _, tokens, channels = block.input.shape
    hidden, heads = block.mlp.mlp_dim, block.num_heads
    # Inputs of both norms, of the attention and of the MLP are on every device.
    everywhere = 4 * tokens * channels
    # Queries, keys, values, outputs of the heads, both sides of the MLP's activation, and
    # attention.
    divided = 4 * tokens * channels + 2 * tokens * hidden + heads * tokens**2
    return 2 * (everywhere + divided / parts)


def _ring(size, members):
    """Return the bytes that each device of a ring sends to sum `size` bytes over the ring."""
    return 2 * size * (members - 1) / members


if __name__ == "__main__":
    main()
