"""Measures the time and memory of calls, each measurement in a new process."""

import contextlib
import inspect
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

BACKENDS = ("tensorflow", "jax", "torch")
# Whether XLA compiles. On TensorFlow, Keras uses XLA after `compile` if the model allows it.
XLA = {"tensorflow": (False, True), "jax": (True,), "torch": (False,)}


@dataclass(frozen=True)
class Times:
    """Seconds of the first call, which compiles, and of the warm calls."""

    first: float
    warm: tuple

    @property
    def median(self):
        return statistics.median(self.warm)

    @property
    def spread(self):
        """Difference of the slowest and the fastest warm call, divided by the median."""
        return (max(self.warm) - min(self.warm)) / self.median


def take_turns(calls, repeats):
    """Return the `Times` of functions that take turns, so load affects all of them equally.

    Args:
        calls: List of functions without arguments that return when their work is done.
        repeats: Integer, measured warm calls of each function, after two calls to warm up.
    """
    times = [[_seconds(call)] for call in calls]
    for _ in range(repeats + 1):
        for call, measured in zip(calls, times, strict=True):
            measured.append(_seconds(call))
    return [Times(measured[0], tuple(measured[2:])) for measured in times]


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def forget_peak():
    """Reset `peak_mib` to the current memory, after a model is built. Linux only."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib():
    """Return the peak memory of this process, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # without /proc, the memory of the parent process is included
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def in_child(module, backend, case):
    """Return the result of a benchmark function for a case in a new process, on a backend.

    When the module is run, it must call `child` with its measuring functions.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", "--case", json.dumps(case)],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed on {backend} for {case}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def child(*measures):
    """Print the result of the function whose parameters are the keys of `--case`.

    Return `False` without `--case`.
    """
    if sys.argv[1:2] != ["--case"]:
        return False
    case = json.loads(sys.argv[2])
    (measure,) = (m for m in measures if set(case) == set(inspect.signature(m).parameters))
    print(json.dumps(measure(**case)))
    return True
