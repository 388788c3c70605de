"""Limits on the memory and the time of attacks.

`Bounds` measures a `with` block. `attack` runs calls in another process, so a call that hangs or
exhausts the memory ends only that process.
"""

import atexit
import gc
import importlib
import json
import os
import queue
import re
import resource
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest


class Bounds:
    """Fails if its `with` block takes too much memory (MB) or CPU time (seconds)."""

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
    """The result of a call in another process: type and text of the error, memory and time."""

    error: str
    text: str
    megabytes: float
    seconds: float

    def is_refused(self, match, megabytes=300, seconds=20):
        """Assert that the call raised a matching `ValueError`, within limits of memory and time."""
        print(f"{self.megabytes:.0f} MB, {self.seconds:.1f} s")
        assert self.error == "ValueError", self
        assert re.search(match, self.text), self.text
        assert self.megabytes < megabytes and self.seconds < seconds


def attack(call, *arguments, megabytes=2500, seconds=120):
    """Call a function in another process, once for each argument, and return the `Outcome`s.

    All attacks of a test run share the process, because its imports take seconds.

    Args:
        call: The function, as `"module:name"`.
        *arguments: The argument of each call, a JSON value or a path.
        megabytes: Memory that a call may add to the process.
        seconds: Time limit of a call.
    """
    found = []
    for one in arguments:
        argument = str(one) if isinstance(one, os.PathLike) else one
        found.append(_worker().ask([call, argument, megabytes], seconds))
    return found


class _Worker:
    """The process that runs the calls of `attack`."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bounds"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        atexit.register(self.process.kill)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.lines.get(timeout=600)  # wait for its imports

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def ask(self, request, seconds):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            line = f"no answer within {seconds} s"
        if line is None or not line.startswith("{"):
            self.process.kill()
            self.process.wait()
            pytest.fail(f"{request}: {line or self.process.returncode}")
        return Outcome(**json.loads(line))


_WORKERS = []


def _worker():
    """Return the running process, or start one."""
    if not _WORKERS or _WORKERS[-1].process.poll() is not None:
        _WORKERS.append(_Worker())
    return _WORKERS[-1]


def read(path):
    """Read all arrays of a checkpoint."""
    from keras_tokenlearner.weights.formats.read import read_checkpoint

    for array in read_checkpoint(path).values():
        assert array is not None


def _memory_space():
    """Return the address space of this process in bytes, or 0 if the system does not state it."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[0]) * resource.getpagesize() if pages.exists() else 0


def _serve():
    """Run the calls of the standard input: each line is a JSON list of call, argument and MB."""
    import keras_tokenlearner.presets  # noqa: F401, before a limit is set

    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print
    print("{}", file=answers, flush=True)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    for line in sys.stdin:
        call, argument, megabytes = json.loads(line)
        module, _, name = call.partition(":")
        function = getattr(importlib.import_module(module), name)
        resource.setrlimit(resource.RLIMIT_AS, (_memory_space() + (megabytes << 20), most))
        gc.collect()
        reset_peak()
        before, start, error = peak(), time.process_time(), None
        try:
            function(argument)
        except Exception as caught:  # noqa: BLE001, the test checks its type
            error = caught
        found = Outcome(
            type(error).__name__, str(error), peak() - before, time.process_time() - start
        )
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        print(json.dumps(asdict(found)), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
