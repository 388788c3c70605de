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
from keras_tokenlearner.applications.hub import hub_backbone_class
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
    """Raise `ValueError` if a second process must write a model, but cannot load all of its code.

    The second process cannot load your own Python classes and functions, or lambda functions.

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
            f"export: format={format!r} needs {able}; set this before you import Keras. Otherwise "
            "a second process writes the file. It cannot load your own classes and functions, or "
            f"lambda functions. Received: KERAS_BACKEND={keras.backend.backend()}, "
            f"model {model.name!r} with {listed(found)}"
        )


def write_in_another_process(model: keras.Model, path: Path, format: str, options: Options) -> None:
    """Write a model in a second process, which runs Keras on `FORMATS[format].backends[0]`.

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
    command += ["keras_hub"] * ("keras_hub" in sys.modules)
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
    """Return the names of Python classes and functions of a model that a new process lacks."""
    found: set[str] = set()
    if isinstance(config, Mapping):
        module, kind, inner = (config.get(key) for key in ("module", "class_name", "config"))
        # Keras writes no class name for a lambda function that is an activation.
        activations = [value for key, value in config.items() if key.endswith("activation")]
        nameless = [x for x in activations if isinstance(x, Mapping) and "class_name" not in x]
        if kind == "__lambda__" or nameless:
            found.add("<lambda>")
        elif kind == "function" and isinstance(inner, str):
            found.update(() if _is_known_function(inner) else (inner,))
        elif isinstance(module, str) and isinstance(kind, str):
            name = config.get("registered_name") or kind
            found.update(() if _is_known(module, kind, inner) else (str(name),))
        # The second process does not compile the model.
        config = [value for key, value in config.items() if key != "compile_config"]
    if isinstance(config, (list, tuple)):
        found.update(*map(_unknown_classes, config))
    return found


def _is_known(module: str, name: str, config: JSON) -> bool:
    """Return whether Keras finds a Python class in a process that imports this package."""
    if name == "Lambda" and isinstance(config, Mapping):  # Keras loads only registered functions
        function = config.get("function")
        called = function.get("config") if isinstance(function, Mapping) else None
        return str(called).startswith("keras_tokenlearner>")
    # Keras imports the modules of its packages itself.
    packages = ("builtins", "keras", "keras_cv", "keras_hub", "keras_nlp", "keras_tokenlearner")
    return module.partition(".")[0] in packages


def _is_known_function(name: str) -> bool:
    """Return whether Keras finds a function by its name in a process that imports this package."""
    package, _, name = name.rpartition(">")
    modules = (keras.activations, keras.initializers, keras.regularizers, keras.constraints)
    is_of_keras = any(hasattr(module, name) for module in modules)
    return package == "keras_tokenlearner" or (not package and is_of_keras)


if __name__ == "__main__":
    if "keras_hub" in sys.argv[4:]:
        hub_backbone_class()  # registers the class
    WRITERS[sys.argv[3]](
        keras.saving.load_model(sys.argv[1], compile=False),
        Path(sys.argv[2]),
        json.load(sys.stdin),
    )
