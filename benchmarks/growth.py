"""Growth of time and memory with resolution, frames and tokens, with and without TokenLearner.

Run on an idle machine:

    python -m benchmarks.growth

A row is one inference step of one example, in its own process. `step_mib` is the memory of the step
without weights and program. On JAX, the compiler reports this memory. On other backends, it is the
growth of the process's memory. Exponents are fitted over the number of tokens, for the larger half
of the sizes. The largest size for 16 GB is extrapolated by a line through the memory of the two
largest sizes. On JAX, two larger sizes are compiled for this line, and not executed.
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.rows import append_row, read_rows, replace_file
from benchmarks.steps import SMALL
from benchmarks.timing import BACKENDS, child, forget_peak, in_child, peak_mib, take_turns
from keras_tokenlearner._extras import require

_MODELS = {
    "plain": ("vit_b16", "vivit_l16", {}),
    "token_learner": ("tokenlearner_b16_8at6", "tokenlearner_vivit_l16_16at12", {"at": 6}),
}
SIZES = {"resolution": (224, 320, 448, 640, 832, 1024), "frames": (8, 16, 32, 64, 128)}
ONLY_COMPILED = {"resolution": (2048, 4096), "frames": (256, 512)}
COLUMNS = ("backend", "axis", "size", "tokens", "model", "ms", "spread", "step_mib", "weights_mib")


def measure(axis, size, model, repeats):
    """Return time and memory of one model on this backend. With 0 repeats, no time is measured."""
    import keras

    from benchmarks.steps import step_of
    from keras_tokenlearner import create_model

    image, video, changes = _MODELS[model]
    if axis == "resolution":
        built = create_model(image, input_shape=(size, size, 3))
    else:
        built = create_model(video, input_shape=(size, 112, 112, 3), **SMALL, **changes)
    forget_peak()
    before, timed = peak_mib(), {"ms": "", "spread": ""}
    if repeats:
        (times,) = take_turns([step_of(built, "inference", 1)], repeats)
        timed = {"ms": f"{1e3 * times.median:.4g}", "spread": f"{times.spread:.3g}"}
    by_compiler = keras.backend.backend() == "jax"
    step = compiled_mib(built) if by_compiler else peak_mib() - before
    tokens = built.get_layer("positions").table.shape[:-1]
    return {
        "tokens": int(np.prod(tokens)),
        **timed,
        "step_mib": round(step, 1),
        "weights_mib": built.count_params() * 4 // 2**20,
    }


def compiled_mib(model):
    """Return the memory of one example's forward pass without weights, from JAX's compiler."""
    import jax

    kinds = model.trainable_variables, model.non_trainable_variables
    weights = [[variable.value for variable in kind] for kind in kinds]
    pixels = jax.ShapeDtypeStruct((1, *model.input_shape[1:]), "float32")
    forward = jax.jit(lambda *weights, x: model.stateless_call(*weights, x)[0])
    needed = forward.lower(*weights, x=pixels).compile().memory_analysis()
    return (needed.temp_size_in_bytes + needed.output_size_in_bytes) / 2**20


def fits(rows):
    """Fit the growth of each model's time and memory with its number of tokens.

    Args:
        rows: Dictionaries of strings, as `main` wrote them.

    Returns:
        A dictionary for each backend, axis and model, with the exponents of the step's time and
        memory over the tokens. Also the largest size at which weights and step stay under 16 GB.
    """
    groups = {}
    for row in rows:
        groups.setdefault((row["backend"], row["axis"], row["model"]), []).append(row)
    found = []
    for (backend, axis, model), group in groups.items():
        timed = [row for row in group if row["ms"]]
        tokens, ms, step = _numbers(timed[len(timed) // 2 :], "tokens", "ms", "step_mib")
        of_time = np.polyfit(np.log(tokens), np.log(ms), 1)[0]
        of_memory = np.polyfit(np.log(tokens), np.log(step), 1)[0]
        size, tokens, step, weights = _numbers(
            group[-2:], "size", "tokens", "step_mib", "weights_mib"
        )
        slope, constant = np.polyfit(tokens, step + weights, 1)
        most = (16e9 / 2**20 - constant) / slope
        of_size = 2 if axis == "resolution" else 1  # power by which tokens grow with the size
        found.append(
            {
                "backend": backend,
                "axis": axis,
                "model": model,
                "time_exponent": f"{of_time:.2f}",
                "memory_exponent": f"{of_memory:.2f}",
                "largest_for_16_gb": f"{size[-1] * (most / tokens[-1]) ** (1 / of_size):.0f}",
            }
        )
    return found


def _numbers(rows, *columns):
    return [np.array([float(row[name]) for row in rows]) for name in columns]


def plot(rows, path):
    """Plot time and memory over the size: one line per model and backend, one column per axis."""
    pyplot = require("matplotlib.pyplot", "plot")
    backends = sorted({row["backend"] for row in rows})
    shown = list(dict.fromkeys(row["axis"] for row in rows))
    size = (4.5 * len(shown), 6)
    figure, axes = pyplot.subplots(2, len(shown), figsize=size, layout="constrained", squeeze=False)
    for column, axis in enumerate(shown):
        labels = (("ms", "ms per example"), ("step_mib", "MiB of the step"))
        for line, (name, label) in enumerate(labels):
            ax = axes[line][column]
            for backend, model in product(backends, _MODELS):
                chosen = [
                    (float(row["size"]), float(row[name]))
                    for row in rows
                    if (row["axis"], row["backend"], row["model"]) == (axis, backend, model)
                    and row[name]
                ]
                style = "-" if model == "plain" else "--"
                color = f"C{backends.index(backend)}"
                ax.loglog(
                    *zip(*chosen, strict=True), style, color=color, label=f"{model}, {backend}"
                )
            sizes = sorted({int(row["size"]) for row in rows if row["axis"] == axis and row[name]})
            ax.set(xlabel=axis, ylabel=label)
            ax.set_xticks(sizes, sizes, rotation=45)
            ax.minorticks_off()
    axes[0][0].legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(arguments=None):
    """Write a row for each size, model and backend, then the fits and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--axes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument(
        "--sizes", type=int, nargs="+", help="sizes; default: the sizes of each axis"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/growth.csv"))
    options = parser.parse_args(arguments)
    replace_file(options.output)
    for backend, axis in product(options.backends, options.axes):
        repeats = dict.fromkeys(options.sizes or SIZES[axis], options.repeats)
        if backend == "jax" and not options.sizes:
            repeats |= dict.fromkeys(ONLY_COMPILED[axis], 0)
        for size, model in product(repeats, _MODELS):
            case = {"axis": axis, "size": size, "model": model}
            row = in_child("growth", backend, case | {"repeats": repeats[size]})
            append_row(options.output, COLUMNS, {"backend": backend} | case | row)
    rows = read_rows(options.output)
    fitted = options.output.with_stem(options.output.stem + "_fits")
    replace_file(fitted)
    for row in fits(rows):
        append_row(fitted, tuple(row), row)
    plot(rows, options.output.with_suffix(".png"))


if __name__ == "__main__":
    child(measure) or main()
