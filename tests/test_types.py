"""Type checkers report the wrong lines of a user's script, and no other lines."""

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.once("torch")

SCRIPT = """\
import keras
import numpy as np

import keras_tokenlearner as kt
from keras_tokenlearner.applications import TokenLearnerB16
from keras_tokenlearner.layers import TokenLearner
from keras_tokenlearner.models import VisionTransformer

model = TokenLearnerB16(classes=3)
blocks = model.blocks
plain: keras.Model = kt.create_model("vit_b16", classes=3)
tokens = TokenLearner(num_tokens=8)(np.zeros((1, 4, 4, 8), "float32"))
student = kt.retrofit(model, at=6, num_tokens=8)
depth = student.config.num_layers + len(student.blocks)
built = kt.retrofit(kt.create_model("vit_b16"), at=6)
small = kt.with_tokens(built, 4)
count = small.config.num_tokens + len(small.token_learners)
folder = model.save_to_preset("preset")
again: VisionTransformer = VisionTransformer.from_preset(folder, dropout_rate=0.1)
kt.create_model("vit_b16", clases=3)  # wrong
TokenLearnerB16(clases=3)  # wrong
TokenLearner(num_tokens="8")  # wrong
x: int = kt.create_model("vit_b16")  # wrong
kt.from_preset("preset", dropout=0.1)  # wrong
place: str = built.config.num_layers  # wrong
small.config.no_field  # wrong
"""


# Keras has no py.typed, so mypy reads it only when told. TensorFlow has no types: mypy would read
# its source for two minutes, and Keras needs one class of it.
MYPY = """\
[mypy]
mypy_path = stubs
follow_imports = skip

[mypy-keras.*]
follow_imports = normal
follow_untyped_imports = True

[mypy-keras_tokenlearner.*,numpy.*,tensorflow.*]
follow_imports = normal
"""
TENSORFLOW = """\
from typing import Any

class __internal__:
    class tracking:
        class AutoTrackable: ...

def __getattr__(name: str) -> Any: ...
"""


def lines_reported(folder, *command):
    """Return the numbers of the lines of the script that a type checker reports as errors."""
    (folder / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", *command, "script.py"], cwd=folder, capture_output=True, text=True
    )
    assert "could not be resolved" not in done.stdout and done.returncode == 1, done.stdout
    return {int(line) for line in re.findall(r"script\.py:(\d+).*error", done.stdout)}


def test_type_checkers_report_only_the_wrong_lines_of_a_script(tmp_path):
    pytest.importorskip("mypy", reason="the type checker")
    pytest.importorskip("basedpyright", reason="the type checker of editors")
    (tmp_path / "mypy.ini").write_text(MYPY)
    (tmp_path / "stubs" / "tensorflow").mkdir(parents=True)
    (tmp_path / "stubs" / "tensorflow" / "__init__.pyi").write_text(TENSORFLOW)
    mypy = lines_reported(tmp_path, "mypy")
    # Pyright takes the classes of Keras for Any.
    python = ("--pythonpath", sys.executable)
    pyright = lines_reported(tmp_path, "basedpyright", "--level", "error", *python)
    lines = SCRIPT.splitlines()
    wrong = {i for i, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert len(wrong) == 7
    assert mypy | pyright == wrong
    layer, variable = (i for i in sorted(wrong) if lines[i - 1].startswith(("TokenLearner(", "x:")))
    assert mypy >= wrong - {layer} and pyright >= wrong - {variable}
