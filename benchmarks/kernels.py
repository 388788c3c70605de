"""The slowest kernels of a step, measured by the profiler of the backend.

    python -m benchmarks.kernels --policy mixed_bfloat16 --batch-size 128     # on a GPU
    python -m benchmarks.kernels --pair b16_224 --backends torch              # operations of a CPU

A kernel's `ms` is the time of all of its calls in one step. `step_ms` is the time of the same step
without the profiler. Numbers at the end of a kernel's name are removed, because they differ between
kernels of one source. JAX names its kernels only on a GPU. A run replaces its file: pass another
`--output` with other options.
"""

import argparse
import re
import tempfile
from collections import defaultdict
from itertools import product
from pathlib import Path

from benchmarks.realised import PAIRS, models_of
from benchmarks.rows import append_row, replace_file
from benchmarks.steps import STEPS
from benchmarks.timing import child, in_child, take_turns

BACKENDS = ("torch", "jax")
COLUMNS = (
    *("backend", "model", "step", "policy", "batch_size", "step_ms"),
    *("kernel", "calls", "ms", "share"),
)
_STEPS = 3


def measure(pair, step, policy, batch_size, most):
    """Return a row for each of the slowest kernels of two models, and a row for all kernels."""
    import keras

    from benchmarks.steps import step_of

    (models, batch), rows = models_of(pair, policy, batch_size), []
    profile = {"torch": of_torch, "jax": of_jax}[keras.backend.backend()]
    for model in models:
        call = step_of(model, step, batch)
        (times,) = take_turns([call], _STEPS)
        kernels = grouped(profile(call))
        if not kernels:
            raise ValueError(
                "kernels: `--backends` must be torch without a GPU, because JAX names kernels only "
                f"on a GPU. Received: --backends {keras.backend.backend()}"
            )
        total = sum(ms for _, ms in kernels.values())
        longest = sorted(kernels.items(), key=lambda item: -item[1][1])[:most]
        together = sum(calls for calls, _ in kernels.values()), total
        of_step = {"model": model.name, "batch_size": batch, "step_ms": f"{1e3 * times.median:.4g}"}
        for kernel, (calls, ms) in [("all", together), *longest]:
            found = {"calls": calls, "ms": f"{ms:.4g}", "share": f"{ms / total:.3f}"}
            rows.append(of_step | {"kernel": kernel} | found)
    return rows


def grouped(events):
    """Return calls and milliseconds per step of each kernel, by its name without numbers.

    Args:
        events: Pairs of a name and milliseconds, of `_STEPS` steps.
    """
    kernels = defaultdict(lambda: (0, 0))
    for name, ms in events:
        name = re.sub(r"([._]\d+)+$", "", name)[:120]
        calls, before = kernels[name]
        kernels[name] = calls + 1, before + ms
    return {name: (round(calls / _STEPS), ms / _STEPS) for name, (calls, ms) in kernels.items()}


def of_torch(call):
    """Profile some steps. Return name and milliseconds of each GPU kernel or CPU operation."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    on_gpu = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        for _ in range(_STEPS):
            call()
    if on_gpu:
        device = torch.autograd.DeviceType.CUDA
        events = [event for event in found.events() if event.device_type == device]
        return [(event.name, event.self_device_time_total / 1e3) for event in events]
    return [(event.name, event.self_cpu_time_total / 1e3) for event in found.events()]


def of_jax(call):
    """Return name and milliseconds of each kernel of some steps on a GPU."""
    import jax

    options = jax.profiler.ProfileOptions()
    options.host_tracer_level = options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(_STEPS):
                call()
        (path,) = Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(path)).planes
        return [
            (event.name, event.duration_ns / 1e6)
            for plane in planes
            if plane.name.startswith("/device:GPU")
            for line in plane.lines
            if line.name.startswith("Stream")
            for event in line.events
        ]


def main(arguments=None):
    """Profile two models for each kind of step and backend, and write the kernels to a CSV file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--pair", choices=PAIRS, default="l16_512")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--policy", default="float32")
    parser.add_argument("--batch-size", type=int, help="batch size; default: the pair's")
    parser.add_argument("--most", type=int, default=12, help="kernels of a step, the longest ones")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/kernels.csv"))
    options = parser.parse_args(arguments)
    replace_file(options.output)
    for backend, step in product(options.backends, options.steps):
        case = {"step": step, "policy": options.policy}
        of_run = {"pair": options.pair, "batch_size": options.batch_size, "most": options.most}
        for row in in_child("kernels", backend, case | of_run):
            append_row(options.output, COLUMNS, {"backend": backend} | case | row)


if __name__ == "__main__":
    child(measure) or main()
