"""Writes an exported file, in a second process if this process cannot write the format."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import keras

from keras_tokenlearner._errors import listed
from keras_tokenlearner._json import JSON
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
    if _writes_here(model, format):
        WRITERS[format](model, path, options)
    else:
        write_in_another_process(model, path, format, options)


def check_classes(model: keras.Model, format: str) -> None:
    """Raise `ValueError` if a second process must write a format, but lacks classes of the model.

    Args:
        model: A `keras.Model`.
        format: A key of `FORMATS`.
    """
    if _writes_here(model, format):
        return
    found = sorted(_unknown_classes(keras.saving.serialize_keras_object(model)))
    if found:
        able = " or ".join(f"KERAS_BACKEND={name}" for name in FORMATS[format].backends)
        able += " and KERAS_TORCH_DEVICE=cpu" if "torch" in able else ""
        raise ValueError(
            f"export: format={format!r} needs {able}, because `model` has your own classes; set "
            "this before you import Keras. Otherwise a second process writes the file, and it "
            f"lacks these classes. Received: KERAS_BACKEND={keras.backend.backend()}, "
            f"model {model.name!r} with the classes {listed(found)}"
        )


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


def _writes_here(model: keras.Model, format: str) -> bool:
    """Return whether this process can write a model in a format."""
    return keras.backend.backend() in FORMATS[format].backends and not _is_on_accelerator(model)


def _is_on_accelerator(model: keras.Model) -> bool:
    """Return whether a PyTorch model is on an accelerator: its program would need this device."""
    if keras.backend.backend() != "torch" or not model.variables:
        return False
    return model.variables[0].value.device.type != "cpu"


def _unknown_classes(config: JSON) -> set[str]:
    """Return the names of classes and functions in a serialized model that a new process lacks."""
    found: set[str] = set()
    if isinstance(config, Mapping):
        module, kind, name = (config.get(key) for key in ("module", "class_name", "config"))
        if kind == "function" and isinstance(name, str) and not _is_known_function(name):
            found.add(name)
        elif isinstance(module, str) and isinstance(kind, str) and not _is_known(module, kind):
            found.add(str(config.get("registered_name") or kind))
        # The second process does not compile the model.
        config = [value for key, value in config.items() if key != "compile_config"]
    if isinstance(config, (list, tuple)):
        found.update(*map(_unknown_classes, config))
    return found


def _is_known(module: str, name: str) -> bool:
    """Return whether Keras finds a class in a process that imports this package."""
    package = module.partition(".")[0]
    if package == "keras_tokenlearner":  # a class in a function is registered by a call
        return hasattr(sys.modules.get(module), name)
    # Keras imports the modules of these packages itself. It refuses to load a `Lambda`.
    return name != "Lambda" and package in ("builtins", "keras", "keras_cv", "keras_hub")


def _is_known_function(name: str) -> bool:
    """Return whether Keras finds a function by its name in a process that imports this package."""
    package, _, name = name.rpartition(">")
    modules = (keras.activations, keras.initializers, keras.regularizers, keras.constraints)
    is_of_keras = any(hasattr(module, name) for module in modules)
    return package == "keras_tokenlearner" or (not package and is_of_keras)


if __name__ == "__main__":
    WRITERS[sys.argv[3]](
        keras.saving.load_model(sys.argv[1], compile=False),
        Path(sys.argv[2]),
        json.load(sys.stdin),
    )
