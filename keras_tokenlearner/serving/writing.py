"""Writes an exported file, in a second process if this process cannot write the format."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras

from keras_tokenlearner.serving.formats import FORMATS
from keras_tokenlearner.serving.litert import write_litert
from keras_tokenlearner.serving.metadata import Options
from keras_tokenlearner.serving.saved_model import write_saved_model
from keras_tokenlearner.serving.torch_formats import write_onnx, write_openvino, write_pt2

WRITERS: dict[str, Callable[[keras.Model, Path, Options], None]] = {
    "saved_model": write_saved_model,
    "onnx": write_onnx,
    "openvino": write_openvino,
    "litert": write_litert,
    "pt2": write_pt2,
}


def write(model: keras.Model, path: Path, format: str, options: Options) -> None:
    """Write a model in a format.

    A second process writes the file if this backend cannot, or if the model is on an accelerator.

    Args:
        model: A `keras.Model` of images or videos.
        path: `pathlib.Path` of a new file or, for a SavedModel, of a new folder.
        format: A key of `FORMATS`.
        options: Checked arguments of `export`.

    Raises:
        RuntimeError: If the second process fails; the message contains its output.
    """
    if keras.backend.backend() in FORMATS[format].backends and not _is_on_accelerator(model):
        WRITERS[format](model, path, options)
    else:
        write_in_another_process(model, path, format, options)


def write_in_another_process(model: keras.Model, path: Path, format: str, options: Options) -> None:
    """Write a model in a format, in another process that uses the first backend of the format.

    Args:
        model: A `keras.Model` of images or videos.
        path: `pathlib.Path` of a new file or folder. During the call, its parent folder also holds
            a temporary file, `model.keras`.
        format: A key of `FORMATS`.
        options: Checked arguments of `export`.

    Raises:
        RuntimeError: If the process fails; the message contains its output.
    """
    backend = FORMATS[format].backends[0]
    saved = path.with_name("model.keras")
    model.save(saved)
    # -P: code in the current folder must not replace a library.
    command = [sys.executable, "-P", "-m", __spec__.name, str(saved), str(path), format]
    done = subprocess.run(
        command,
        input=json.dumps(options),  # too long for an argument with thousands of class names
        env={**os.environ, "KERAS_BACKEND": backend, "KERAS_TORCH_DEVICE": "cpu"},
        capture_output=True,
        text=True,
    )
    saved.unlink()
    if done.returncode:
        raise RuntimeError(
            f"export: the second process, on the backend {backend}, failed; its output ends "
            f"with:\n{done.stderr[-2000:]}"
        )


def _is_on_accelerator(model: keras.Model) -> bool:
    """Return whether a PyTorch model is on an accelerator: its program would need this device."""
    if keras.backend.backend() != "torch" or not model.variables:
        return False
    return model.variables[0].value.device.type != "cpu"


if __name__ == "__main__":
    WRITERS[sys.argv[3]](
        keras.saving.load_model(sys.argv[1], compile=False),
        Path(sys.argv[2]),
        json.load(sys.stdin),
    )
