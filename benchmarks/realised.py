"""The share of TokenLearner's counted saving that a measured speedup realises.

Run on an idle machine:

    python -m benchmarks.realised

`saving` is the plain model's time divided by TokenLearner's, and `counted` the ratio of their
multiply-adds. `realised` is `saving` divided by `counted`. `of_matrix_rate` compares a model with
the rate of one large matrix product. The two models take turns in one process. Each result is
written at once, and the plot of `realised` is next to the file. A run replaces its file: pass
another `--output` with other options. On a GPU: `--policy mixed_bfloat16 --batch-size 32`.
"""

import argparse
from itertools import product
from pathlib import Path

from benchmarks.bars import draw_bars
from benchmarks.rows import append_row, read_rows, replace_file
from benchmarks.steps import SMALL, STEPS
from benchmarks.timing import BACKENDS, child, in_child, take_turns

# name: input shape, batch size, the plain model and the TokenLearner model, each with its changes
PAIRS = {
    "b16_384": ((384, 384, 3), 4, ("vit_b16", {}), ("tokenlearner_b16_8at6", {})),
    "b16_224": ((224, 224, 3), 8, ("vit_b16", {}), ("tokenlearner_b16_8at6", {})),
    "b16_384_fuser": ((384, 384, 3), 4, ("vit_b16", {}), ("tokenlearner_b16_8at6_fuser", {})),
    "s32_384": ((384, 384, 3), 16, ("vit_s32", {}), ("tokenlearner_s32_8at6", {})),
    "l16_512": ((512, 512, 3), 1, ("vit_l16", {}), ("tokenlearner_l16_16at12", {})),
    "vivit_s16": (
        (16, 224, 224, 3),
        1,
        ("vivit_l16", SMALL),
        ("tokenlearner_vivit_l16_16at12", SMALL | {"at": 6}),
    ),
}
TRAINED = "b16_384"  # a training step takes as long as three of inference, so one pair has it
COLUMNS = (
    *("backend", "pair", "step", "policy", "batch_size", "plain_ms", "token_ms"),
    *("plain_spread", "token_spread", "plain_first_s", "token_first_s"),
    *("saving", "counted", "realised", "plain_of_matrix_rate", "token_of_matrix_rate"),
)


def models_of(pair, policy, batch_size):
    """Return the two models of a pair, and the batch size, by default the pair's batch size."""
    import keras

    from keras_tokenlearner import create_model

    keras.config.set_dtype_policy(policy)
    shape, batch, *named = PAIRS[pair]
    models = [create_model(name, input_shape=shape, **changes) for name, changes in named]
    return models, batch_size or batch


def measure(pair, step, policy, batch_size, repeats):
    """Return the measurements of one pair of models on the backend of this process."""
    import keras

    from benchmarks.matrix_rate import matrix_rate
    from benchmarks.steps import PASSES, step_of
    from keras_tokenlearner.analysis import costs

    models, batch = models_of(pair, policy, batch_size)
    times = take_turns([step_of(model, step, batch) for model in models], repeats)
    plain, token = times
    macs = [costs(model).macs for model in models]
    rate = matrix_rate(keras.config.dtype_policy().compute_dtype)
    saving, counted = plain.median / token.median, macs[0] / macs[1]
    row = {
        "plain_ms": 1e3 * plain.median,
        "token_ms": 1e3 * token.median,
        "plain_spread": plain.spread,
        "token_spread": token.spread,
        "plain_first_s": plain.first,
        "token_first_s": token.first,
        "saving": saving,
        "counted": counted,
        "realised": saving / counted,
        "plain_of_matrix_rate": PASSES[step] * batch * macs[0] / plain.median / rate,
        "token_of_matrix_rate": PASSES[step] * batch * macs[1] / token.median / rate,
    }
    return {"batch_size": batch} | {name: f"{value:.4g}" for name, value in row.items()}


def main(arguments=None):
    """Write a row for each pair, step and backend."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    help_trained = f"pairs whose training step is also measured; default: {TRAINED}"
    parser.add_argument("--trained", nargs="*", choices=PAIRS, help=help_trained)
    parser.add_argument("--policy", default="float32")
    parser.add_argument("--batch-size", type=int, help="batch size; default: each pair's")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/realised.csv"))
    options = parser.parse_args(arguments)
    trained = [TRAINED] if options.trained is None else options.trained
    cases = [
        case
        for case in product(options.pairs, options.backends, options.steps)
        if case[-1] != "training" or case[0] in trained
    ]
    unused = set(options.trained or ()) - set(options.pairs if "training" in options.steps else ())
    if unused or not cases:
        parser.error(
            "--trained must name pairs of --pairs, and --steps must include training; add them. "
            f"Received: --pairs {' '.join(options.pairs)} --steps {' '.join(options.steps)} "
            f"--trained {' '.join(trained)}"
        )
    replace_file(options.output)
    for pair, backend, step in cases:
        case = {"pair": pair, "step": step, "policy": options.policy}
        of_run = {"batch_size": options.batch_size, "repeats": options.repeats}
        found = in_child("realised", backend, case | of_run)
        append_row(options.output, COLUMNS, {"backend": backend} | case | found)
    rows, path = read_rows(options.output), options.output.with_suffix(".png")
    draw_bars(rows, path, ["pair"], ["backend", "step"], "realised", goal=1)


if __name__ == "__main__":
    child(measure) or main()
