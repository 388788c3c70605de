"""Training steps compiled without a TPU: memory per chip, and exchanged data.

    pip install 'libtpu==0.0.42.*'
    JAX_PLATFORMS=cpu KERAS_BACKEND=jax python -m benchmarks.tpu_compile tpu_compile.csv

A row is the training step of a recipe. XLA's compiler for TPUs compiles the step on a machine
without TPUs. Nothing is executed. Missing rows are appended. `--recipe`, `--set`, `--topology`,
`--mode` and `--batch` compile one step of your choice instead.

Columns:

* `state_gib`: weights, optimizer and batch, in GiB per chip.
* `temporary_gib`: all values that the step computes, in GiB per chip.
* `collectives`: data that chips exchange in a step: number of operations and MiB per chip, by kind.
* `note`: the compiler's error, if any.
"""

import argparse
import math
import os
import re
from pathlib import Path

import jax
import keras
import numpy as np
from jax.experimental import topologies

from benchmarks.rows import append_row, check_columns, read_rows
from keras_tokenlearner.training import RECIPES, with_settings
from keras_tokenlearner.training.distribution.devices import transformer_layout

# Otherwise libtpu would query the cloud's metadata server, and wait.
os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}

CHOICE = ("recipe", "settings", "topology", "mode", "batch")
COLUMNS = (*CHOICE, "state_gib", "temporary_gib", "collectives", "note")
_B16, _LEARNER_B16, _L10 = (
    f"model={name} precision=mixed_bfloat16"
    for name in ("vit_b16", "tokenlearner_b16_8at6", "tokenlearner_l10_35_16at18")
)
_STEPS = [
    ("imagenet_512", _L10, "v5e:2x2", "model_parallel:4", 1),
    ("imagenet_512", _L10, "v5e:2x2", "data_parallel", 4),
    ("imagenet_384", _B16, "v5e:2x2", "data_parallel", 64),
    ("imagenet_384", _LEARNER_B16, "v5e:2x2", "data_parallel", 64),
    ("imagenet_384", _LEARNER_B16, "v5e:4x4", "data_parallel", 256),
    ("imagenet_512", _L10, "v5e:4x4", "model_parallel:4", 4),
    ("imagenet_384", _B16, "v5e:4x4", "data_parallel", 256),
]
_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1, "s8": 1, "u8": 1}


def main(arguments=None):
    """Compile the training steps that are not in the CSV file, and append their rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--recipe", choices=RECIPES)
    parser.add_argument("--set", nargs="*", default=[], dest="settings", help="field=value")
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--mode", default="data_parallel")
    parser.add_argument("--batch", type=int, default=4, help="images of all chips together")
    options = parser.parse_args(arguments)
    given = [name for name in CHOICE if getattr(options, name) != parser.get_default(name)]
    if given and not options.recipe:
        parser.error(
            "--recipe must be given with --set, --topology, --mode or --batch; add it. "
            f"Received: {', '.join(f'{name}={getattr(options, name)}' for name in given)}"
        )
    check_columns("tpu_compile", options.path, COLUMNS, argument="path")
    chosen = (options.recipe, " ".join(options.settings), *list(vars(options).values())[3:])
    done = {tuple(row[name] for name in CHOICE) for row in read_rows(options.path)}
    for step in [chosen] if options.recipe else _STEPS:
        if tuple(map(str, step)) not in done:
            append_row(
                options.path, COLUMNS, dict(zip(CHOICE, step, strict=True)) | compiled(*step)
            )


def compiled(recipe, settings, topology, mode, batch):
    """Return the compiler's measurements of a training step.

    Args:
        recipe: Name in `RECIPES`.
        settings: Strings `field=value`, separated by spaces.
        topology: Name of the topology, for example `"v5e:2x2"`.
        mode: `"data_parallel"` or `"model_parallel:N"`.
        batch: Integer, images of all chips together.
    """
    keras.utils.clear_session()
    lowered = lower(with_settings(RECIPES[recipe](), settings.split()), topology, mode, batch)
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return {"note": str(error).splitlines()[0]}
    memory = program.memory_analysis()
    return {
        "state_gib": f"{memory.argument_size_in_bytes / 2**30:.2f}",
        "temporary_gib": f"{memory.temp_size_in_bytes / 2**30:.2f}",
        "collectives": "; ".join(
            f"{kind} {count} x, {size / 2**20:.0f} MiB"
            for kind, (count, size) in collectives(program.as_text()).items()
        ),
    }


def lower(recipe, topology, mode, batch):
    """Return the lowered training step of `fit`, with state and batch divided as in `fit`."""
    chips = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    parts = int(mode.partition(":")[2] or 1)
    mesh = keras.distribution.DeviceMesh(
        (len(chips) // parts, parts), ["batch", "model"], np.array(chips)
    )
    layouts = transformer_layout(mesh)
    model = recipe.build(classes=1000)
    model.compile(recipe.optimizer(100), "categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    data = tuple(
        _laid_out((batch, *shape[1:]), "float32", ("batch", *(None for _ in shape[1:])), mesh)
        for shape in (model.input_shape, model.output_shape)
    )

    def state(variables):
        axes = [_axes(variable, model, layouts) for variable in variables]
        pairs = zip(variables, axes, strict=True)
        return [_laid_out(v.shape, v.dtype, axes, mesh) for v, axes in pairs]

    states = tuple(
        map(
            state,
            (
                model.trainable_variables,
                model.non_trainable_variables,
                model.optimizer.variables,
                model.metrics_variables,
            ),
        )
    )
    shardings = jax.tree.map(lambda x: x.sharding, states)
    step = jax.jit(model.train_step, donate_argnums=0, out_shardings=(None, shardings))
    return step.lower(states, data)


def _axes(variable, model, layouts):
    """Return the axes that divide a variable. An optimizer's state has the axes of its weight."""
    for weight in model.trainable_variables:
        kept = variable.path.rpartition("/")[2].startswith(weight.path.replace("/", "_") + "_")
        if (variable.path == weight.path or kept) and layouts[weight.path]:
            return layouts[weight.path].axes
    return (None,) * len(variable.shape)


def _laid_out(shape, dtype, axes, mesh):
    layout = keras.distribution.TensorLayout(axes, mesh)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=layout.backend_layout)


def collectives(program):
    """Return the number and the bytes of each kind of collective in a program's text."""
    found = {}
    for shapes, kind in re.findall(rf"= (.*?) ({_KINDS})(?:-start)?\(", program):
        count, size = found.get(kind, (0, 0))
        found[kind] = count + 1, size + sum(map(_size, re.findall(r"(\w+)\[([\d,]*)\]", shapes)))
    return found


def _size(shape):
    kind, sizes = shape
    return _BYTES[kind] * math.prod(map(int, filter(None, sizes.split(","))))


if __name__ == "__main__":
    main()
