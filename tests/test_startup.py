"""Without a recent Keras and its backend, the first import says what to do."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from keras_tokenlearner import _startup


def test_oldest_keras_is_that_of_the_package():
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    wanted = re.search(r'"keras>=(\d+)\.(\d+)"', text).groups()
    assert tuple(int(part) for part in wanted) == _startup.OLDEST_KERAS


def test_an_old_keras(monkeypatch):
    monkeypatch.setattr(metadata, "version", {"keras": "3.5.0"}.__getitem__)
    with pytest.raises(ImportError, match="needs Keras 3.15 .* --upgrade keras. Found: keras 3.5"):
        _startup.check_keras()


@pytest.mark.parametrize("installed", [(), ("jax", "torch")])
def test_no_backend(monkeypatch, installed):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setattr(_startup.util, "find_spec", lambda name: name in installed or None)
    mend = "set KERAS_BACKEND=jax or torch" if installed else r"pip install 'keras-tokenl.*\[jax\]"
    with pytest.raises(ImportError, match=mend):
        _startup.check_keras()
    monkeypatch.setattr("sys.argv", ["/bin/keras-tokenlearner", "models"])
    with pytest.raises(SystemExit, match=f"keras-tokenlearner: Keras does not start .*{mend}"):
        _startup.check_keras()


def test_a_backend_that_is_none():
    program = subprocess.run(
        [sys.executable, "-c", "import keras_tokenlearner"],
        env={**os.environ, "KERAS_BACKEND": "pytorch"},
        capture_output=True,
        text=True,
    )
    said = program.stderr.splitlines()[-1]
    assert said.startswith("ImportError: Keras does not start (Unable to import backend")
    assert said.endswith("Received: KERAS_BACKEND='pytorch'")
