"""Limits on the memory and the time of attacks.

`Bounds` measures a block. `attack` runs a call in another process, which an attack without end or
a full memory ends.
"""

import importlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest


class Bounds:
    """Checks that a block takes little memory and CPU time, for any sizes in a file's header."""

    def __init__(self, megabytes=300, seconds=20):
        self.megabytes, self.seconds = megabytes, seconds

    def __enter__(self):
        reset_peak()
        self.before, self.start = peak(), time.process_time()

    def __exit__(self, *_):
        megabytes, seconds = peak() - self.before, time.process_time() - self.start
        print(f"{megabytes:.0f} MB, {seconds:.1f} s")
        assert megabytes < self.megabytes and seconds < self.seconds


def reset_peak(pid="self"):
    """Set the peak of a process's memory to its present memory, on Linux."""
    peaks = Path(f"/proc/{pid}/clear_refs")
    if peaks.exists():
        peaks.write_text("5")


def peak(pid="self"):
    """Return the peak of a process's memory since `reset_peak`, in MB."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass
class Outcome:
    """The end of a call in another process: the type and text of its error, memory and time."""

    error: str
    text: str
    megabytes: float
    seconds: float

    def is_refused(self, match, megabytes=300, seconds=20):
        """Check that the call raised `ValueError` with a text, in little memory and time."""
        print(f"{self.megabytes:.0f} MB, {self.seconds:.1f} s")
        assert self.error == "ValueError", self
        assert re.search(match, self.text), self.text
        assert self.megabytes < megabytes and self.seconds < seconds


def attack(call, *arguments, megabytes=2500, seconds=120):
    """Run calls of one argument each in another process, and return their `Outcome`s.

    Args:
        call: The function, as `"module:name"`.
        *arguments: The argument of each call, a JSON value.
        megabytes: Memory that the process may add to its memory after the imports.
        seconds: Time limit of the process.
    """
    command = [sys.executable, "-m", "tests.bounds", call, str(megabytes)]
    root = Path(__file__).parents[1]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(
                [str(one) if isinstance(one, os.PathLike) else one for one in arguments]
            ),
            capture_output=True,
            text=True,
            cwd=root,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"{call} of {arguments} has no end after {seconds} s")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == len(arguments), f"{done.returncode} {lines} {done.stderr[-2000:]}"
    return [Outcome(**json.loads(line)) for line in lines]


def read(path):
    """Read all arrays of a checkpoint."""
    from keras_tokenlearner.weights.formats.read import read_checkpoint

    for array in read_checkpoint(path).values():
        assert array is not None


def _memory_space():
    """Return the address space of this process in bytes, or 0 if the system does not state it."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[0]) * resource.getpagesize() if pages.exists() else 0


def _run(call, megabytes):
    module, _, name = call.partition(":")
    function = getattr(importlib.import_module(module), name)
    import keras_tokenlearner.presets  # noqa: F401, before the limit is set

    limit = _memory_space() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for argument in json.load(sys.stdin):
        reset_peak()
        before, start, error = peak(), time.process_time(), None
        try:
            function(argument)
        except Exception as caught:  # noqa: BLE001, the test checks its type
            error = caught
        found = Outcome(
            type(error).__name__, str(error), peak() - before, time.process_time() - start
        )
        print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]))
