"""Quick exports for tests: one process writes the exported files of many tests.

`export` starts a process for each file that this backend cannot write. The process imports another
backend, which takes most of the time. Tests of that process set `writing.subprocess` back.
"""

import atexit
import functools
import json
import os
import subprocess
import sys
import types

LOOP = """
import json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # libraries print to the standard output
import keras
from keras_tokenlearner.serving.writing import WRITERS
for line in sys.stdin:
    saved, path, format, options = json.loads(line)
    error = ""
    try:
        model = keras.saving.load_model(saved, compile=False)
        from pathlib import Path
        WRITERS[format](model, Path(path), json.loads(options))
    except BaseException:
        error = traceback.format_exc()
    keras.utils.clear_session()
    print(json.dumps(error), file=answers, flush=True)
"""


def share_processes() -> None:
    """Let `export` use one process per backend for all files."""
    from keras_tokenlearner.serving import writing

    writing.subprocess = types.SimpleNamespace(run=_run)


def _run(command, *, input, env, **_):
    saved, path, format = command[4:7]
    process = _process(env["KERAS_BACKEND"], env["KERAS_TORCH_DEVICE"])
    print(json.dumps((saved, path, format, input)), file=process.stdin, flush=True)
    error = json.loads(process.stdout.readline())
    return subprocess.CompletedProcess(command, returncode=int(bool(error)), stderr=error)


@functools.cache
def _process(backend, device):
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", LOOP],
        env={**os.environ, "KERAS_BACKEND": backend, "KERAS_TORCH_DEVICE": device},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.kill)
    return process
