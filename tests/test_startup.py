"""Without a recent Keras or its backend, the import raises an error that states the fix."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from keras_tokenlearner import _startup

pytestmark = pytest.mark.once("torch")


def test_oldest_keras_of_the_import_check_equals_the_requirement_in_pyproject():
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    wanted = re.search(r'"keras>=(\d+)\.(\d+)"', text).groups()
    assert tuple(int(part) for part in wanted) == _startup.OLDEST_KERAS


def test_import_with_an_old_keras_raises_and_states_the_needed_version(monkeypatch):
    monkeypatch.setattr(metadata, "version", {"keras": "3.5.0"}.__getitem__)
    with pytest.raises(ImportError, match="Keras 3.15 .* keras 3.5.0"):
        _startup.check_keras()


@pytest.mark.parametrize("installed", [(), ("jax", "torch")], ids=["none", "jax and torch"])
def test_import_without_the_backend_raises_and_states_the_fix(monkeypatch, installed):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setattr(_startup.util, "find_spec", lambda name: name in installed or None)
    fix = "KERAS_BACKEND=jax or torch" if installed else "pip install jax .* KERAS_BACKEND="
    with pytest.raises(ImportError, match=fix):
        _startup.check_keras()
    monkeypatch.setattr("sys.argv", ["/bin/keras-tokenlearner", "models"])
    with pytest.raises(SystemExit, match=f"keras-tokenlearner: .*{fix}"):
        _startup.check_keras()


def test_import_with_an_unknown_backend_raises_and_states_its_name():
    program = subprocess.run(
        [sys.executable, "-c", "import keras_tokenlearner"],
        env={**os.environ, "KERAS_BACKEND": "pytorch"},
        capture_output=True,
        text=True,
    )
    said = program.stderr.splitlines()[-1]
    assert said.startswith("ImportError: Keras does not start (Unable to import backend")
    assert said.endswith("Received: KERAS_BACKEND='pytorch'")
